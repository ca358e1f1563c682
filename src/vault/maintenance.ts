import type { CredentialRecord, ProviderName } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";
import { errorFields, identified, type Log } from "../log.ts";
import type { CredentialLimits, CredentialUse, Purged, Store } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";

/** What the operators' use cases below need. */
export interface MaintenanceDeps {
  readonly store: Pick<Store, "audit" | "maintenance" | "trail" | "usage">;
  readonly limits: CredentialLimits;
  /** How long the secret of a deleted credential is kept, days. */
  readonly purgeAfterDays: number;
  readonly log: Log;
  readonly now: () => Date;
}

/** One credential, as an operator names it. */
export interface CredentialPlace {
  readonly organizationId: string;
  readonly credentialId: string;
}

const DAY_MS = 86_400_000;

/** How long it is remembered who used a credential, days. */
const USES_KEPT_DAYS = 400;

/** Users of a credential that an operator is told. */
const USES = 1_000;

/** Brings a deleted credential back. Throws CREDENTIAL_NOT_FOUND, CREDENTIAL_PURGED, LIMIT_PER_PROVIDER_REACHED and LIMIT_PER_USER_REACHED. */
export async function restoreCredential({ store, limits }: MaintenanceDeps, { call, action }: Grant<"restore_credential">, { organizationId, credentialId }: CredentialPlace): Promise<CredentialRecord> {
  const restored = await store.maintenance.restore(organizationId, credentialId, limits, auditEvent(call, action, { organizationId, credentialId }));
  if (restored === undefined) throw fail("CREDENTIAL_NOT_FOUND");
  if (restored === "purged") throw fail("CREDENTIAL_PURGED");
  return restored;
}

/** Sets the limit of a provider in an organization; null lifts it. */
export function setCredentialLimit({ store }: MaintenanceDeps, { call, action }: Grant<"set_credential_limit">, input: { readonly organizationId: string; readonly provider: ProviderName; readonly limit: number | null }): Promise<void> {
  const { organizationId, provider, limit } = input;
  return store.maintenance.setLimit(organizationId, provider, limit, auditEvent(call, action, { organizationId }));
}

/** Removes secrets that nothing needs any more; null for the installation's own time. It is recorded before anything is removed. */
export async function purgeDeleted(deps: MaintenanceDeps, { call, action }: Grant<"purge_deleted">, olderThanDays: number | null): Promise<Purged> {
  await deps.store.audit.append([auditEvent(call, action)]);
  return deps.store.maintenance.purge(before(deps, olderThanDays ?? deps.purgeAfterDays));
}

/** Who resolved a credential, newest first. */
export function listCredentialUses({ store }: MaintenanceDeps, { call }: Grant<"list_credential_uses">, { organizationId, credentialId }: CredentialPlace): Promise<CredentialUse[]> {
  return store.usage.of(organizationId, credentialId, USES, call.signal);
}

const before = ({ now }: Pick<MaintenanceDeps, "now">, days: number): Date => new Date(now().getTime() - days * DAY_MS);

/** Organizations that are cleared of what has ended together. */
const ORGANIZATIONS_AT_ONCE = 500;

/** What clearing away needs besides. */
export interface ClearAwayDeps {
  readonly store: Pick<Store, "maintenance" | "outbox" | "trail">;
  /** How long events are kept, days, and whether one that was not delivered yet stays longer. */
  readonly events: { readonly keptDays: number; readonly deliveredOnly: boolean };
}

/** Clears away what has had its time: purged secrets, ended idempotency keys, abandoned authorizations, old uses, old events. Any number of replicas may do so at once. */
export async function clearAway(deps: Omit<MaintenanceDeps, "limits" | "store"> & ClearAwayDeps): Promise<void> {
  const { store, log, events } = deps;
  const { credentials, previousSecrets } = await store.maintenance.purge(before(deps, deps.purgeAfterDays));
  if (credentials + previousSecrets > 0) log.info({ count: credentials + previousSecrets }, "secrets that nothing needs any more were removed");
  for (let after: string | null = null; ; ) {
    const organizations: string[] = await store.trail.organizations(after, ORGANIZATIONS_AT_ONCE);
    if (organizations.length === 0) return;
    await store.maintenance.forget(organizations, before(deps, USES_KEPT_DAYS));
    await store.outbox.prune(organizations, before(deps, events.keptDays), events.deliveredOnly);
    after = organizations.at(-1) ?? null;
  }
}

/** Does a piece of work again and again until it is disposed of, each time under an id of its own. A failure is logged under its name, and tried again the next time. */
export function repeatedly(log: Log, name: string, intervalMs: number, work: (log: Log) => Promise<unknown>): AsyncDisposable {
  let running: Promise<void> | undefined;
  const timer = setInterval(() => {
    if (running !== undefined) return;
    const own = identified(log);
    running = work(own)
      .then(
        () => {},
        (error: unknown) => own.warn({ ...errorFields(error) }, name),
      )
      .finally(() => (running = undefined));
  }, intervalMs).unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await running;
    },
  };
}
