import { createSecretKey, randomBytes, randomUUID } from "node:crypto";
import pg from "pg";
import { Envelope } from "../../src/crypto/envelope.ts";
import { KeyRing, localMasterKey } from "../../src/crypto/ring.ts";
import { createLog } from "../../src/log.ts";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { migrate } from "../../src/store/migrate.ts";
import { openStore } from "../../src/store/open.ts";
import type { Store } from "../../src/store/store.ts";
import { checkKeys } from "../../src/vault/keys.ts";
import { startPostgres } from "./postgres.ts";

/** A database with much to rotate, and the parts of the service that rotate it, in this process. */
export interface RotationData extends AsyncDisposable {
  readonly store: Store;
  readonly ring: KeyRing;
  readonly envelope: Envelope;
  /** Everything, past row-level security: for filling, for the floors, and to clean up between them. */
  readonly superuser: pg.Client;
  readonly applicationUrl: string;
  /** The setting of the two master keys, `k1` and `k2`. */
  readonly masterKeys: string;
  /** The organization that has all the credentials. */
  readonly organizationId: string;
}

/** Rows in one statement while filling. */
const CHUNK = 1_000;
/** About 300 bytes, as an SFTP password with a pinned host key is. */
const SECRET = { host: "sftp.example.com", port: 22, username: "reports", password: "p".repeat(32), host_key_fingerprint: `SHA256:${"A".repeat(43)}` };

/** Fills a new database: so many credentials in one organization, and so many organizations with a key. */
export async function rotationData(folder: string, rows: number): Promise<RotationData> {
  const server = await startPostgres(folder);
  await migrate({ url: server.ownerUrl, applicationRole: parseDatabaseUrl(server.applicationUrl).user });
  const superuser = new pg.Client({ ...parseDatabaseUrl(server.superuserUrl) });
  await superuser.connect();
  const store = await openStore({ url: server.applicationUrl, prepared: true, poolSize: 10, statementTimeoutMs: 60_000, resolveQueue: 4_096, resolveBatch: 256, log: createLog("warn") });
  const [first, second] = [randomBytes(32), randomBytes(32)];
  const masterKeys = `k1:${first.toString("base64")},k2:${second.toString("base64")}`;
  const ring = new KeyRing([localMasterKey("k1", createSecretKey(first)), localMasterKey("k2", createSecretKey(second))], "k1");
  await checkKeys(store.keyRegistry, ring);
  await store.replicas.nominate("k1");
  const envelope = new Envelope({ keyring: ring, keys: store.organizationKeys, maxEntries: 1_000, maxAgeMs: 3_600_000 });
  const organizationId = randomUUID();
  for (let from = 0; from < rows; from += CHUNK) await fillCredentials(superuser, envelope, organizationId, Math.min(CHUNK, rows - from));
  for (let from = 0; from < rows; from += CHUNK) await fillKeys(superuser, envelope, Math.min(CHUNK, rows - from));
  await superuser.query("vacuum analyze");
  return {
    store, ring, envelope, superuser, applicationUrl: server.applicationUrl, masterKeys, organizationId,
    async [Symbol.asyncDispose]() {
      await store.close();
      await superuser.end();
      await server.stop();
    },
  };
}

async function fillCredentials(superuser: pg.Client, envelope: Envelope, organizationId: string, count: number): Promise<void> {
  const ids = Array.from({ length: count }, () => randomUUID());
  const sealed: Buffer[] = [];
  for (const credentialId of ids) sealed.push(await envelope.seal({ organizationId, credentialId, provider: "sftp", credentialType: "user_password", secretVersion: 1n }, SECRET));
  await superuser.query(
    `insert into credential (organization_id, id, provider, credential_type, user_id, sealed, created_at, updated_at, modified_by)
    select $1, u.id, 'sftp', 'user_password', $1, u.sealed, now(), now(), 'system' from unnest($2::uuid[], $3::bytea[]) u(id, sealed)`,
    [organizationId, ids, sealed],
  );
}

async function fillKeys(superuser: pg.Client, envelope: Envelope, count: number): Promise<void> {
  const drawn = await Promise.all(Array.from({ length: count }, () => envelope.keys.draw({ organizationId: randomUUID(), version: 1 })));
  await superuser.query(
    `insert into organization_key (organization_id, version, wrapped, master_key_id, commitment)
    select u.id, 1, u.wrapped, 'k1', u.commitment from unnest($1::uuid[], $2::bytea[], $3::bytea[]) u(id, wrapped, commitment)`,
    [drawn.map((key) => key.organizationId), drawn.map(({ wrapped }) => wrapped), drawn.map(({ commitment }) => commitment)],
  );
}
