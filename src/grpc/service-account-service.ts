import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/service_account_service.ts";
import type { ServiceAccountKeyRow, ServiceAccountRow, UseCases } from "../vault/use-cases.ts";
import { providers, table } from "./convert.ts";
import * as parse from "./parse.ts";
import { unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";

const service = api.ServiceAccountServiceService;

const statuses = table(["active", "inactive"] as const, "SERVICE_ACCOUNT_STATUS_", api.ServiceAccountStatus);

/** A service account. */
export function toServiceAccount({ scope, status, description, lastUsedAt, ...account }: ServiceAccountRow): api.ServiceAccount {
  const access = { everything: scope === null, providers: (scope?.providers ?? []).map((word) => providers.number(word as never)), credentialIds: [...(scope?.credentialIds ?? [])] };
  return { ...account, description: description ?? undefined, status: statuses.number(status), access, lastUsedAt: lastUsedAt ?? undefined };
}

/** An API key, without the key itself. */
export function toServiceAccountKey(key: ServiceAccountKeyRow): api.ServiceAccountKey {
  const { id, serviceAccountId, organizationId, tokenPrefix, name, createdAt, updatedAt, modifiedBy } = key;
  const optional = { expiresAt: key.expiresAt ?? undefined, description: key.description ?? undefined, lastUsedAt: key.lastUsedAt ?? undefined, userId: undefined };
  return { id, serviceAccountId, organizationId, tokenPrefix, name, createdAt, updatedAt, modifiedBy, ...optional };
}

/** A key that was made, and its token where that is known. */
function toIssued(row: ServiceAccountKeyRow, token: string): api.CreateServiceAccountKeyResponse {
  const key = toServiceAccountKey(row);
  return { key, token, issued: { ...key, token: token === "" ? undefined : token } };
}

const account = { organizationId: parse.organizationId, serviceAccountId: parse.pathUuid };
const page = { offset: parse.pageOffset, limit: parse.pageLimit };
const newName = z.string().optional().transform((name, ctx) => (name === undefined ? undefined : parse.checkedName(name, ctx)));

/** What an account may touch: everything, or what the lists say, never both. */
const Access = z.object({ ...account, everything: z.boolean(), providers: parse.providerList, credentialIds: parse.uuidList }).transform(({ everything, ...rest }, ctx) => {
  const { organizationId, serviceAccountId, ...scope } = rest;
  if (everything && (scope.providers.length > 0 || scope.credentialIds.length > 0)) {
    ctx.addIssue({ code: "custom", message: "Everything goes without lists", path: ["everything"], params: { type: "value_error", in: "body" } });
  }
  return { organizationId, serviceAccountId, scope: everything ? null : scope };
});

/** The RPCs of `ServiceAccountService`; a method without one does not compile. */
export function serviceAccountService(deps: UnaryDeps, { accounts }: UseCases): Record<keyof typeof service, UnaryRpc> {
  const ownOrNamed = (grant: Parameters<typeof accounts.organizationOf>[0], input: { organizationId: string | null }) => accounts.organizationOf(grant, input.organizationId);
  return {
    createServiceAccount: unary(deps, {
      action: "create_service_account",
      method: service.createServiceAccount,
      request: api.CreateServiceAccountRequest,
      input: z.object({ organizationId: parse.organizationId, name: parse.requiredName, description: parse.optionalDescription }),
      run: async (grant, input) => ({ serviceAccount: toServiceAccount(await accounts.create(grant, { ...input, description: input.description ?? null })) }),
      repeat: { organizationId: ownOrNamed, answer: (recorded) => ({ serviceAccount: toServiceAccount(recorded.serviceAccount()) }) },
    }),
    listServiceAccounts: unary(deps, {
      action: "list_service_accounts",
      method: service.listServiceAccounts,
      request: api.ListServiceAccountsRequest,
      input: z.object({ organizationId: parse.organizationId, ...page }),
      run: async (grant, input) => ({ serviceAccounts: (await accounts.list(grant, input)).map(toServiceAccount) }),
    }),
    getServiceAccount: unary(deps, {
      action: "get_service_account",
      method: service.getServiceAccount,
      request: api.GetServiceAccountRequest,
      input: z.object(account),
      run: async (grant, input) => ({ serviceAccount: toServiceAccount(await accounts.get(grant, input)) }),
    }),
    updateServiceAccount: unary(deps, {
      action: "update_service_account",
      method: service.updateServiceAccount,
      request: api.UpdateServiceAccountRequest,
      input: z.object({ ...account, name: newName, description: parse.optionalDescription, status: parse.optionalWord(statuses) }),
      run: async (grant, input) => ({ serviceAccount: toServiceAccount(await accounts.update(grant, input)) }),
      repeat: { organizationId: ownOrNamed, answer: (recorded) => ({ serviceAccount: toServiceAccount(recorded.serviceAccount()) }) },
    }),
    deleteServiceAccount: unary(deps, {
      action: "delete_service_account",
      method: service.deleteServiceAccount,
      request: api.DeleteServiceAccountRequest,
      input: z.object(account),
      async run(grant, input) {
        await accounts.remove(grant, input);
        return {};
      },
      repeat: { organizationId: ownOrNamed, answer: () => ({}) },
    }),
    setServiceAccountAccess: unary(deps, {
      action: "set_service_account_access",
      method: service.setServiceAccountAccess,
      request: api.SetServiceAccountAccessRequest,
      input: Access,
      run: async (grant, input) => ({ serviceAccount: toServiceAccount(await accounts.setAccess(grant, input)) }),
      repeat: { organizationId: ownOrNamed, answer: (recorded) => ({ serviceAccount: toServiceAccount(recorded.serviceAccount()) }) },
    }),
    createServiceAccountKey: unary(deps, {
      action: "create_service_account_key",
      method: service.createServiceAccountKey,
      request: api.CreateServiceAccountKeyRequest,
      input: z.object({ ...account, expiresAt: parse.optionalFuture, name: parse.optionalName, description: parse.optionalDescription, certificate: z.string().optional() }),
      async run(grant, { description = null, certificate = null, ...input }) {
        const { key, token } = await accounts.createKey(grant, { ...input, description, certificate });
        return toIssued(key, token?.reveal() ?? "");
      },
      repeat: { organizationId: ownOrNamed, answer: (recorded) => toIssued(recorded.serviceAccountKey(), "") },
    }),
    listServiceAccountKeys: unary(deps, {
      action: "list_service_account_keys",
      method: service.listServiceAccountKeys,
      request: api.ListServiceAccountKeysRequest,
      input: z.object({ ...account, ...page }),
      run: async (grant, input) => ({ keys: (await accounts.listKeys(grant, input)).map(toServiceAccountKey) }),
    }),
    updateServiceAccountKey: unary(deps, {
      action: "update_service_account_key",
      method: service.updateServiceAccountKey,
      request: api.UpdateServiceAccountKeyRequest,
      input: z.object({ ...account, keyId: parse.pathUuid, name: newName, description: parse.optionalDescription }),
      run: async (grant, input) => ({ key: toServiceAccountKey(await accounts.updateKey(grant, input)) }),
      repeat: { organizationId: ownOrNamed, answer: (recorded) => ({ key: toServiceAccountKey(recorded.serviceAccountKey()) }) },
    }),
    revokeServiceAccountKey: unary(deps, {
      action: "revoke_service_account_key",
      method: service.revokeServiceAccountKey,
      request: api.RevokeServiceAccountKeyRequest,
      input: z.object({ ...account, keyId: parse.pathUuid }),
      async run(grant, input) {
        await accounts.revokeKey(grant, input);
        return {};
      },
      repeat: { organizationId: ownOrNamed, answer: () => ({}) },
    }),
  };
}
