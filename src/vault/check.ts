import type { Envelope } from "../crypto/envelope.ts";
import type { CheckOptions, CheckResult, Layer } from "../domain/check.ts";
import type { CredentialTypeName, ProviderName, SecretDocument } from "../domain/credential.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { accept, expose } from "../providers/index.ts";
import type { Store } from "../store/store.ts";
import { traced } from "../trace.ts";
import { auditEvent, type Grant, recordUndelivered } from "./gate.ts";
import { withIncident } from "./incident.ts";

/** One connection test to run outside of this process. */
export interface CheckTask {
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly document: SecretDocument;
  readonly options: CheckOptions;
}

/** The right to run one connection test, until it is disposed of. */
export interface CheckSlot extends Disposable {
  run(task: CheckTask, signal: AbortSignal): Promise<CheckResult>;
}

/** Runs connection tests, each in a process of its own. */
export interface Prober {
  /** Throws TEST_LIMIT_REACHED beyond its bounds. */
  reserve(organizationId: string, requestId: string): CheckSlot;
}

/** What connection tests need. */
export interface CheckDeps {
  readonly store: Pick<Store, "credentials" | "audit">;
  readonly envelope: Pick<Envelope, "open">;
  readonly prober: Prober;
  /** Is told of every test that came to an end: the layer where it failed, null where it did not. */
  readonly tested: (provider: ProviderName, layer: Layer | null) => void;
  readonly log: Log;
  readonly now: () => Date;
}

/** A test of a secret that is not stored. */
export interface CheckInput {
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly document: SecretDocument;
  readonly testPath: string;
}

/** A test of a stored secret. */
export interface StoredCheckInput {
  readonly credentialId: string;
  /** Providers it may be of; INVALID_CREDENTIALS for another. Null for any. */
  readonly providers: readonly ProviderName[] | null;
}

/** What a test found, and how long it took, ms. */
export interface Checked {
  readonly result: CheckResult;
  readonly durationMs: number;
}

type SecretGrant = Grant<"test_sftp_connection"> | Grant<"test_postgres_connection">;
type StoredGrant = Grant<"test_postgres_credential"> | Grant<"test_credential">;
type CheckGrant = SecretGrant | StoredGrant;

/** Folder in which a stored SFTP credential is tried. */
const STORED_TEST_PATH = ".";

/**
 * Tries a secret against the real system before it is stored; nothing is kept. The audit record is committed before the
 * first packet leaves. A system that refuses is a result, not an error. Throws INVALID_CREDENTIALS, TEST_LIMIT_REACHED and OVERLOADED.
 */
export async function checkSecret(deps: CheckDeps, grant: SecretGrant, input: CheckInput): Promise<Checked> {
  const { caller, call } = grant;
  const { provider, credentialType, testPath } = input;
  // Before the secret is looked at: opening a key is work, and there is none for a test that is refused.
  using slot = deps.prober.reserve(caller.organizationId, call.requestId);
  const context = { now: deps.now(), fairness: caller.organizationId, signal: call.signal };
  const { document } = await accept(provider, credentialType, input.document, context).catch(atTopLevel);
  await deps.store.audit.append([auditEvent(call, grant.action)]);
  return await recorded(deps, grant, null, () => probe(slot, deps, grant, { provider, credentialType, document, options: { testPath } }));
}

/**
 * Tries a stored secret against the host that is stored with it, and no other: nobody can have a secret they cannot read
 * sent somewhere else. Throws CREDENTIAL_NOT_FOUND, SECRET_UNREADABLE, TEST_LIMIT_REACHED and OVERLOADED.
 */
export async function checkStored(deps: CheckDeps, grant: StoredGrant, { credentialId, providers }: StoredCheckInput): Promise<Checked> {
  const { caller, call } = grant;
  const { organizationId } = caller;
  call.signal.throwIfAborted();
  using slot = deps.prober.reserve(organizationId, call.requestId);
  const stored = await deps.store.credentials.resolve(organizationId, credentialId, auditEvent(call, grant.action, { credentialId }));
  if (!stored) throw fail("CREDENTIAL_NOT_FOUND");
  const { provider, credentialType, secretVersion } = stored;
  if (providers !== null && !providers.includes(provider)) {
    throw fail("INVALID_CREDENTIALS", { violations: [{ in: "path", path: ["credential_id"], type: "value_error", message: `The credential is not of ${providers.join(" or ")}` }] });
  }
  return await recorded(deps, grant, credentialId, async () => {
    call.signal.throwIfAborted();
    const place = { organizationId, credentialId, provider, credentialType, secretVersion };
    const document = await withIncident(deps.log, call, place, () => deps.envelope.open(place, stored.sealed));
    return probe(slot, deps, grant, { provider, credentialType, document, options: { testPath: STORED_TEST_PATH } });
  });
}

/** Runs what was recorded as allowed, and records it where it comes to nothing. */
async function recorded<T>({ store }: CheckDeps, { action, call }: CheckGrant, credentialId: string | null, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await recordUndelivered(store.audit, call, action, error, credentialId);
    throw error;
  }
}

async function probe(slot: CheckSlot, { log, tested }: Pick<CheckDeps, "log" | "tested">, { action, caller, call }: CheckGrant, task: CheckTask): Promise<Checked> {
  const started = performance.now();
  const spent = () => Math.round(performance.now() - started);
  let reason = "not_finished";
  try {
    const result = await traced("connection test", "internal", () => slot.run(task, call.signal), ({ layer }) => ({ "flow.provider": task.provider, "flow.layer": layer ?? "none" }));
    reason = result.reason;
    tested(task.provider, result.layer);
    return { result, durationMs: spent() };
  } finally {
    // Whoever was dialled may ask the operator who it was and why, also where nobody waited for the end.
    log.info({ request_id: call.requestId, method: action, organization_id: caller.organizationId, address: targetOf(task), reason, duration_ms: spent() }, "connection test");
  }
}

/** Where a test goes, `host:port`; undefined where the provider alone says it. */
function targetOf({ provider, credentialType, document }: CheckTask): string | undefined {
  const { value } = expose(provider, credentialType, document).secret;
  return "host" in value ? `${value.host}:${value.port}` : undefined;
}

/** The fields of a test stand at the top of its request, not inside `credentials`. */
function atTopLevel(error: unknown): never {
  if (!(error instanceof CredentialError) || error.reason !== "INVALID_CREDENTIALS") throw error;
  const violations = error.violations.map((fault) => ({ ...fault, path: fault.path[0] === "credentials" ? fault.path.slice(1) : fault.path }));
  throw fail("INVALID_CREDENTIALS", { violations });
}
