import { randomUUID } from "node:crypto";
import type { Secret } from "../domain/secret.ts";
import type { ServiceAccountKeyRow, ServiceAccountRow, Store } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";

/** A new API key in its three forms: whole and shown once, public beginning, stored hash. */
export interface NewApiKey {
  readonly token: Secret<string>;
  readonly prefix: string;
  readonly hash: Buffer;
}

/** What the use cases below need; `newApiKey` makes the key itself. */
export interface ServiceAccountDeps {
  readonly store: Pick<Store, "serviceAccounts">;
  readonly newApiKey: (organizationId: string, serviceAccountId: string) => NewApiKey;
}

/** A new service account. */
export interface AccountInput {
  readonly organizationId: string;
  readonly name: string;
}

/** A new key; a null end is none. */
export interface KeyInput {
  readonly organizationId: string;
  readonly serviceAccountId: string;
  readonly expiresAt: Date | null;
}

/** Makes a service account in an organization. */
export function createServiceAccount(deps: ServiceAccountDeps, grant: Grant<"create_service_account">, input: AccountInput): Promise<ServiceAccountRow> {
  const row = { id: randomUUID(), organizationId: input.organizationId, name: input.name };
  return deps.store.serviceAccounts.create(row, auditEvent(grant.call, grant.action, { organizationId: input.organizationId }));
}

/** Makes an API key; its token leaves here once and is not stored. Throws SERVICE_ACCOUNT_NOT_FOUND. */
export async function createServiceAccountKey(
  deps: ServiceAccountDeps,
  grant: Grant<"create_service_account_key">,
  input: KeyInput,
): Promise<{ key: ServiceAccountKeyRow; token: Secret<string> }> {
  const { organizationId, serviceAccountId, expiresAt } = input;
  const made = deps.newApiKey(organizationId, serviceAccountId);
  const key = await deps.store.serviceAccounts.createKey(
    { id: randomUUID(), organizationId, serviceAccountId, tokenPrefix: made.prefix, tokenHash: made.hash, expiresAt },
    auditEvent(grant.call, grant.action, { organizationId }),
  );
  return { key, token: made.token };
}
