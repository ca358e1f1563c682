import type { AuditSigner } from "../crypto/audit-signer.ts";
import type { Envelope } from "../crypto/envelope.ts";
import type { KeyRing } from "../crypto/ring.ts";
import type { HeadKeys } from "../domain/audit-chain.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import type { WatchFeed, WatchSink } from "../domain/watch.ts";
import type { Log } from "../log.ts";
import type { CredentialLimits, Store } from "../store/store.ts";
import { type AccountUseCases, bindAccounts } from "./accounts-use-cases.ts";
import { type CallbackInput, type Completed, completeAuthorization, type OpenCall } from "./callback.ts";
import { type CheckDeps, type Checked, checkSecret, checkStored, type CheckInput, type Prober, type StoredCheckInput } from "./check.ts";
import { type BeginInput, type BegunAuthorization, beginAuthorization, type ConnectDeps } from "./connect.ts";
import type { Grant } from "./gate.ts";
import { keyUseCases } from "./keys-administration.ts";
import type { KeyUseCases } from "./keys-use-cases.ts";
import * as manage from "./manage.ts";
import type { TokenRenewal } from "./refresh.ts";
import { bindRecords, type RecordUseCases } from "./records-use-cases.ts";
import { resolveCredential, type Resolved } from "./resolve.ts";
import { rollbackCredential, type RollbackInput } from "./rollback.ts";
import type { ServiceAccountDeps } from "./service-accounts.ts";
import { reportCredentialUses, type UseReport } from "./use-reports.ts";
import { watchCredentials, type WatchInput } from "./watch.ts";

export type { CatalogEntry } from "../providers/index.ts";
export type { Exposed } from "../providers/provider.ts";
export type { Checked, CheckInput, Prober } from "./check.ts";
export type { Completed } from "./callback.ts";
export type { CredentialFacts } from "./manage.ts";
export type { RecordedAnswer, Repeats } from "./idempotency.ts";
export type { Reception } from "./reception.ts";
export type { AuditStore, ServiceAccountKeyRow, ServiceAccountRow } from "../store/store.ts";

/** What the use cases stand on. */
export interface VaultDeps extends Omit<ConnectDeps, "store" | "envelope"> {
  readonly store: Store;
  readonly envelope: Envelope;
  readonly limits: CredentialLimits;
  readonly prober: Prober;
  readonly tested: CheckDeps["tested"];
  readonly renewal: TokenRenewal;
  readonly newApiKey: ServiceAccountDeps["newApiKey"];
  readonly readCertificate: ServiceAccountDeps["readCertificate"];
  /** What signs audit heads; undefined for nothing. */
  readonly signer: AuditSigner;
  /** Every key whose signatures of audit heads are believed. */
  readonly headKeys: HeadKeys;
  /** How long the secret of a deleted credential is kept, days. */
  readonly purgeAfterDays: number;
  readonly ring: KeyRing;
  /** Looks for work of rotations at once. */
  readonly wakeRotations: () => void;
  /** What tells those who watch. */
  readonly feed: WatchFeed;
  /** How long an executor that watches may use a secret again, s. */
  readonly clientCacheSeconds: number;
  readonly log: Log;
  readonly now: () => Date;
}

/** What the service does, each behind the grant of its own action. All of them throw `CredentialError`. */
export interface UseCases {
  createCredential(grant: Grant<"create_credential">, input: manage.CreateInput): Promise<CredentialRecord>;
  listCredentials(grant: Grant<"list_credentials">, filter: manage.ListFilter): Promise<CredentialRecord[]>;
  getCredential(grant: Grant<"get_credential">, credentialId: string): ReturnType<typeof manage.getCredential>;
  updateCredential(grant: Grant<"update_credential">, input: manage.UpdateInput): Promise<CredentialRecord>;
  rollbackCredential(grant: Grant<"rollback_credential">, input: RollbackInput): Promise<CredentialRecord>;
  deleteCredential(grant: Grant<"delete_credential">, input: manage.DeleteInput): Promise<void>;
  resolveCredential(grant: Grant<"resolve_credential">, credentialId: string): Promise<Resolved>;
  /** Gives what is to be called once the stream is gone. */
  watchCredentials(grant: Grant<"watch_credentials">, input: WatchInput, sink: WatchSink): Promise<() => void>;
  /** Gives the places of those about credentials that the account is not known to have resolved. */
  reportCredentialUses(grant: Grant<"report_credential_uses">, reports: readonly UseReport[]): Promise<number[]>;
  listIntegrations(grant: Grant<"list_integrations">): ReturnType<typeof manage.listIntegrations>;
  checkSecret(grant: Grant<"test_sftp_connection"> | Grant<"test_postgres_connection">, input: CheckInput): Promise<Checked>;
  checkStored(grant: Grant<"test_postgres_credential"> | Grant<"test_credential">, input: StoredCheckInput): Promise<Checked>;
  beginAuthorization(grant: Grant<"begin_authorization">, input: BeginInput): Promise<BegunAuthorization>;
  /** The one thing that needs no grant: the state says who began it. */
  completeAuthorization(call: OpenCall, input: CallbackInput): Promise<Completed>;
  /** Origins of pages that may hear what came of an authorization. */
  readonly openerOrigins: readonly string[];
  /** Service accounts and their keys. */
  readonly accounts: AccountUseCases;
  /** Audit trails, deleted credentials and limits. */
  readonly records: RecordUseCases;
  /** What operators do with keys. */
  readonly keys: KeyUseCases;
  /** The entity tag of a credential. */
  etagOf(record: Pick<CredentialRecord, "revision">): string;
}

/** The use cases, bound to what they stand on. */
export function bindUseCases(deps: VaultDeps): UseCases {
  return {
    createCredential: (grant, input) => manage.createCredential(deps, grant, input),
    listCredentials: (grant, filter) => manage.listCredentials(deps, grant, filter),
    getCredential: (grant, id) => manage.getCredential(deps, grant, id),
    updateCredential: (grant, input) => manage.updateCredential(deps, grant, input),
    rollbackCredential: (grant, input) => rollbackCredential(deps, grant, input),
    deleteCredential: (grant, input) => manage.deleteCredential(deps, grant, input),
    resolveCredential: (grant, id) => resolveCredential(deps, grant, id),
    watchCredentials: (grant, input, sink) => watchCredentials(deps, grant, input, sink),
    reportCredentialUses: (grant, reports) => reportCredentialUses(deps, grant, reports),
    listIntegrations: (grant) => manage.listIntegrations(grant),
    checkSecret: (grant, input) => checkSecret(deps, grant, input),
    checkStored: (grant, input) => checkStored(deps, grant, input),
    beginAuthorization: (grant, input) => beginAuthorization(deps, grant, input),
    completeAuthorization: (call, input) => completeAuthorization(deps, call, input),
    openerOrigins: deps.redirects.origins,
    accounts: bindAccounts(deps),
    records: bindRecords(deps),
    keys: keyUseCases({ ...deps, registered: new Set() }),
    etagOf: manage.etagOf,
  };
}
