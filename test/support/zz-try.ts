import { checkPostgresql } from "../../src/providers/checks/postgresql.ts";
import { startTlsPostgres } from "./tls-postgres.ts";
import { directIo } from "./hostile-dialer.ts";
const s = await startTlsPostgres();
const base = {host:"localhost",port:s.port,username:"app",password:"secret",database:"postgres",sslmode:"verify-full",caCertificate:s.ca} as const;
try {
 await s.run("create role app login password 'secret'");
 const go = async (name: string, over: any={}) => { const io = directIo(); const t0=Date.now(); const r = await checkPostgresql({...base,...over}, io); console.log(name, Date.now()-t0, r.reason, JSON.stringify(r.details), io.open(), io.received()); };
 await go("full"); await go("prefer",{sslmode:"prefer",caCertificate:""}); await go("disable",{sslmode:"disable"}); await go("require",{sslmode:"require", caCertificate:""});
 await go("wrongpw",{password:"x"}); await go("nodb",{database:"x"}); await go("otherCa",{caCertificate:s.otherCa}); await go("noCa",{caCertificate:""}); await go("ip",{host:"127.0.0.1"}); await go("ca+ip",{host:"127.0.0.1",sslmode:"verify-ca"});
 for (const k of ["expired","future","otherName","selfSigned","client"] as const) { await s.certificate(k); await go(k); }
} finally { await s.stop(); }
