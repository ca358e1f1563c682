import * as maintenance from "./maintenance.ts";
import * as trail from "./trail.ts";

type Deps = maintenance.MaintenanceDeps & trail.TrailDeps;
/** A use case without what it stands on. */
type Bound<F> = F extends (deps: never, grant: infer G, input: infer I) => infer R ? (grant: G, input: I) => R : never;

/** What operators do with records, deleted credentials and limits, each behind the grant of its own action. */
export interface RecordUseCases {
  readonly listAuditEvents: Bound<typeof trail.listAuditEvents>;
  readonly listSignedAuditHeads: Bound<typeof trail.listSignedAuditHeads>;
  readonly verifyAudit: Bound<typeof trail.verifyAudit>;
  readonly restoreCredential: Bound<typeof maintenance.restoreCredential>;
  readonly purgeDeleted: Bound<typeof maintenance.purgeDeleted>;
  readonly setCredentialLimit: Bound<typeof maintenance.setCredentialLimit>;
  readonly listCredentialUses: Bound<typeof maintenance.listCredentialUses>;
}

/** The use cases, bound to what they stand on. */
export function bindRecords(deps: Deps): RecordUseCases {
  return {
    listAuditEvents: (grant, input) => trail.listAuditEvents(deps, grant, input),
    listSignedAuditHeads: (grant, input) => trail.listSignedAuditHeads(deps, grant, input),
    verifyAudit: (grant, input) => trail.verifyAudit(deps, grant, input),
    restoreCredential: (grant, input) => maintenance.restoreCredential(deps, grant, input),
    purgeDeleted: (grant, input) => maintenance.purgeDeleted(deps, grant, input),
    setCredentialLimit: (grant, input) => maintenance.setCredentialLimit(deps, grant, input),
    listCredentialUses: (grant, input) => maintenance.listCredentialUses(deps, grant, input),
  };
}
