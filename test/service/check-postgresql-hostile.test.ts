import { readdirSync } from "node:fs";
import type { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { checkPostgresql, type PostgresqlTarget } from "../../src/providers/checks/postgresql.ts";
import { NO_DEMANDS } from "../../src/providers/connection-string.ts";
import { canary } from "../support/canary.ts";
import { abortWhenQuiet, directIo, shows } from "../support/hostile-dialer.ts";
import { answerOf, hangUp, lengthLie, login, message, OK, postgresServer, READY, refusal, reset, rowOf, SCRAM } from "../support/hostile-postgres.ts";
import { drip, flood } from "../support/hostile-tcp.ts";

type Step = Buffer | string | ((socket: Socket, heard: Buffer) => void);
const PASSWORD = canary("password");
const target = (port: number, sslmode: PostgresqlTarget["sslmode"]): PostgresqlTarget => ({
  host: "127.0.0.1", port, username: canary("user"), password: PASSWORD, database: "data", sslmode, caCertificate: "", demands: NO_DEMANDS,
});

/** The first message of SCRAM (RFC 5802 section 7) with the nonce that was sent. */
const scramFirst = (iterations: string, nonce?: string) => (socket: Socket, heard: Buffer): void => {
  const sent = /r=([^,]+)$/.exec(heard.toString("latin1"))?.[1] ?? "";
  socket.write(login(11, `r=${nonce ?? `${sent}more`},s=c2FsdHNhbHQ=,i=${iterations}`));
};
const silence = (): void => {};
const READY_TO_ASK = Buffer.concat([OK, READY]);
const notice = message("N", `SNOTICE\0C00000\0M${"canary ".repeat(20)}\0\0`);

/** What a server does, step by step, without TLS, and how the test ends. */
const PLAIN: readonly (readonly [what: string, steps: readonly Step[], reason: string])[] = [
  ["hangs up at the start", [hangUp], "pg_startup_closed"],
  ["cuts off at the start", [reset], "pg_startup_closed"],
  ["is silent at the start", [silence], "pg_startup_timed_out"],
  ["answers letter by letter", [(socket) => drip(socket, "N\0\0\u0001\0")], "pg_startup_timed_out"],
  ["is a web server", ["HTTP/1.1 400 Bad Request\r\n\r\n"], "not_a_postgresql_server"],
  ["is a Redis server", ["-ERR unknown command\r\n"], "not_a_postgresql_server"],
  ["speaks version 2 of the protocol", ["EFATAL: unsupported frontend protocol\n\0"], "not_a_postgresql_server"],
  ["announces 2 GiB at once", [lengthLie("R", 0x7fffffff)], "not_a_postgresql_server"],
  ["announces a message without its length", [lengthLie("R", 3)], "not_a_postgresql_server"],
  ["announces 2 GiB later", [Buffer.concat([OK, lengthLie("S", 0x7fffffff)])], "pg_protocol_broken"],
  ["sends notices for ever", [(socket) => flood(socket, notice)], "too_much_data"],
  ["sends parameters for ever", [(socket) => (socket.write(OK), flood(socket, message("S", "a\0b\0")))], "too_much_data"],
  ["negotiates the version", [message("v", Buffer.alloc(8))], "pg_protocol_version_refused"],
  ["asks for clear text", [login(3)], "pg_cleartext_refused"],
  ["asks for clear text after SCRAM", [SCRAM, login(3)], "pg_cleartext_refused"],
  ["asks for MD5", [login(5, "salt")], "pg_md5_refused"],
  ["asks for MD5 after SCRAM", [SCRAM, login(5, "salt")], "pg_md5_refused"],
  ["asks for SCRAM twice", [SCRAM, SCRAM], "pg_protocol_broken"],
  ["asks for Kerberos", [login(7)], "pg_authentication_unsupported"],
  ["asks for what nobody knows", [login(99)], "pg_authentication_unsupported"],
  ["offers only SASL that needs more", [login(10, "OAUTHBEARER\0\0")], "pg_authentication_unsupported"],
  ["offers channel binding without TLS", [login(10, "SCRAM-SHA-256-PLUS\0\0")], "pg_authentication_unsupported"],
  ["asks for 2^31 iterations", [SCRAM, scramFirst("2147483647")], "pg_scram_too_costly"],
  ["asks for 10^19 iterations", [SCRAM, scramFirst("9999999999999999999")], "pg_scram_too_costly"],
  ["asks for one iteration", [SCRAM, scramFirst("1")], "pg_scram_too_cheap"],
  ["asks for one iteration too few", [SCRAM, scramFirst("4095")], "pg_scram_too_cheap"],
  ["asks for enough iterations and then for one", [SCRAM, scramFirst("4096,i=1")], "pg_protocol_broken"],
  ["asks for no iterations", [SCRAM, scramFirst("0")], "pg_protocol_broken"],
  ["continues with nonsense", [SCRAM, login(11, "nonsense")], "pg_protocol_broken"],
  ["continues with another's nonce", [SCRAM, scramFirst("4096", "bm9uY2Vub25jZW5vbmNlbm9uY2U")], "pg_protocol_broken"],
  ["continues what was not begun", [login(11, "r=a,s=b,i=1")], "pg_protocol_broken"],
  ["accepts without proving itself", [SCRAM, OK], "pg_server_unproven"],
  ["accepts in the midst of SCRAM", [SCRAM, scramFirst("4096"), OK], "pg_server_unproven"],
  ["proves itself wrongly", [SCRAM, scramFirst("4096"), login(12, `v=${Buffer.alloc(32).toString("base64")}`)], "pg_server_unproven"],
  ["is silent after the first step", [SCRAM, silence], "pg_authentication_timed_out"],
  ["hangs up after the first step", [SCRAM, hangUp], "pg_authentication_closed"],
  ["is silent after the login", [OK], "pg_startup_timed_out"],
  ["is ready before the login", [READY], "not_a_postgresql_server"],
  ["sends rows before the login", [Buffer.concat([notice, rowOf("1")])], "pg_protocol_broken"],
  ["sends rows that nobody asked for", [Buffer.concat([READY_TO_ASK, rowOf("1")]), silence], "pg_protocol_broken"],
  ["logs in again after the login", [Buffer.concat([READY_TO_ASK, login(3)])], "pg_protocol_broken"],
  ["sends an unknown message", [READY_TO_ASK, message("?", "canary")], "pg_protocol_broken"],
  ["is silent at the query", [READY_TO_ASK, silence], "pg_query_timed_out"],
  ["cuts off at the query", [READY_TO_ASK, reset], "pg_query_closed"],
  ["fails at the query", [READY_TO_ASK, Buffer.concat([refusal("XX000"), READY])], "pg_query_failed"],
  ["forbids the query", [READY_TO_ASK, Buffer.concat([refusal("42501"), READY])], "pg_select_not_granted"],
  ["shuts down at the query", [READY_TO_ASK, refusal("57P01")], "pg_shutting_down"],
  ["answers 2", [READY_TO_ASK, answerOf("2")], "pg_answer_wrong"],
  ["answers nothing", [READY_TO_ASK, Buffer.concat([message("I"), READY])], "pg_answer_wrong"],
  ["answers with rows for ever", [READY_TO_ASK, (socket) => (socket.write(rowOf("1")), flood(socket, rowOf("1").subarray(-12)))], "too_much_data"],
  ["announces a row of 2 GiB", [READY_TO_ASK, Buffer.concat([rowOf("1"), lengthLie("D", 0x7fffffff)])], "pg_protocol_broken"],
];

/** Refusals by SQLSTATE, and the words that tell those apart that share one. */
const REFUSALS: readonly (readonly [state: string, text: string, routine: string, reason: string])[] = [
  ["28P01", "password authentication failed", "auth_failed", "pg_password_refused"],
  ["28000", 'no pg_hba.conf entry for host "203.0.113.9", user "u", database "d", no encryption', "ClientAuthentication", "pg_tls_required"],
  ["28000", 'no pg_hba.conf entry for host "203.0.113.9", user "u", database "d", SSL encryption', "ClientAuthentication", "pg_host_not_permitted"],
  ["28000", "pg_hba.conf rejects connection", "ClientAuthentication", "pg_host_not_permitted"],
  ["28000", "connection requires a valid client certificate", "ClientAuthentication", "pg_client_certificate_required"],
  ["28000", 'role "u" is not permitted to log in', "InitializeSessionUserId", "pg_role_may_not_log_in"],
  ["28000", 'role "u" does not exist', "InitializeSessionUserId", "pg_role_missing"],
  ["28000", "something in another language", "Elsewhere", "pg_login_refused"],
  ["28P02", "canary", "x", "pg_login_refused"],
  ["3D000", "canary", "x", "pg_database_missing"],
  ["55000", "canary", "x", "pg_database_closed"],
  ["42501", "canary", "x", "pg_connect_not_granted"],
  ["53300", "canary", "x", "pg_too_many_connections"],
  ["57P01", "canary", "x", "pg_shutting_down"],
  ["57P03", "canary", "x", "pg_starting_up"],
  ["0A000", "canary", "x", "pg_protocol_version_refused"],
  ["08P01", "canary", "x", "pg_pooler_refused"],
  ["XX000", "canary\u001b[31m\r\npassword=", "x", "pg_server_error"],
];

/** What a server answers to the request for TLS. */
const TLS: readonly (readonly [what: string, step: Step, sslmode: PostgresqlTarget["sslmode"], reason: string])[] = [
  ["is silent", silence, "prefer", "pg_tls_reply_timed_out"],
  ["hangs up", hangUp, "require", "pg_tls_reply_closed"],
  ["cuts off", reset, "require", "pg_tls_reply_closed"],
  ["has no TLS", "N", "require", "pg_tls_not_offered"],
  ["has no TLS", "N", "verify-ca", "pg_tls_not_offered"],
  ["has no TLS", "N", "verify-full", "pg_tls_not_offered"],
  ["answers with an error", refusal("53300"), "require", "pg_tls_reply_error"],
  ["has something injected", Buffer.concat([Buffer.from("S"), READY_TO_ASK]), "require", "pg_tls_reply_injected"],
  ["is an SSH server", "SSH-2.0-OpenSSH_9.2\r\n", "prefer", "not_a_postgresql_server"],
  ["is a web server", "HTTP/1.1 400 Bad Request\r\n\r\n", "prefer", "not_a_postgresql_server"],
  ["adds to its no", Buffer.concat([Buffer.from("N"), OK]), "prefer", "not_a_postgresql_server"],
  ["says yes and is silent", "S", "require", "pg_tls_handshake_timed_out"],
  ["says yes and hangs up", (socket) => (socket.write("S"), socket.once("data", () => socket.end())), "require", "pg_tls_handshake_closed"],
  ["says yes and talks nonsense", (socket) => (socket.write("S"), socket.once("data", () => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n"))), "require", "tls_handshake_failed"],
  ["says yes and knows only TLS 1.0", (socket) => (socket.write("S"), socket.once("data", () => socket.write(Buffer.from([0x15, 3, 1, 0, 2, 2, 70])))), "require", "tls_version_not_supported"],
];

async function run(steps: readonly Step[], sslmode: PostgresqlTarget["sslmode"], late: boolean) {
  await using server = await postgresServer(...steps);
  const io = directIo({ maxBytes: 256 * 1024 });
  if (late) abortWhenQuiet(io, server);
  const result = await checkPostgresql(target(server.port, sslmode), io);
  expect([io.open(), shows(result, "canary"), server.heard().includes(PASSWORD)]).toEqual([0, false, false]);
  // Neither proof of the password: not that of SCRAM (RFC 5802 section 7), nor a hash.
  if (result.reason.startsWith("pg_scram_") || result.reason === "pg_md5_refused") expect(server.heard().toString("latin1")).not.toMatch(/,p=|md5[0-9a-f]{32}/);
  return { result, heard: server.heard() };
}

describe("a server that, without TLS,", () => {
  test.each(PLAIN)("%s is told apart and hears no password", async (_, steps, reason) => {
    const { result } = await run(steps, "disable", reason.endsWith("_timed_out"));
    expect(result).toMatchObject({ success: false, reason });
    expect(result.layer === "timeout").toBe(reason.endsWith("_timed_out"));
  });

  test.each(REFUSALS)("refuses with %s (%s, %s) is understood and not quoted", async (state, text, routine, reason) => {
    expect((await run([refusal(state, text, routine)], "disable", false)).result).toMatchObject({ success: false, reason });
  });

  test("asks for no password is reported, and hears only what was asked", async () => {
    const { result, heard } = await run([READY_TO_ASK, answerOf("1"), Buffer.concat([refusal("42883"), READY])], "disable", false);
    expect(result).toMatchObject({ success: true, details: { password_checked: false, tls: "none", can_select: true }, message: expect.stringContaining("no password") });
    expect(heard.toString("latin1")).toMatch(/^[\s\S]{8}user\0canary-user-\w+\0database\0data\0application_name\0flow-credentials\0client_encoding\0UTF8\0\0Q/);
  });

  test.each([
    ["no password", [READY_TO_ASK]],
    ["clear text", [login(3)]],
    ["an MD5 hash", [login(5, "salt")]],
    ["SCRAM", [SCRAM, scramFirst("4096")]],
  ])("asks for %s is left where the login must be bound to TLS", async (what, steps) => {
    await using server = await postgresServer(...steps);
    const result = await checkPostgresql({ ...target(server.port, "disable"), demands: { ...NO_DEMANDS, channelBinding: "require" } }, directIo());
    const refused = { "clear text": "pg_cleartext_refused", "an MD5 hash": "pg_md5_refused" }[what];
    expect(result).toMatchObject({ success: false, reason: refused ?? "pg_channel_binding_missing" });
    expect(server.heard().toString("latin1")).not.toMatch(/,r=|,p=|md5/);
  });
});

describe("a server that, asked for TLS,", () => {
  test.each(TLS)("%s is told apart (%#)", async (_, step, sslmode, reason) => {
    const { result } = await run([step], sslmode, reason.endsWith("_timed_out"));
    expect(result).toMatchObject({ success: false, reason });
  });

  test.each(["prefer", "allow"] as const)("has none is used without where sslmode is %s, which the result says", async (sslmode) => {
    const { result } = await run(["N", READY_TO_ASK, answerOf("1"), answerOf("1")], sslmode, false);
    expect(result).toMatchObject({ success: true, details: { tls: "none" } });
  });
});

test("an empty part is never left to the environment, and nothing is dialled for it", async () => {
  const io = directIo();
  expect(await checkPostgresql({ ...target(9, "disable"), password: "" }, io)).toMatchObject({ reason: "pg_password_missing" });
  for (const part of ["host", "username", "database"]) expect(await checkPostgresql({ ...target(9, "disable"), [part]: "" }, io)).toMatchObject({ reason: "check_failed" });
});

test("variables of the environment reach no server", async () => {
  const planted = { PGUSER: "x", PGPASSWORD: "x", PGOPTIONS: "-c x=1", PGREPLICATION: "database", PGSSLMODE: "no-verify", PGSSLNEGOTIATION: "direct", PGCLIENTENCODING: "x", PGAPPNAME: "x" };
  const before = { ...process.env };
  Object.assign(process.env, Object.fromEntries(Object.entries(planted).map(([name, value]) => [name, value === "x" ? "planted" : value])));
  try {
    const { result, heard } = await run([READY_TO_ASK, answerOf("1"), answerOf("1")], "disable", false);
    expect(result.success).toBe(true);
    expect(heard.toString("latin1")).not.toMatch(/planted|options|replication/);
  } finally {
    for (const name of Object.keys(planted)) if (before[name] === undefined) delete process.env[name];
  }
});

test("two hundred rounds with a server that floods leave no descriptor open", async () => {
  const open = (): number => readdirSync("/proc/self/fd").length;
  await using server = await postgresServer((socket) => flood(socket, notice));
  let settled = 0;
  for (let round = 0; round < 200; round += 1) {
    const io = directIo({ maxBytes: 64 * 1024 });
    expect(await checkPostgresql(target(server.port, "disable"), io)).toMatchObject({ reason: "too_much_data" });
    expect([io.open(), io.received() < 256 * 1024]).toEqual([0, true]);
    if (round === 20) settled = open();
  }
  expect(open()).toBeLessThanOrEqual(settled + 8);
});
