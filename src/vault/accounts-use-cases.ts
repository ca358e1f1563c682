import type { Caller } from "../domain/access.ts";
import * as accounts from "./service-accounts.ts";

type Deps = accounts.ServiceAccountDeps;
/** A use case without what it stands on. */
type Bound<F> = F extends (deps: Deps, grant: infer G, input: infer I) => infer R ? (grant: G, input: I) => R : never;

/** What operators and organization administrators do with service accounts, each behind the grant of its own action. */
export interface AccountUseCases {
  readonly create: Bound<typeof accounts.createServiceAccount>;
  readonly list: Bound<typeof accounts.listServiceAccounts>;
  readonly get: Bound<typeof accounts.getServiceAccount>;
  readonly update: Bound<typeof accounts.updateServiceAccount>;
  readonly remove: Bound<typeof accounts.deleteServiceAccount>;
  readonly setAccess: Bound<typeof accounts.setServiceAccountAccess>;
  readonly createKey: Bound<typeof accounts.createServiceAccountKey>;
  readonly listKeys: Bound<typeof accounts.listServiceAccountKeys>;
  readonly updateKey: Bound<typeof accounts.updateServiceAccountKey>;
  readonly revokeKey: Bound<typeof accounts.revokeServiceAccountKey>;
  /** The organization that a call is about. */
  organizationOf(grant: { readonly caller: Caller }, requested: string | null): string;
}

/** The use cases, bound to what they stand on. */
export function bindAccounts(deps: Deps): AccountUseCases {
  return {
    create: (grant, input) => accounts.createServiceAccount(deps, grant, input),
    list: (grant, input) => accounts.listServiceAccounts(deps, grant, input),
    get: (grant, input) => accounts.getServiceAccount(deps, grant, input),
    update: (grant, input) => accounts.updateServiceAccount(deps, grant, input),
    remove: (grant, input) => accounts.deleteServiceAccount(deps, grant, input),
    setAccess: (grant, input) => accounts.setServiceAccountAccess(deps, grant, input),
    createKey: (grant, input) => accounts.createServiceAccountKey(deps, grant, input),
    listKeys: (grant, input) => accounts.listServiceAccountKeys(deps, grant, input),
    updateKey: (grant, input) => accounts.updateServiceAccountKey(deps, grant, input),
    revokeKey: (grant, input) => accounts.revokeServiceAccountKey(deps, grant, input),
    organizationOf: accounts.organizationOf,
  };
}
