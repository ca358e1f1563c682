import { type Action, ACTIONS, type AuditEvent, type Call, type Caller, type CallerKind, type CallerOf, roleFor } from "../domain/access.ts";
import { NIL_UUID } from "../domain/credential.ts";
import { CredentialError, fail, type Reason } from "../domain/errors.ts";
import type { AuditStore } from "../store/store.ts";

/** The organization under which the trail of operators is kept. */
export const OPERATOR_TRAIL = NIL_UUID;

const ADMITTED = Symbol("admitted");

/** Proof that a caller may do one thing. Made only by `admit`; a use case takes the grant of its own action and no other. */
export class Grant<A extends Action> {
  readonly action: A;
  readonly caller: CallerOf<A>;
  readonly call: Call;

  constructor(proof: typeof ADMITTED, call: Call, action: A) {
    if (proof !== ADMITTED) throw new TypeError("a grant is made by admit");
    this.action = action;
    this.caller = call.caller as CallerOf<A>;
    this.call = call;
  }
}

/** Lets a caller pass to an action, or throws the reason for which its kind may not. */
export function admit<A extends Action>(call: Call, action: A): Grant<A> {
  const kinds: readonly CallerKind[] = ACTIONS[action];
  if (!kinds.includes(call.caller.kind)) throw fail(requirement(kinds));
  const role = roleFor(action);
  if (role !== undefined && call.caller.kind === "user" && call.caller.role !== role) throw fail("ORGANIZATION_ADMINISTRATOR_REQUIRED");
  return new Grant(ADMITTED, call, action);
}

function requirement(kinds: readonly CallerKind[]): Reason {
  if (kinds.length > 1) return "FORBIDDEN";
  return kinds[0] === "user" ? "USER_REQUIRED" : kinds[0] === "operator" ? "OPERATOR_REQUIRED" : "SERVICE_ACCOUNT_REQUIRED";
}

const trailOf = (caller: Caller): string => (caller.kind === "operator" ? OPERATOR_TRAIL : caller.organizationId);

/** How a call ended that was not simply allowed. */
export interface Ending {
  readonly outcome: Exclude<AuditEvent["outcome"], "allowed">;
  readonly reason: Reason;
}

/** What a record tells besides the call itself; `organizationId` differs from the caller's own only for operators. */
export interface RecordFacts {
  readonly credentialId?: string | null;
  readonly subjectId?: string | null;
  readonly calls?: number;
  readonly organizationId?: string;
  readonly ending?: Ending;
}

/** The audit record of a call. */
export function auditEvent(call: Call, action: Action, facts: RecordFacts = {}): AuditEvent {
  return {
    organizationId: facts.organizationId ?? trailOf(call.caller),
    requestId: call.requestId,
    actorKind: call.caller.kind,
    actorId: call.caller.id,
    action,
    outcome: facts.ending?.outcome ?? "allowed",
    reason: facts.ending?.reason ?? null,
    credentialId: facts.credentialId ?? null,
    flowId: call.flowId,
    runId: call.runId,
    subjectId: facts.subjectId ?? null,
    ...(facts.calls === undefined ? {} : { calls: facts.calls }),
    keyId: (call.caller.kind !== "operator" && call.caller.keyId) || null,
    idempotency: facts.ending ? null : (call.idempotency ?? null),
  };
}

/** Failures that say nothing about the caller's right; recording them as refusals would add load to a service in trouble. */
const NOT_REFUSALS: ReadonlySet<Reason> = new Set(["AUDIT_UNAVAILABLE", "DATABASE_UNAVAILABLE", "OVERLOADED", "CANCELLED", "DEADLINE_EXCEEDED", "SHUTTING_DOWN", "INTERNAL", "RATE_LIMITED", "TOKEN_NOT_RENEWED", "PROVIDER_UNAVAILABLE", "PROVIDER_REJECTS_CLIENT", "WATCH_POSITION_LOST", "WATCH_TOO_SLOW", "WATCH_LIMIT_REACHED"]);

/**
 * Records that a verified caller was refused. Resolves when the record is committed, and also when it cannot be:
 * a refusal stays a refusal while the audit is down.
 */
export async function recordRefusal(audit: AuditStore, call: Call, action: Action, error: CredentialError, credentialId: string | null): Promise<"recorded" | "not recorded"> {
  if (NOT_REFUSALS.has(error.reason)) return "not recorded";
  return record(audit, auditEvent(call, action, { credentialId, ending: { outcome: "refused", reason: error.reason } }));
}

/**
 * Records that a call came to nothing after its record said that it was allowed: `cancelled` where nobody waits for the answer
 * any more, `failed` where the service failed. A refusal is left to `recordRefusal`. Resolves whether or not it could be recorded.
 */
export async function recordUndelivered(audit: AuditStore, call: Call, action: Action, error: unknown, credentialId: string | null): Promise<"recorded" | "not recorded"> {
  const cause = call.signal.aborted ? call.signal.reason : error;
  const reason = cause instanceof CredentialError ? cause.reason : call.signal.aborted ? "CANCELLED" : "INTERNAL";
  if (!NOT_REFUSALS.has(reason)) return "not recorded";
  return record(audit, auditEvent(call, action, { credentialId, ending: { outcome: call.signal.aborted ? "cancelled" : "failed", reason } }));
}

async function record(audit: AuditStore, event: AuditEvent): Promise<"recorded" | "not recorded"> {
  try {
    await audit.append([event]);
    return "recorded";
  } catch {
    return "not recorded";
  }
}
