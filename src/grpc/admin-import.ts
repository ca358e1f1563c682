import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/admin_service.ts";
import type { UseCases } from "../vault/use-cases.ts";
import * as parse from "./parse.ts";
import { unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";

const service = api.AdminServiceService;

/** The RPC that takes over secrets from another system. */
export function imports(deps: UnaryDeps, { keys }: UseCases): Record<"importCredential", UnaryRpc> {
  return {
    importCredential: unary(deps, {
      action: "import_credential",
      method: service.importCredential,
      request: api.ImportCredentialRequest,
      input: z.object({
        organizationId: parse.bodyUuid,
        userId: parse.bodyUuid,
        provider: parse.provider,
        credentialType: parse.credentialType,
        credentials: parse.credentials,
        name: parse.optionalName,
        source: parse.requiredName,
        sealedAt: parse.requiredTime,
        keyCheckValues: parse.checkValues,
      }),
      run: (grant, input) => keys.importCredential(grant, input),
    }),
  };
}
