import { randomUUID } from "node:crypto";
import type { Action, Caller, Scope } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import type { Secret } from "../domain/secret.ts";
import type { LabelChange, Page, ServiceAccountKeyRow, ServiceAccountRow, ServiceAccountStatus, Store } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";

/** A new API key in its three forms: whole and shown once, public beginning, stored hash. */
export interface NewApiKey {
  readonly token: Secret<string>;
  readonly prefix: string;
  readonly hash: Buffer;
}

/** What the use cases below need. */
export interface ServiceAccountDeps {
  readonly store: Pick<Store, "serviceAccounts">;
  /** Makes an API key. */
  readonly newApiKey: (organizationId: string, serviceAccountId: string) => NewApiKey;
  /** Reads a client certificate, PEM; undefined where it is none. */
  readonly readCertificate: (pem: string) => { readonly prefix: string; readonly hash: Buffer; readonly endsAt: Date } | undefined;
}

/** The organization that a request names; null where it names none. */
interface InOrganization {
  readonly organizationId: string | null;
}

/** One service account. */
export interface AccountPlace extends InOrganization {
  readonly serviceAccountId: string;
}

/** One key of a service account. */
export interface KeyPlace extends AccountPlace {
  readonly keyId: string;
}

/** A new service account. */
export interface AccountInput extends InOrganization {
  readonly name: string;
  readonly description: string | null;
}

/** What is changed; undefined stays, and an empty description becomes none. */
export interface LabelInput {
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  readonly status?: ServiceAccountStatus | undefined;
}

/** A new key; a null end is none, a null certificate asks for a key. */
export interface KeyInput extends AccountPlace {
  readonly expiresAt: Date | null;
  readonly name: string | null;
  readonly description: string | null;
  readonly certificate: string | null;
}

/**
 * The organization that a call is about: an operator's request names it, an administrator's is the caller's own. Throws
 * INVALID_REQUEST where an operator names none, and FORBIDDEN where an administrator names another, whether or not it exists.
 */
export function organizationOf({ caller }: { readonly caller: Caller }, requested: string | null): string {
  if (caller.kind !== "operator") {
    if (requested !== null && requested !== caller.organizationId) throw fail("FORBIDDEN");
    return caller.organizationId;
  }
  if (requested === null) throw fail("INVALID_REQUEST", { violations: [{ in: "body", path: ["organization_id"], type: "missing", message: "Field required" }] });
  return requested;
}

const author = (caller: Caller): string => (caller.kind === "operator" ? "operator" : caller.id);

/** The record of what is done to an account or a key. */
const eventOf = <A extends Action>({ call, action }: Grant<A>, organizationId: string, subjectId: string) => auditEvent(call, action, { organizationId, subjectId });

function found<T>(value: T | undefined, reason: "SERVICE_ACCOUNT_NOT_FOUND" | "SERVICE_ACCOUNT_KEY_NOT_FOUND"): T {
  if (value === undefined) throw fail(reason);
  return value;
}

const changeOf = (caller: Caller, { name, description, status }: LabelInput): LabelChange => ({
  name, status,
  description: description === "" ? null : description,
  modifiedBy: author(caller),
});

/** Makes a service account, which may touch every credential of its organization. */
export function createServiceAccount({ store }: ServiceAccountDeps, grant: Grant<"create_service_account">, input: AccountInput): Promise<ServiceAccountRow> {
  const organizationId = organizationOf(grant, input.organizationId);
  const id = randomUUID();
  const { name, description } = input;
  return store.serviceAccounts.create({ id, organizationId, name, description, modifiedBy: author(grant.caller) }, eventOf(grant, organizationId, id));
}

/** The service accounts of an organization, newest first. */
export function listServiceAccounts({ store }: ServiceAccountDeps, grant: Grant<"list_service_accounts">, { organizationId, ...page }: InOrganization & Page): Promise<ServiceAccountRow[]> {
  return store.serviceAccounts.list(organizationOf(grant, organizationId), page);
}

/** One service account. Throws SERVICE_ACCOUNT_NOT_FOUND. */
export async function getServiceAccount({ store }: ServiceAccountDeps, grant: Grant<"get_service_account">, place: AccountPlace): Promise<ServiceAccountRow> {
  return found(await store.serviceAccounts.get(organizationOf(grant, place.organizationId), place.serviceAccountId), "SERVICE_ACCOUNT_NOT_FOUND");
}

/** Changes name, description or status. Throws SERVICE_ACCOUNT_NOT_FOUND. */
export async function updateServiceAccount({ store }: ServiceAccountDeps, grant: Grant<"update_service_account">, input: AccountPlace & LabelInput): Promise<ServiceAccountRow> {
  const organizationId = organizationOf(grant, input.organizationId);
  const { serviceAccountId: id } = input;
  return found(await store.serviceAccounts.update(organizationId, id, changeOf(grant.caller, input), eventOf(grant, organizationId, id)), "SERVICE_ACCOUNT_NOT_FOUND");
}

/** Says what an account may touch from now on. Throws SERVICE_ACCOUNT_NOT_FOUND. */
export async function setServiceAccountAccess(
  { store }: ServiceAccountDeps,
  grant: Grant<"set_service_account_access">,
  { organizationId: requested, serviceAccountId: id, scope }: AccountPlace & { readonly scope: Scope | null },
): Promise<ServiceAccountRow> {
  const organizationId = organizationOf(grant, requested);
  return found(await store.serviceAccounts.setScope(organizationId, id, scope, author(grant.caller), eventOf(grant, organizationId, id)), "SERVICE_ACCOUNT_NOT_FOUND");
}

/** Deletes an account and revokes its keys. Throws SERVICE_ACCOUNT_NOT_FOUND. */
export async function deleteServiceAccount({ store }: ServiceAccountDeps, grant: Grant<"delete_service_account">, place: AccountPlace): Promise<void> {
  const organizationId = organizationOf(grant, place.organizationId);
  const { serviceAccountId: id } = place;
  if (!(await store.serviceAccounts.remove(organizationId, id, author(grant.caller), eventOf(grant, organizationId, id)))) throw fail("SERVICE_ACCOUNT_NOT_FOUND");
}

/**
 * Makes an API key, whose token leaves here once and is not stored, or maps a client certificate, until whichever comes
 * first of the end that was asked for and its own. Throws SERVICE_ACCOUNT_NOT_FOUND, INVALID_REQUEST and CERTIFICATE_IN_USE.
 */
export async function createServiceAccountKey(
  deps: ServiceAccountDeps,
  grant: Grant<"create_service_account_key">,
  input: KeyInput,
): Promise<{ key: ServiceAccountKeyRow; token: Secret<string> | null }> {
  const organizationId = organizationOf(grant, input.organizationId);
  const { serviceAccountId, description } = input;
  const id = randomUUID();
  const make = ({ prefix, hash }: { readonly prefix: string; readonly hash: Buffer }, expiresAt: Date | null, name: string) =>
    deps.store.serviceAccounts.createKey(
      { id, organizationId, serviceAccountId, tokenPrefix: prefix, tokenHash: hash, expiresAt, name: input.name ?? name, description, modifiedBy: author(grant.caller) },
      eventOf(grant, organizationId, id),
    );
  if (input.certificate === null) {
    const made = deps.newApiKey(organizationId, serviceAccountId);
    return { key: await make(made, input.expiresAt, "key"), token: made.token };
  }
  const certificate = deps.readCertificate(input.certificate);
  if (!certificate) throw fail("INVALID_REQUEST", { violations: [{ in: "body", path: ["certificate"], type: "value_error", message: "Input should be one certificate in PEM" }] });
  const ends = input.expiresAt !== null && input.expiresAt < certificate.endsAt ? input.expiresAt : certificate.endsAt;
  return { key: await make(certificate, ends, "certificate"), token: null };
}

/** The keys of an account that are not revoked, newest first. Throws SERVICE_ACCOUNT_NOT_FOUND. */
export async function listServiceAccountKeys({ store }: ServiceAccountDeps, grant: Grant<"list_service_account_keys">, input: AccountPlace & Page): Promise<ServiceAccountKeyRow[]> {
  const { offset, limit, serviceAccountId } = input;
  return found(await store.serviceAccounts.listKeys(organizationOf(grant, input.organizationId), serviceAccountId, { offset, limit }), "SERVICE_ACCOUNT_NOT_FOUND");
}

/** Changes a key's name or description. Throws SERVICE_ACCOUNT_KEY_NOT_FOUND. */
export async function updateServiceAccountKey({ store }: ServiceAccountDeps, grant: Grant<"update_service_account_key">, input: KeyPlace & LabelInput): Promise<ServiceAccountKeyRow> {
  const organizationId = organizationOf(grant, input.organizationId);
  const { serviceAccountId, keyId } = input;
  const changed = await store.serviceAccounts.updateKey(organizationId, serviceAccountId, keyId, changeOf(grant.caller, input), eventOf(grant, organizationId, keyId));
  return found(changed, "SERVICE_ACCOUNT_KEY_NOT_FOUND");
}

/** Revokes a key. Throws SERVICE_ACCOUNT_KEY_NOT_FOUND, also for one that was revoked before. */
export async function revokeServiceAccountKey({ store }: ServiceAccountDeps, grant: Grant<"revoke_service_account_key">, place: KeyPlace): Promise<void> {
  const organizationId = organizationOf(grant, place.organizationId);
  const { serviceAccountId, keyId } = place;
  const revoked = await store.serviceAccounts.revokeKey(organizationId, serviceAccountId, keyId, author(grant.caller), eventOf(grant, organizationId, keyId));
  if (!revoked) throw fail("SERVICE_ACCOUNT_KEY_NOT_FOUND");
}
