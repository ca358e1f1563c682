import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/credential_service.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { connectionTests } from "./connection-tests.ts";
import { toCredential, toCredentialDetail, toIntegration, toResolved } from "./convert.ts";
import type { UseCases } from "../vault/use-cases.ts";
import * as parse from "./parse.ts";
import type { StreamRpc } from "./stream.ts";
import { unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";
import { watching } from "./watching.ts";

const service = api.CredentialServiceService;

/** Longest time for which a replaced secret is kept, s. */
const KEEP_MAX = 2_592_000;

/** Longest time in which a use keeps a credential from being deleted, s. */
const USED_WITHIN_MAX = 31_536_000;

/** The RPCs of `CredentialService`; a method without one does not compile. */
export function credentialService(deps: UnaryDeps, vault: UseCases): Record<keyof typeof service, UnaryRpc | StreamRpc> {
  const described = (record: CredentialRecord) => ({ credential: toCredential(record), etag: vault.etagOf(record) });
  const rolledBack = (record: CredentialRecord) => ({ ...described(record), secretVersion: record.secretVersion });
  return {
    createCredential: unary(deps, {
      action: "create_credential",
      method: service.createCredential,
      request: api.CreateCredentialRequest,
      input: z.object({ provider: parse.provider, credentialType: parse.credentialType, credentials: parse.credentials, name: parse.optionalName }),
      async run(grant, input) {
        return described(await vault.createCredential(grant, input));
      },
      repeat: { answer: (recorded) => described(recorded.credential()) },
    }),
    listCredentials: unary(deps, {
      action: "list_credentials",
      method: service.listCredentials,
      request: api.ListCredentialsRequest,
      input: z.object({ provider: parse.providerFilter }),
      run: async (grant, filter) => ({ credentials: (await vault.listCredentials(grant, filter)).map(toCredential) }),
    }),
    getCredential: unary(deps, {
      action: "get_credential",
      method: service.getCredential,
      request: api.GetCredentialRequest,
      input: z.object({ credentialId: parse.credentialId }),
      credentialId: (request) => request.credentialId,
      async run(grant, { credentialId }) {
        const record = await vault.getCredential(grant, credentialId);
        return { credential: toCredentialDetail(record, vault.etagOf(record)) };
      },
    }),
    updateCredential: unary(deps, {
      action: "update_credential",
      method: service.updateCredential,
      request: api.UpdateCredentialRequest,
      input: z.object({
        credentialId: parse.credentialId,
        credentialType: parse.credentialType,
        credentials: parse.credentials,
        name: parse.optionalName,
        etag: parse.optionalEtag,
        keepPreviousSeconds: parse.optionalSeconds(KEEP_MAX),
      }),
      credentialId: (request) => request.credentialId,
      async run(grant, input) {
        return described(await vault.updateCredential(grant, input));
      },
      repeat: { answer: (recorded) => described(recorded.credential()) },
    }),
    rollbackCredential: unary(deps, {
      action: "rollback_credential",
      method: service.rollbackCredential,
      request: api.RollbackCredentialRequest,
      input: z.object({ credentialId: parse.credentialId, etag: parse.optionalEtag, organizationId: parse.organizationId }),
      credentialId: (request) => request.credentialId,
      run: async (grant, input) => rolledBack(await vault.rollbackCredential(grant, input)),
      repeat: { answer: (recorded) => rolledBack(recorded.credential()) },
    }),
    deleteCredential: unary(deps, {
      action: "delete_credential",
      method: service.deleteCredential,
      request: api.DeleteCredentialRequest,
      input: z.object({ credentialId: parse.credentialId, etag: parse.optionalEtag, refuseIfUsedWithinSeconds: parse.optionalSeconds(USED_WITHIN_MAX) }),
      credentialId: (request) => request.credentialId,
      async run(grant, input) {
        await vault.deleteCredential(grant, input);
        return {};
      },
      repeat: { answer: () => ({}) },
    }),
    resolveCredential: unary(deps, {
      action: "resolve_credential",
      method: service.resolveCredential,
      request: api.ResolveCredentialRequest,
      input: z.object({ credentialId: parse.credentialId }),
      credentialId: (request) => request.credentialId,
      async run(grant, { credentialId }) {
        const { record, exposed, cacheSeconds } = await vault.resolveCredential(grant, credentialId);
        return toResolved(record, exposed, cacheSeconds);
      },
    }),
    ...watching(deps, vault),
    ...connectionTests(deps, vault),
    listIntegrations: unary(deps, {
      action: "list_integrations",
      method: service.listIntegrations,
      request: api.ListIntegrationsRequest,
      input: z.unknown(),
      run: (grant) => ({ integrations: vault.listIntegrations(grant).map(toIntegration) }),
    }),
  };
}
