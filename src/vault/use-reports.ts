import type { Store } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";

/** Uses of one secret that an executor kept. */
export interface UseReport {
  readonly credentialId: string;
  readonly uses: number;
  readonly flowId: string | null;
  readonly runId: string | null;
}

/**
 * Records uses that an executor reports, each with its number, in one transaction. What it says of a credential that its
 * account is not known to have resolved is not recorded; gives the places of those in the list.
 */
export function reportCredentialUses({ store }: { readonly store: Pick<Store, "useReports"> }, grant: Grant<"report_credential_uses">, reports: readonly UseReport[]): Promise<number[]> {
  const { caller, call, action } = grant;
  const events = reports.map(({ credentialId, uses, flowId, runId }) => ({ ...auditEvent({ ...call, flowId, runId }, action, { credentialId, calls: uses }) }));
  return store.useReports.record(caller.organizationId, caller.id, events);
}
