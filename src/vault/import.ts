import { randomUUID } from "node:crypto";
import type { Envelope } from "../crypto/envelope.ts";
import { fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { accept } from "../providers/index.ts";
import type { CredentialLimits, Store } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";
import { withIncident } from "./incident.ts";
import type { ImportInput } from "./keys-use-cases.ts";
import { renewalOf } from "./renewal.ts";

/** What importing needs. */
export interface ImportDeps {
  readonly store: Pick<Store, "imports" | "keyRegistry">;
  readonly envelope: Pick<Envelope, "seal">;
  readonly limits: CredentialLimits;
  /** Check values that this process has registered, hex: every row of an import brings the same ones. */
  readonly registered: Set<string>;
  readonly log: Log;
  readonly now: () => Date;
}

/**
 * Takes over one secret from another system, once for each source: it is sealed as if its user had given it now, and counts
 * against the same limits. Throws KEY_IS_FOREIGN where a key of the other system is a master key of this one: both systems'
 * secrets would be open to whoever holds either. From then on a start with such a master key is refused.
 */
export async function importCredential(deps: ImportDeps, grant: Grant<"import_credential">, input: ImportInput): Promise<{ credentialId: string; alreadyImported: boolean }> {
  const { registered } = deps;
  const { keyRegistry, imports } = deps.store;
  const { organizationId, userId, provider, credentialType, name, source, sealedAt } = input;
  const known = await imports.find(organizationId, source);
  if (known !== undefined) return { credentialId: known, alreadyImported: true };
  if (!input.keyCheckValues.every((value) => registered.has(value.toString("hex")))) {
    const masterKeys = await keyRegistry.list();
    if (masterKeys.some(({ checkValue }) => input.keyCheckValues.some((value) => value.equals(checkValue)))) throw fail("KEY_IS_FOREIGN");
    await keyRegistry.registerForeign(input.keyCheckValues);
    for (const value of input.keyCheckValues) registered.add(value.toString("hex"));
  }
  const { call } = grant;
  const accepted = await accept(provider, credentialType, input.credentials, { now: deps.now(), fairness: organizationId, signal: call.signal });
  const id = randomUUID();
  const place = { organizationId, credentialId: id, provider, credentialType, secretVersion: 1n };
  const sealed = await withIncident(deps.log, call, place, () => deps.envelope.seal(place, accepted.document));
  const { accountEmail, tokenExpiresAt } = accepted;
  const row = { organizationId, id, provider, credentialType, userId, name, accountEmail, tokenExpiresAt, modifiedBy: userId, sealed, renewal: renewalOf(provider, credentialType, accepted, false) };
  return imports.create({ row, source, sealedAt }, deps.limits, auditEvent(call, grant.action, { organizationId, credentialId: id }), call.signal);
}
