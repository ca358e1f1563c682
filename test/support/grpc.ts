import { generateKeyPairSync, randomUUID } from "node:crypto";
import { type CallOptions, type ChannelCredentials, Client, credentials, type MethodDefinition, Metadata, type ServiceError } from "@grpc/grpc-js";
import { AdminServiceService } from "../../gen/flow/credentials/v1/admin_service.ts";
import { AuthorizationServiceService } from "../../gen/flow/credentials/v1/authorization_service.ts";
import { CredentialServiceService } from "../../gen/flow/credentials/v1/credential_service.ts";
import { ServiceAccountServiceService } from "../../gen/flow/credentials/v1/service_account_service.ts";
import { BadRequest, ErrorInfo } from "../../gen/google/rpc/error_details.ts";
import { Status } from "../../gen/google/rpc/status.ts";
import type { Authenticator, Presented } from "../../src/auth/authenticate.ts";
import type { AuditEvent, Caller } from "../../src/domain/access.ts";
import type { CredentialRecord } from "../../src/domain/credential.ts";
import type { Rotation } from "../../src/domain/rotation.ts";
import { fail } from "../../src/domain/errors.ts";
import { secret } from "../../src/domain/secret.ts";
import { CHAIN_BEGINNING } from "../../src/domain/audit-chain.ts";
import type { GrpcDeps } from "../../src/grpc/deps.ts";
import type { ServiceAccountKeyRow, ServiceAccountRow, UseCases } from "../../src/vault/use-cases.ts";
import { type GrpcOptions, serveGrpc } from "../../src/grpc/server.ts";
import { createLog } from "../../src/log.ts";

export { rawCall } from "./raw-call.ts";

/** Every RPC of ours, by its name. */
export const RPCS = { ...AuthorizationServiceService, ...CredentialServiceService, ...ServiceAccountServiceService, ...AdminServiceService };
export type RpcName = keyof typeof RPCS;

export const ORGANIZATION = "0b7c1f0e-6d5c-4a41-9a37-52f7a1c0d001";
/** The callers that the test authenticator knows, by their bearer token. */
export const CALLERS: Record<string, Caller> = {
  user: { kind: "user", id: "0b7c1f0e-6d5c-4a41-9a37-52f7a1c0d002", organizationId: ORGANIZATION, role: null },
  machine: { kind: "service_account", id: "0b7c1f0e-6d5c-4a41-9a37-52f7a1c0d003", organizationId: ORGANIZATION, role: null },
  operator: { kind: "operator", id: "ops" },
};

/** An authenticator that knows the callers above and remembers what it was shown. */
export function testAuthenticator(): Authenticator & { readonly shown: Presented[] } {
  const shown: Presented[] = [];
  return {
    shown,
    known: () => undefined,
    async prove(presented) {
      return { caller: await this.authenticate(presented), untilMs: Infinity };
    },
    async authenticate(presented) {
      shown.push(presented);
      const values = [...presented.authorization, ...presented.apiKey];
      if (values.length === 0) throw fail("UNAUTHENTICATED");
      if (values.length > 1) throw fail("CONFLICTING_IDENTITIES");
      const caller = CALLERS[values[0]?.replace("Bearer ", "") ?? ""];
      if (!caller) throw fail("INVALID_TOKEN");
      return caller;
    },
  };
}

/** A credential as the store would give it. */
export function record(facts: Partial<CredentialRecord> = {}): CredentialRecord {
  const at = new Date("2026-01-02T03:04:05.678Z");
  return {
    organizationId: ORGANIZATION,
    id: randomUUID(),
    provider: "sftp",
    credentialType: "user_password",
    userId: "0b7c1f0e-6d5c-4a41-9a37-52f7a1c0d002",
    name: null,
    accountEmail: null,
    createdAt: at,
    updatedAt: at,
    modifiedBy: "0b7c1f0e-6d5c-4a41-9a37-52f7a1c0d002",
    status: "active",
    statusReason: null,
    statusSince: at,
    renewable: false,
    tokenExpiresAt: null,
    revision: 1,
    secretVersion: 1n,
    ...facts,
  };
}

/** A rotation as the store would give it. */
export function rotation(facts: Partial<Rotation> = {}): Rotation {
  return {
    id: randomUUID(), kind: "master_key", state: "running", organizationId: null, fromMasterKeyId: "k1", toMasterKeyId: "k2", fromVersion: null, toVersion: null,
    rowsTotal: 2, rowsLeft: 1, rowsMoved: 1, rowsVerified: 0, rowsFailed: 0, failures: [], rowsPerSecond: null, startedAt: new Date("2026-01-02T03:04:05.678Z"),
    finishedAt: null, proof: null, startedBy: "ops", rollsBack: null, ...facts,
  };
}

const AT = new Date("2026-01-02T03:04:05.678Z");

/** A service account as the store would give it. */
const account = (facts: Partial<ServiceAccountRow> = {}): ServiceAccountRow => ({
  id: randomUUID(), organizationId: ORGANIZATION, name: "executor", description: null, status: "active", scope: null, createdAt: AT, updatedAt: AT, modifiedBy: "operator", lastUsedAt: null, ...facts,
});

/** A key of one. */
const accountKey = (facts: Partial<ServiceAccountKeyRow> = {}): ServiceAccountKeyRow => ({
  id: randomUUID(), organizationId: ORGANIZATION, serviceAccountId: randomUUID(), tokenPrefix: "saf_org_0b7c", name: "key", description: null,
  createdAt: AT, updatedAt: AT, modifiedBy: "operator", expiresAt: null, revokedAt: null, lastUsedAt: null, ...facts,
});

/** A reception that lets everyone pass, and writes that are done as often as they are asked for. */
export const openDoors: Pick<GrpcDeps, "reception" | "repeats"> = {
  reception: { receive: async () => null },
  repeats: { once: async (_repeatable, work) => work({ keyHash: "", requestHash: "", keyVersion: 1 }) },
};

/** Use cases over a map. */
export function memoryVault(): UseCases & { readonly rows: Map<string, { record: CredentialRecord; document: Record<string, unknown> }> } {
  const rows = new Map<string, { record: CredentialRecord; document: Record<string, unknown> }>();
  const find = (id: string) => {
    const row = rows.get(id);
    if (!row) throw fail("CREDENTIAL_NOT_FOUND");
    return row;
  };
  return {
    rows,
    async createCredential(_grant, { provider, credentialType, credentials: document, name }) {
      const made = record({ provider, credentialType, name });
      rows.set(made.id, { record: made, document });
      return made;
    },
    listCredentials: async (_grant, { provider }) => [...rows.values()].map((row) => row.record).filter((row) => provider === null || row.provider === provider),
    getCredential: async (_grant, id) => find(id).record,
    async updateCredential(_grant, { credentialId, credentials: document, name }) {
      const row = find(credentialId);
      const changed = { ...row.record, name: name ?? row.record.name, revision: row.record.revision + 1, secretVersion: row.record.secretVersion + 1n };
      rows.set(credentialId, { record: changed, document });
      return changed;
    },
    async deleteCredential(_grant, { credentialId }) {
      find(credentialId);
      rows.delete(credentialId);
    },
    async resolveCredential(_grant, id) {
      const { record: row, document } = find(id);
      const { host, username, password, ...extra } = document;
      const value = { host: String(host), port: 22, username: String(username), password: String(password), hostKeyFingerprint: "" };
      return { record: row, exposed: { secret: { $case: "sftpPassword", value }, extra, expiresAt: null }, cacheSeconds: 300 };
    },
    async watchCredentials(_grant, { from }, sink) {
      sink.send({ kind: "bookmark", revision: from?.revision ?? 0n, asOf: AT, position: "0.0000000000000000" });
      return () => {};
    },
    reportCredentialUses: async (_grant, reports) => reports.flatMap(({ credentialId }, place) => (rows.has(credentialId) ? [] : [place])),
    listIntegrations: () => [],
    checkSecret: async () => ({ result: { success: true, layer: null, reason: "ok", message: "It works.", nextStep: "", details: { server: "x" } }, durationMs: 1 }),
    checkStored: async (_grant, { credentialId }) => {
      find(credentialId);
      return { result: { success: false, layer: "auth", reason: "wrong", message: "It does not.", nextStep: "Mend it.", details: {} }, durationMs: 1 };
    },
    beginAuthorization: async () => ({ authorizationUrl: "https://provider.example/authorize", keep: null }), openerOrigins: [],
    completeAuthorization: async () => ({ record: record({ provider: "google" }), renewed: false, missingScopes: [], redirectUri: null }),
    rollbackCredential: async (_grant, { credentialId }) => find(credentialId).record,
    accounts: {
      create: async (_grant, { name }) => account({ name }),
      list: async () => [account()],
      get: async () => account(),
      update: async () => account(),
      remove: async () => {},
      setAccess: async (_grant, { scope }) => account({ scope }),
      createKey: async (_grant, { expiresAt }) => ({ key: accountKey({ expiresAt }), token: secret("saf_org_whole") }),
      listKeys: async () => [accountKey()],
      updateKey: async () => accountKey(),
      revokeKey: async () => {},
      organizationOf: (_grant, requested) => requested ?? ORGANIZATION,
    },
    records: {
      listAuditEvents: async () => ({ events: [], next: null }),
      listSignedAuditHeads: async () => ({ heads: [], publicKey: generateKeyPairSync("ed25519").publicKey }),
      verifyAudit: async () => ({ fault: undefined, place: CHAIN_BEGINNING, records: 0, signedHeads: 0, complete: true }),
      restoreCredential: async (_grant, { credentialId }) => find(credentialId).record,
      purgeDeleted: async () => ({ credentials: 0, previousSecrets: 0 }),
      setCredentialLimit: async () => {},
      listCredentialUses: async () => [],
    },
    keys: {
      status: async () => ({ masterKeys: [], replicas: [], rotations: [] }),
      rotateMasterKey: async () => rotation(),
      rotateOrganizationKey: async () => rotation(),
      verify: async () => rotation(),
      rotation: async () => rotation(),
      control: async () => rotation(),
      rollBack: async () => rotation(),
      retire: async () => rotation(),
      destroyOrganization: async () => 1,
      importCredential: async () => ({ credentialId: randomUUID(), alreadyImported: false }),
    },
    etagOf: ({ revision }) => `r${revision}`,
  };
}

const OPTIONS: GrpcOptions = {
  listen: { host: "127.0.0.1", port: 0 },
  reflection: true,
  deadlineMs: 15_000,
  maxMessageBytes: 262_144,
  maxMetadataBytes: 16_384,
  maxConcurrentStreams: 100,
  keepaliveMs: 60_000,
  maxConnectionAgeMs: 1_800_000,
  shutdownGraceMs: 5_000,
};

/** A running gRPC service over in-memory parts, and everything it recorded. */
export async function startGrpc(given: { vault?: Partial<UseCases>; deps?: Partial<GrpcDeps>; options?: Partial<GrpcOptions> } = {}) {
  const events: AuditEvent[] = [];
  const lines: string[] = [];
  const observed: { method: string; code: string }[] = [];
  const vault = memoryVault();
  const deps: GrpcDeps = {
    authenticator: testAuthenticator(),
    audit: { append: async (added) => void events.push(...added) },
    ...openDoors,
    log: createLog("debug", { write: (line: string) => void lines.push(line) }),
    metrics: { observe: ({ method, code }) => void observed.push({ method, code }) },
    vault: { ...vault, ...given.vault },
    ...given.deps,
  };
  const service = await serveGrpc(deps, { ...OPTIONS, ...given.options });
  const target = `${service.address.host}:${service.address.port}`;
  const clients: Client[] = [];
  const open = (to: string = target, channel: ChannelCredentials = credentials.createInsecure()) => {
    const client = new Client(to, channel, { "grpc.use_local_subchannel_pool": 1, "grpc.initial_reconnect_backoff_ms": 100 });
    clients.push(client);
    return client;
  };
  return {
    service,
    target,
    vault,
    events,
    observed,
    lines,
    /** Log lines of finished calls. */
    calls: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>).filter(({ message }) => message === "call"),
    open,
    client: open(),
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.close();
      await service.stop();
    },
  };
}

/** What a call gave: its response, or the error with its details decoded; and the request id of its initial metadata. */
export interface Answer<T> {
  readonly response?: T;
  readonly error?: ServiceError;
  readonly reason?: string;
  readonly facts?: Record<string, string>;
  readonly violations: { field: string; reason: string; description: string }[];
  readonly requestId: string | undefined;
}

/** Metadata of a caller and whatever else is given. */
export function metadataOf(caller: string | null, more: Record<string, string | Buffer> = {}): Metadata {
  const metadata = new Metadata();
  if (caller !== null) metadata.set("authorization", `Bearer ${caller}`);
  for (const [name, value] of Object.entries(more)) metadata.set(name, value);
  return metadata;
}

/** Details of a status as clients decode them. */
export function detailsOf(metadata: Metadata): Pick<Answer<never>, "reason" | "facts" | "violations"> {
  const [bytes] = metadata.get("grpc-status-details-bin");
  const details = bytes === undefined ? [] : Status.decode(bytes as Buffer).details;
  const find = (name: string) => details.find(({ typeUrl }) => typeUrl === `type.googleapis.com/google.rpc.${name}`)?.value;
  const [info, bad] = [find("ErrorInfo"), find("BadRequest")];
  const decoded = info && ErrorInfo.decode(info);
  return { ...(decoded ? { reason: decoded.reason, facts: decoded.metadata } : {}), violations: bad ? BadRequest.decode(bad).fieldViolations : [] };
}

/** Calls a method; `request` may be the bytes themselves. */
export function call<Req, Res>(
  client: Client,
  method: MethodDefinition<Req, Res>,
  request: Req | Buffer,
  metadata: Metadata,
  options: CallOptions = {},
): Promise<Answer<Res>> {
  return new Promise((resolve) => {
    let requestId: string | undefined;
    const serialize = (value: Req | Buffer) => (Buffer.isBuffer(value) ? value : method.requestSerialize(value));
    const sent = client.makeUnaryRequest(method.path, serialize, method.responseDeserialize, request, metadata, options, (error, response) => {
      resolve(error ? { error, requestId, ...detailsOf(error.metadata) } : { ...(response === undefined ? {} : { response }), violations: [], requestId });
    });
    sent.on("metadata", (initial) => (requestId = initial.get("x-request-id").map(String)[0]));
  });
}
