import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/service_account_service.ts";
import { toServiceAccount, toServiceAccountKey } from "./convert.ts";
import type { UseCases } from "../vault/use-cases.ts";
import * as parse from "./parse.ts";
import { unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";

const service = api.ServiceAccountServiceService;

/** The RPCs of `ServiceAccountService`; a method without one does not compile. */
export function serviceAccountService(deps: UnaryDeps, vault: UseCases): Record<keyof typeof service, UnaryRpc> {
  return {
    createServiceAccount: unary(deps, {
      action: "create_service_account",
      method: service.createServiceAccount,
      request: api.CreateServiceAccountRequest,
      input: z.object({ organizationId: parse.bodyUuid, name: parse.requiredName }),
      run: async (grant, input) => ({ serviceAccount: toServiceAccount(await vault.createServiceAccount(grant, input)) }),
    }),
    createServiceAccountKey: unary(deps, {
      action: "create_service_account_key",
      method: service.createServiceAccountKey,
      request: api.CreateServiceAccountKeyRequest,
      input: z.object({ organizationId: parse.bodyUuid, serviceAccountId: parse.bodyUuid, expiresAt: parse.optionalFuture }),
      async run(grant, input) {
        const { key, token } = await vault.createServiceAccountKey(grant, input);
        return { key: toServiceAccountKey(key), token: token.reveal() };
      },
    }),
  };
}
