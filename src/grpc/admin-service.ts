import * as api from "../../gen/flow/credentials/v1/admin_service.ts";
import type { UseCases } from "../vault/use-cases.ts";
import { imports } from "./admin-import.ts";
import { keyAdministration } from "./admin-keys.ts";
import { records } from "./admin-records.ts";
import type { UnaryDeps, UnaryRpc } from "./unary.ts";

const service = api.AdminServiceService;

/** The RPCs of `AdminService`; a method without one does not compile. */
export function adminService(deps: UnaryDeps, vault: UseCases): Record<keyof typeof service, UnaryRpc> {
  return { ...keyAdministration(deps, vault), ...imports(deps, vault), ...records(deps, vault) };
}
