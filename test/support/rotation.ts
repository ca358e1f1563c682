import { createSecretKey, randomUUID } from "node:crypto";
import { Envelope } from "../../src/crypto/envelope.ts";
import { KeyRing, localMasterKey } from "../../src/crypto/ring.ts";
import type { Store } from "../../src/store/store.ts";
import { connect } from "./postgres.ts";

/** A ring of master keys as they are configured. */
export const ringOf = (keys: Readonly<Record<string, string>>, primary: string): KeyRing =>
  new KeyRing(Object.entries(keys).map(([id, key]) => localMasterKey(id, createSecretKey(Buffer.from(key, "base64")))), primary);

/** An envelope over a store, as a service would have it. */
export const envelopeOf = (store: Store, ring: KeyRing): Envelope => new Envelope({ keyring: ring, keys: store.organizationKeys, maxEntries: 10_000, maxAgeMs: 60_000 });

/** Stores so many credentials of an organization at once, past limits and audit, the password of each being its number; gives their ids. */
export async function storeMany(superuserUrl: string, envelope: Envelope, organizationId: string, count: number): Promise<string[]> {
  const ids = Array.from({ length: count }, () => randomUUID());
  const sealed: Buffer[] = [];
  for (const [n, credentialId] of ids.entries()) {
    const place = { organizationId, credentialId, provider: "sftp", credentialType: "user_password", secretVersion: 1n } as const;
    sealed.push(await envelope.seal(place, { host: "sftp.example.com", port: 22, username: "u", password: `p${n}` }));
  }
  await using superuser = await connect(superuserUrl);
  for (let from = 0; from < count; from += 2_000) {
    await superuser.query(
      `insert into credential (organization_id, id, provider, credential_type, user_id, sealed, created_at, updated_at, modified_by)
      select $1, u.id, 'sftp', 'user_password', $1, u.sealed, now(), now(), 'system' from unnest($2::uuid[], $3::bytea[]) u(id, sealed)`,
      [organizationId, ids.slice(from, from + 2_000), sealed.slice(from, from + 2_000)],
    );
  }
  // As if each had been created one by one: deletes give the counters back.
  await superuser.query(
    `insert into credential_counter select $1::uuid, w, $2::integer from unnest(array['provider:sftp', 'user:' || $1::uuid]) w on conflict (organization_id, counter) do update set n = credential_counter.n + $2::integer`,
    [organizationId, count],
  );
  return ids;
}
