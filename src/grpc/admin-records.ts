import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/admin_service.ts";
import { type ChainRecord, chainFaultSentence } from "../domain/audit-chain.ts";
import type { UseCases } from "../vault/use-cases.ts";
import { toCredential } from "./convert.ts";
import * as parse from "./parse.ts";
import { unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";

const service = api.AdminServiceService;

/** The RPCs of `AdminService` about records, deleted credentials and limits. */
export type Records = "listAuditEvents" | "listSignedAuditHeads" | "verifyAudit" | "restoreCredential" | "purgeDeleted" | "setCredentialLimit" | "listCredentialUses";

const toEvent = ({ link, occurredAtMs, reason, credentialId, flowId, runId, subjectId, keyId, calls, ...record }: ChainRecord): api.AuditEvent => ({
  link: BigInt(link),
  position: record.position,
  occurredAt: new Date(occurredAtMs),
  requestId: record.requestId,
  actorKind: record.actorKind,
  actorId: record.actorId,
  action: record.action,
  outcome: record.outcome,
  reason: reason ?? undefined,
  credentialId: credentialId ?? undefined,
  flowId: flowId ?? undefined,
  runId: runId ?? undefined,
  subjectId: subjectId ?? undefined,
  keyId: keyId ?? undefined,
  calls: calls ?? undefined,
  hash: record.hash,
});

const PLACE = /^(\d{1,15})\.(\d{1,9})$/;
const toToken = (place: { link: number; position: number } | null): string => (place ? Buffer.from(`${place.link}.${place.position}`).toString("base64url") : "");

/** Where a page before ended; null for the first page. */
const pageToken = z.string().transform((token, ctx) => {
  if (token === "") return null;
  const match = PLACE.exec(Buffer.from(token, "base64url").toString("latin1"));
  if (match) return { link: Number(match[1]), position: Number(match[2]) };
  ctx.addIssue({ code: "custom", message: "Input should be a next_page_token", params: { type: "value_error", in: "body" } });
  return z.NEVER;
});

/** A link of a chain. */
const link = z.bigint().transform((value, ctx): number => {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  ctx.addIssue({ code: "custom", message: "Input should be a link", params: { type: "value_error", in: "body" } });
  return z.NEVER;
});

const given = <T>(value: T | undefined): T | null => value ?? null;
/** Text that a record can hold. */
const word = z.string().max(1_024).refine((text) => !text.includes("\0"), "Input should have no NUL").optional().transform(given);
/** A time that PostgreSQL knows as well as JavaScript does. */
const time = z.custom<Date>((date) => date instanceof Date && date.getTime() >= 0 && date.getUTCFullYear() <= 9_999, "Input should be a time since 1970").optional().transform(given);
const filters = { from: time, until: time, action: word, outcome: word, actorId: word, credentialId: parse.optionalBodyUuid, flowId: word, runId: word, requestId: word };
const trail = { organizationId: parse.optionalBodyUuid };
const credential = { organizationId: parse.bodyUuid, credentialId: parse.credentialId };

const DAYS_MAX = 36_500;
const LIMIT_MAX = 1_000_000;
const days = z.number().max(DAYS_MAX, `Input should be at most ${DAYS_MAX}`).optional().transform(given);
const limit = z.number().min(1, "Input should be at least 1").max(LIMIT_MAX, `Input should be at most ${LIMIT_MAX}`).optional().transform(given);

/** The RPCs of `AdminService` about records, deleted credentials and limits. */
export function records(deps: UnaryDeps, { records: vault }: UseCases): Record<Records, UnaryRpc> {
  return {
    listAuditEvents: unary(deps, {
      action: "list_audit_events",
      method: service.listAuditEvents,
      request: api.ListAuditEventsRequest,
      input: z.object({ ...trail, ...filters, pageSize: parse.pageLimit, pageToken, oldestFirst: z.boolean() }),
      async run(grant, { organizationId, pageSize, pageToken: beyond, oldestFirst, ...filter }) {
        const order = oldestFirst ? "oldest first" : "newest first";
        const { events, next } = await vault.listAuditEvents(grant, { organizationId, filter, order, beyond, most: pageSize });
        return { events: events.map(toEvent), nextPageToken: toToken(next) };
      },
    }),
    listSignedAuditHeads: unary(deps, {
      action: "list_signed_audit_heads",
      method: service.listSignedAuditHeads,
      request: api.ListSignedAuditHeadsRequest,
      input: z.object({ ...trail, afterLink: link }),
      async run(grant, input) {
        const { heads, publicKey } = await vault.listSignedAuditHeads(grant, input);
        const shown = heads.map((head) => ({ link: BigInt(head.link), hash: head.hash, keyId: head.keyId, signedAt: new Date(head.signedAtMs), signature: head.signature }));
        return { heads: shown, publicKey: publicKey.export({ format: "pem", type: "spki" }).toString() };
      },
    }),
    verifyAudit: unary(deps, {
      action: "verify_audit",
      method: service.verifyAudit,
      request: api.VerifyAuditRequest,
      input: z.object({ ...trail, afterLink: link }),
      async run(grant, input) {
        const { fault, place, records: checked, signedHeads, complete } = await vault.verifyAudit(grant, input);
        return {
          fault: fault && { link: BigInt(fault.link), position: fault.position, kind: fault.kind, message: chainFaultSentence(fault) },
          link: BigInt(place.link),
          hash: place.link === 0 ? "" : place.hash,
          records: BigInt(checked),
          signedHeads: BigInt(signedHeads),
          complete,
        };
      },
    }),
    restoreCredential: unary(deps, {
      action: "restore_credential",
      method: service.restoreCredential,
      request: api.RestoreCredentialRequest,
      input: z.object(credential),
      credentialId: (request) => request.credentialId,
      run: async (grant, input) => ({ credential: toCredential(await vault.restoreCredential(grant, input)) }),
    }),
    purgeDeleted: unary(deps, {
      action: "purge_deleted",
      method: service.purgeDeleted,
      request: api.PurgeDeletedRequest,
      input: z.object({ olderThanDays: days }),
      async run(grant, { olderThanDays }) {
        const { credentials, previousSecrets } = await vault.purgeDeleted(grant, olderThanDays);
        return { credentials: BigInt(credentials), previousSecrets: BigInt(previousSecrets) };
      },
    }),
    setCredentialLimit: unary(deps, {
      action: "set_credential_limit",
      method: service.setCredentialLimit,
      request: api.SetCredentialLimitRequest,
      input: z.object({ organizationId: parse.bodyUuid, provider: parse.provider, limit }),
      async run(grant, input) {
        await vault.setCredentialLimit(grant, input);
        return {};
      },
    }),
    listCredentialUses: unary(deps, {
      action: "list_credential_uses",
      method: service.listCredentialUses,
      request: api.ListCredentialUsesRequest,
      input: z.object(credential),
      credentialId: (request) => request.credentialId,
      run: async (grant, input) => ({ uses: (await vault.listCredentialUses(grant, input)).map((use) => ({ ...use, lastRunId: use.lastRunId ?? undefined, uses: BigInt(use.uses) })) }),
    }),
  };
}
