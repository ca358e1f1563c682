import { randomBytes, randomUUID } from "node:crypto";
import type { Action, AuditEvent } from "../../src/domain/access.ts";
import { createLog } from "../../src/log.ts";
import { openStore, type StoreOptions } from "../../src/store/open.ts";
import type { NewCredential, Store } from "../../src/store/store.ts";

/** The limits as they are by default. */
export const LIMITS = { perProvider: 50, perUser: 100 } as const;

/** The signal of a call that nobody cancels. */
export const NEVER: AbortSignal = new AbortController().signal;

/** A store that closes with its block. */
export async function openTestStore(url: string, options: Partial<StoreOptions> = {}): Promise<Store & AsyncDisposable> {
  const store = await openStore({ url, prepared: true, poolSize: 10, statementTimeoutMs: 10_000, resolveQueue: 4096, resolveBatch: 256, log: createLog("error"), ...options });
  return Object.assign(store, { [Symbol.asyncDispose]: () => store.close() });
}

/** An event of an action that was allowed. */
export function allowed(organizationId: string, credentialId: string | null, action: Action = "create_credential"): AuditEvent {
  return {
    organizationId,
    requestId: "01JD8Z3NDEKTSV4RRFFQ69G5FA",
    actorKind: "user",
    actorId: randomUUID(),
    action,
    outcome: "allowed",
    reason: null,
    credentialId,
    flowId: null,
    runId: null,
  };
}

/** Bytes in the form of a sealed value. */
export const sealedBytes = (content: Buffer = randomBytes(60)): Buffer => Buffer.concat([Buffer.from([0xc5]), content]);

/** A credential to create. */
export function newCredential(organizationId: string, overrides: Partial<NewCredential> = {}): NewCredential {
  const userId = overrides.userId ?? randomUUID();
  return {
    organizationId,
    id: randomUUID(),
    provider: "sftp",
    credentialType: "user_password",
    userId,
    name: "name",
    accountEmail: null,
    tokenExpiresAt: null,
    modifiedBy: userId,
    sealed: sealedBytes(),
    ...overrides,
  };
}

/** Creates one and gives it back as it was asked for. */
export async function create(store: Store, organizationId: string, overrides: Partial<NewCredential> = {}): Promise<NewCredential> {
  const row = newCredential(organizationId, overrides);
  await store.credentials.create(row, LIMITS, allowed(organizationId, row.id), NEVER);
  return row;
}

/** Resolves one as a service account would. */
export const resolve = (store: Store, organizationId: string, id: string) => store.credentials.resolve(organizationId, id, allowed(organizationId, id, "resolve_credential"));

/** The reason of a rejection; the value where there is none. */
export async function reasonOf(work: Promise<unknown>): Promise<unknown> {
  try {
    return await work;
  } catch (error) {
    return (error as { reason?: unknown }).reason ?? error;
  }
}

/** Everything that could be printed of an error: message, stack, fields and causes, to the end of the chain. */
export function everythingOf(error: unknown): string {
  const parts: string[] = [];
  for (let at = error; at instanceof Error; at = at.cause) parts.push(at.message, at.stack ?? "", JSON.stringify(Object.getOwnPropertyNames(at).map((name) => String((at as unknown as Record<string, unknown>)[name]))));
  return parts.join("\n");
}
