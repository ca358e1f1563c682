import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/credential_service.ts";
import { MAX_POSITION, readPosition, type WatchedEvent, type WatchMessage, type WatchPosition } from "../domain/watch.ts";
import type { UseCases } from "../vault/use-cases.ts";
import { credentialStatuses, credentialTypes, providers, table } from "./convert.ts";
import * as parse from "./parse.ts";
import { serverStream, type StreamRpc } from "./stream.ts";
import { unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";

const service = api.CredentialServiceService;

const kinds = table(["created", "updated", "rotated", "deleted", "restored", "status_changed"], "CREDENTIAL_EVENT_KIND_", api.CredentialEventKind);

const issue = (message: string, type = "value_error") => ({ code: "custom" as const, message, params: { type, in: "body" } });

/** Where a watch goes on; undefined where it begins now. */
const position = z.string().transform((text, ctx): WatchPosition | undefined => {
  const read = text.length <= MAX_POSITION ? readPosition(text) : undefined;
  if (text !== "" && read === undefined) ctx.addIssue(issue("Input should be a position"));
  return read;
});

const USES_MAX = 1_000_000n;
const REPORTS_MAX = 256;

const uses = z.bigint().transform((value, ctx): number => {
  if (value < 1n || value > USES_MAX) ctx.addIssue(issue(`Input should be 1 to ${USES_MAX}`));
  return Number(value);
});

/** A flow or a run, by the rule of the metadata that name them elsewhere. */
const name = z.string().optional().transform((text, ctx): string | null => {
  if (text !== undefined && !/^[\x20-\x7e]{1,128}$/.test(text)) ctx.addIssue(issue("String should be 1 to 128 printable ASCII characters"));
  return text ?? null;
});

const reports = z.array(z.object({ credentialId: parse.bodyUuid, uses, flowId: name, runId: name })).transform((list, ctx) => {
  if (list.length < 1 || list.length > REPORTS_MAX) ctx.addIssue(issue(`List should have 1 to ${REPORTS_MAX} items`, list.length === 0 ? "too_short" : "too_long"));
  return list;
});

const toEvent = (event: WatchedEvent, etagOf: UseCases["etagOf"]): api.CredentialEvent => ({
  revision: event.revision,
  kind: kinds.number(event.kind),
  credentialId: event.credentialId,
  provider: providers.number(event.provider),
  credentialType: credentialTypes.number(event.credentialType),
  secretVersion: event.secretVersion,
  etag: event.credentialRevision === null ? "" : etagOf({ revision: event.credentialRevision }),
  status: credentialStatuses.number(event.status),
  statusReason: event.statusReason ?? undefined,
  occurredAt: event.occurredAt,
});

function toMessage(told: WatchMessage, etagOf: UseCases["etagOf"]): api.WatchCredentialsResponse["message"] {
  if (told.kind === "event") return { $case: "event", value: toEvent(told.event, etagOf) };
  return told.kind === "bookmark" ? { $case: "bookmark", value: { revision: told.revision, asOf: told.asOf } } : { $case: "accessChanged", value: {} };
}

/** The RPCs for executors that keep secrets for a while. */
export function watching(deps: UnaryDeps, vault: UseCases): { readonly watchCredentials: StreamRpc; readonly reportCredentialUses: UnaryRpc } {
  return {
    watchCredentials: serverStream(deps, {
      action: "watch_credentials",
      method: service.watchCredentials,
      request: api.WatchCredentialsRequest,
      input: z.object({ position }),
      run: ({ grant, ...proof }, { position: from }, out) =>
        vault.watchCredentials(grant, { from, ...proof }, {
          send: (told) => out.send({ position: told.position, message: toMessage(told, vault.etagOf) }),
          get queued() {
            return out.queued;
          },
          end: (error) => out.end(error),
        }),
    }),
    reportCredentialUses: unary(deps, {
      action: "report_credential_uses",
      method: service.reportCredentialUses,
      request: api.ReportCredentialUsesRequest,
      input: z.object({ reports }),
      run: async (grant, input) => ({ notResolved: await vault.reportCredentialUses(grant, input.reports) }),
    }),
  };
}
