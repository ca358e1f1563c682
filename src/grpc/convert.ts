import { type Credential, type CredentialDetail, CredentialStatus, CredentialType, type Integration, Provider } from "../../gen/flow/credentials/v1/resources.ts";
import type { ResolveCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { CREDENTIAL_STATUSES, CREDENTIAL_TYPES, type CredentialRecord, PROVIDERS } from "../domain/credential.ts";
import type { CatalogEntry, CredentialFacts, Exposed } from "../vault/use-cases.ts";

/** An enum in its two spellings: the documented word and the number on the wire. */
export interface EnumTable<W extends string, N extends number = number> {
  /** Number of a word. */
  number(word: W): N;
  /** Word of a number; undefined for a number that has none. */
  word(number: number): W | undefined;
}

/** Pairs words with enum values by one rule: prefix and upper case. A word without a value is an error at start. */
export function table<W extends string, N extends number>(words: readonly W[], prefix: string, values: Readonly<Record<string, N>>): EnumTable<W, N> {
  const numbers = new Map<W, N>();
  for (const word of words) {
    const value = values[prefix + word.toUpperCase()];
    if (value === undefined) throw new TypeError(`${prefix}${word.toUpperCase()} is not in the proto`);
    numbers.set(word, value);
  }
  const back = new Map<number, W>([...numbers].map(([word, number]) => [number, word]));
  return { number: (word) => numbers.get(word) as N, word: (number) => back.get(number) };
}

/** Providers. */
export const providers = table(PROVIDERS, "PROVIDER_", Provider);
/** Credential types. */
export const credentialTypes = table(CREDENTIAL_TYPES, "CREDENTIAL_TYPE_", CredentialType);
/** Credential statuses. */
export const credentialStatuses = table(CREDENTIAL_STATUSES, "CREDENTIAL_STATUS_", CredentialStatus);

/** A credential without its secret. */
export function toCredential(record: CredentialRecord): Credential {
  return {
    id: record.id,
    createdAt: record.createdAt,
    updatedAt: record.updatedAt,
    modifiedBy: record.modifiedBy,
    provider: providers.number(record.provider),
    userId: record.userId ?? undefined,
    googleEmail: record.provider === "google" ? (record.accountEmail ?? undefined) : undefined,
  };
}

/** A credential without its secret, with what only reading it by id shows. */
export function toCredentialDetail(record: CredentialRecord & CredentialFacts, etag: string): CredentialDetail {
  const { uses = [], previousKeptUntil } = record;
  return {
    ...toCredential(record),
    credentialType: credentialTypes.number(record.credentialType),
    status: credentialStatuses.number(record.status),
    statusReason: record.statusReason ?? undefined,
    statusSince: record.statusSince,
    tokenExpiresAt: record.tokenExpiresAt ?? undefined,
    name: record.name ?? undefined,
    etag,
    lastUsedAt: uses[0]?.lastUsedAt,
    usedBy: uses.map((use) => ({ ...use, lastRunId: use.lastRunId ?? undefined, uses: BigInt(use.uses) })),
    previousKeptUntil: previousKeptUntil ?? undefined,
  };
}

/** A secret on its way to an executor. */
export function toResolved(record: Pick<CredentialRecord, "id" | "provider" | "credentialType" | "secretVersion">, exposed: Exposed, cacheSeconds: number): ResolveCredentialResponse {
  return {
    credentialId: record.id,
    provider: providers.number(record.provider),
    credentialType: credentialTypes.number(record.credentialType),
    secretVersion: record.secretVersion,
    credentials: exposed.secret,
    extra: exposed.extra,
    expiresAt: exposed.expiresAt ?? undefined,
    cacheSeconds,
  };
}

/** An integration of the catalog. */
export function toIntegration(item: CatalogEntry): Integration {
  return {
    id: item.id,
    category: item.category,
    provider: providers.number(item.provider),
    name: item.name,
    displayName: item.displayName ?? undefined,
    description: item.description,
    credentialTypes: item.credentialTypes.map((type) => credentialTypes.number(type)),
    isPlugin: false,
    credentialProviders: item.credentialProviders.map(({ isOauth, name, credentialSchema }) => ({ isOauth, name, credentialSchema })),
  };
}
