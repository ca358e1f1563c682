import type { AuditEvent, SignedAuditHead } from "../client/admin.ts";

/** A record as JSON. */
export const recordFacts = (event: AuditEvent): Record<string, unknown> => ({
  link: Number(event.link), position: event.position, occurred_at: event.occurredAt?.toISOString() ?? null, request_id: event.requestId, actor_kind: event.actorKind, actor_id: event.actorId,
  action: event.action, outcome: event.outcome, reason: event.reason ?? null, credential_id: event.credentialId ?? null, flow_id: event.flowId ?? null, run_id: event.runId ?? null,
  subject_id: event.subjectId ?? null, key_id: event.keyId ?? null, calls: event.calls ?? null, hash: event.hash,
});

/** A signed head as JSON. */
export const headFacts = ({ link, hash, keyId, signedAt, signature }: SignedAuditHead): Record<string, unknown> => ({
  link: Number(link), hash, key_id: keyId, signed_at: signedAt?.toISOString() ?? null, signature: signature.toString("base64"),
});
