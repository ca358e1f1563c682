import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Envelope } from "../crypto/envelope.ts";
import { type Call, type Caller, inScope } from "../domain/access.ts";
import type { CredentialRecord, CredentialTypeName, ProviderName, SecretDocument } from "../domain/credential.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { accept, catalog, type CatalogEntry } from "../providers/index.ts";
import type { Accepted } from "../providers/provider.ts";
import type { CredentialLimits, CredentialUse, Store } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";
import { withIncident } from "./incident.ts";
import { renewalOf } from "./renewal.ts";

/** What the use cases below need. */
export interface ManageDeps {
  readonly store: Pick<Store, "credentials" | "usage">;
  readonly envelope: Pick<Envelope, "seal">;
  readonly limits: CredentialLimits;
  readonly log: Log;
  /** The clock that relative token lifetimes count from. */
  readonly now: () => Date;
}

/** A new credential as a caller asks for it, well-formed but not yet checked against its provider. */
export interface CreateInput {
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly credentials: SecretDocument;
  readonly name: string | null;
}

/** A replacement as a caller asks for it; a null name keeps the old one, a null etag is no precondition. */
export interface UpdateInput {
  readonly credentialId: string;
  readonly credentialType: CredentialTypeName;
  readonly credentials: SecretDocument;
  readonly name: string | null;
  readonly etag: string | null;
  /** How long the secret that is replaced is kept, s; 0 for not at all. */
  readonly keepPreviousSeconds?: number;
}

/** Which credentials to list; null for every provider. */
export interface ListFilter {
  readonly provider: ProviderName | null;
}

/** Which credential to delete; a null etag is no precondition. */
export interface DeleteInput {
  readonly credentialId: string;
  readonly etag: string | null;
  /** Nothing is deleted that was used within so many seconds; 0 does not ask. */
  readonly refuseIfUsedWithinSeconds?: number;
}

/** What is known of a credential beside its record. */
export interface CredentialFacts {
  /** Who resolved it, newest first. */
  readonly uses?: readonly CredentialUse[];
  /** Until when the secret before this one is kept; null where none is. */
  readonly previousKeptUntil?: Date | null;
}

/** Most users of a credential that are told. */
const USES = 20;

/** How often an update is tried in all, where another write comes first each time; its deadline usually ends it before. */
const UPDATE_ATTEMPTS = 200;

/** Longest pause before an update starts over, ms; cut at random, so that those who race do not meet again. */
const UPDATE_PAUSE_MS = 20;

/** The entity tag of a credential: changes with every write by a caller, and with nothing else. */
export const etagOf = (record: Pick<CredentialRecord, "revision">): string => `r${record.revision}`;

/** Who wrote, as a credential tells it. */
export const author = (caller: Caller): string => (caller.kind === "user" ? caller.id : caller.kind === "operator" ? "system" : "service-account");

/** Seals and stores a credential for the user's organization. Throws INVALID_CREDENTIALS and the two limits. */
export async function createCredential(deps: ManageDeps, grant: Grant<"create_credential">, input: CreateInput): Promise<CredentialRecord> {
  const { caller, call } = grant;
  const { provider, credentialType, name } = input;
  const accepted = await accept(provider, credentialType, input.credentials, { now: deps.now(), fairness: caller.organizationId, signal: call.signal });
  const id = randomUUID();
  const { organizationId } = caller;
  const place = { organizationId, credentialId: id, provider, credentialType, secretVersion: 1n };
  const sealed = await withIncident(deps.log, call, place, () => deps.envelope.seal(place, accepted.document));
  return deps.store.credentials.create(
    {
      organizationId,
      id,
      provider,
      credentialType,
      userId: caller.id,
      name,
      accountEmail: accepted.accountEmail,
      tokenExpiresAt: accepted.tokenExpiresAt,
      modifiedBy: author(caller),
      sealed,
      renewal: renewalOf(provider, credentialType, accepted, false),
    },
    deps.limits,
    auditEvent(call, grant.action, { credentialId: id }),
    call.signal,
  );
}

/** Active credentials, newest first: a user's own, or the whole organization's for a service account. */
export async function listCredentials(deps: ManageDeps, grant: Grant<"list_credentials">, filter: ListFilter): Promise<CredentialRecord[]> {
  const { caller, call } = grant;
  const records = await deps.store.credentials.list(caller.organizationId, { userId: caller.kind === "user" ? caller.id : null, provider: filter.provider }, call.signal);
  return records.filter((record) => inScope(call.scope, record));
}

/** A credential that the caller may touch. Throws CREDENTIAL_NOT_FOUND and NOT_GRANTED. */
export async function ownCredential({ store }: { readonly store: Pick<Store, "credentials"> }, { organizationId, call }: { organizationId: string; call: Call }, credentialId: string): Promise<CredentialRecord> {
  return granted(call, await store.credentials.get(organizationId, credentialId, call.signal));
}

function granted(call: Call, record: CredentialRecord | undefined): CredentialRecord {
  if (!record) throw fail("CREDENTIAL_NOT_FOUND");
  if (!inScope(call.scope, record)) throw fail("NOT_GRANTED");
  return record;
}

/** One credential of the organization, without its secret. Throws CREDENTIAL_NOT_FOUND and NOT_GRANTED. */
export async function getCredential({ store, now }: ManageDeps, { caller, call }: Grant<"get_credential">, credentialId: string): Promise<CredentialRecord & CredentialFacts> {
  await store.usage.flush(credentialId);
  const described = await store.credentials.describe(caller.organizationId, credentialId);
  const record = granted(call, described?.record);
  const facts = { uses: described?.uses ?? [], previousKeptUntil: described?.previousKeptUntil ?? null };
  const expired = !record.renewable && record.status !== "reauth_required" && record.tokenExpiresAt !== null && record.tokenExpiresAt <= now();
  return { ...record, ...facts, ...(expired ? { status: "reauth_required", statusReason: "access_token_expired", statusSince: record.tokenExpiresAt ?? record.statusSince } : {}) };
}

/**
 * Replaces a secret as a whole. Without an etag the last writer wins; with one, ETAG_MISMATCH where the credential has
 * changed since. Throws CREDENTIAL_NOT_FOUND, INVALID_CREDENTIALS, and OVERLOADED where other writes always come first.
 */
export async function updateCredential(deps: ManageDeps, grant: Grant<"update_credential">, input: UpdateInput): Promise<CredentialRecord> {
  const { caller, call } = grant;
  const { organizationId } = caller;
  const { credentialId, credentialType, name } = input;
  let accepted: Accepted | undefined;
  for (let attempt = 0; attempt < UPDATE_ATTEMPTS; attempt++) {
    const current = await ownCredential(deps, { organizationId, call }, credentialId);
    if (input.etag !== null && input.etag !== etagOf(current)) throw fail("ETAG_MISMATCH");
    const { provider } = current;
    // Once: a credential never changes its provider, and checking a key may take long.
    accepted ??= await accept(provider, credentialType, input.credentials, { now: deps.now(), fairness: organizationId, signal: call.signal });
    const { document, accountEmail, tokenExpiresAt } = accepted;
    const secretVersion = current.secretVersion + 1n;
    const place = { organizationId, credentialId, provider, credentialType, secretVersion };
    const sealed = await withIncident(deps.log, call, place, () => deps.envelope.seal(place, document));
    const written = await deps.store.credentials.replace(
      {
        organizationId,
        id: credentialId,
        expectedRevision: current.revision,
        credentialType,
        name,
        accountEmail,
        tokenExpiresAt,
        status: "active",
        modifiedBy: author(caller),
        secretVersion,
        sealed,
        renewal: renewalOf(provider, credentialType, accepted, false),
        keepPreviousSeconds: input.keepPreviousSeconds ?? 0,
      },
      auditEvent(call, grant.action, { credentialId }),
      call.signal,
    );
    if (written === undefined) throw fail("CREDENTIAL_NOT_FOUND");
    if (written !== "stale") return written;
    await sleep(Math.random() * UPDATE_PAUSE_MS);
  }
  throw fail("OVERLOADED");
}

/** The error of a credential that was resolved within so many seconds, with who did. */
async function inUse({ store }: ManageDeps, { caller, call }: Grant<"delete_credential">, credentialId: string, seconds: number): Promise<Error> {
  const uses = await store.usage.lately(caller.organizationId, credentialId, seconds, USES, call.signal);
  const sentence = ({ serviceAccountId, flowId, lastUsedAt }: (typeof uses)[number]) => `service account ${serviceAccountId}${flowId === "" ? "" : `, flow ${flowId}`}, last at ${lastUsedAt.toISOString()}`;
  return fail("CREDENTIAL_IN_USE", { violations: uses.map((use) => ({ in: "body", path: ["used_by"], type: "in_use", message: sentence(use) })) });
}

/**
 * Soft-deletes a credential. Throws CREDENTIAL_NOT_FOUND, NOT_GRANTED, CREDENTIAL_IN_USE where that is asked for and, where
 * an etag is given and stale, ETAG_MISMATCH.
 */
export async function deleteCredential(deps: ManageDeps, grant: Grant<"delete_credential">, input: DeleteInput): Promise<void> {
  const { caller, call } = grant;
  const { organizationId } = caller;
  const { credentialId: id, etag } = input;
  const refuseIfUsedWithinSeconds = input.refuseIfUsedWithinSeconds ?? 0;
  let expectedRevision: number | null = null;
  if (etag !== null || call.scope) {
    const current = await ownCredential(deps, { organizationId, call }, id);
    if (etag !== null && etag !== etagOf(current)) throw fail("ETAG_MISMATCH");
    if (etag !== null) expectedRevision = current.revision;
  }
  const where = { organizationId, id, expectedRevision, modifiedBy: author(caller), refuseIfUsedWithinSeconds };
  const outcome = await deps.store.credentials.remove(where, auditEvent(call, grant.action, { credentialId: id }), call.signal).catch(async (error: unknown) => {
    throw error instanceof CredentialError && error.reason === "CREDENTIAL_IN_USE" ? await inUse(deps, grant, id, refuseIfUsedWithinSeconds) : error;
  });
  if (outcome === undefined) throw fail("CREDENTIAL_NOT_FOUND");
  if (outcome === "stale") throw fail("ETAG_MISMATCH");
}

/** The integrations of this installation; the same for every caller. */
export function listIntegrations(_grant: Grant<"list_integrations">): readonly CatalogEntry[] {
  return catalog();
}
