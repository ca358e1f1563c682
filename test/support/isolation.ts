import { randomUUID } from "node:crypto";
import { create, type DescField, type DescMessage, type DescMethod, type FileRegistry, ScalarType, toBinary, toJson } from "@bufbuild/protobuf";
import { reflect, type ReflectMessage } from "@bufbuild/protobuf/reflect";
import { StructSchema, timestampFromMs, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import pg from "pg";
import { ulid } from "ulid";
import { ACTIONS, type Action, roleFor } from "../../src/domain/access.ts";
import { loadDescriptors } from "../../src/rest/descriptors.ts";
import { compileRoutes } from "../../src/rest/routes.ts";
import { detailsOf } from "./grpc.ts";
import { connectionOf, type FreshDatabase } from "./postgres.ts";
import { administratorToken, rest, type Service, token } from "./service.ts";
import { heard } from "./watching.ts";

/** Settings under which nothing is written but by calls: what the service does by itself would look like somebody's doing. */
export const STILL = { CREDENTIALS_AUDIT_SIGN_INTERVAL_MS: "86400000", CREDENTIALS_PURGE_INTERVAL_MS: "86400000" } as const;

/** A secret for whoever asks. */
const SFTP = { host: "sftp.example.com", username: "u", password: "p" };

/** Ids of one organization, by the names that fields of requests give them. */
type Ids = Readonly<Record<string, string>>;

/** One organization with something of everything, and its callers' tokens. */
interface Tenant {
  readonly organizationId: string;
  /** What is planted in it, so that it is noticed wherever it appears. */
  readonly canary: string;
  readonly ids: Ids;
  readonly callers: Readonly<Record<"user" | "admin" | "machine" | "key", string>>;
}

/** What a call gave. */
interface Outcome {
  readonly reason: string;
  readonly message: string;
  readonly bytes: Buffer;
  readonly requestId: string;
}

const PACKAGE = "flow.credentials.v1";
const registry: FileRegistry = loadDescriptors();

/** Every RPC of ours, from the descriptors: one that is added is here. */
export const METHODS: readonly DescMethod[] = [...registry.files].filter((file) => file.proto.package === PACKAGE).flatMap((file) => file.services.flatMap((service) => service.methods));

/** RPCs that take no identity: who it is about, their own secret says. */
const OPEN: ReadonlySet<string> = new Set(["CompleteAuthorization"]);

/** What an RPC gives for a credential that it has found, and that is not of the kind it takes. */
const FOUND: Readonly<Record<string, string>> = { TestPostgresCredential: "INVALID_CREDENTIALS", BeginAuthorization: "INVALID_REQUEST" };

const actionOf = (method: DescMethod): Action => method.localName.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) as Action;

/** Values of fields that are no ids, by name, where the kind of the field does not say enough. */
const TEXTS: Readonly<Record<string, string>> = {
  auth_type: "password", master_key_id: "test-1", page_token: "", source: "1", etag: "", name: "renamed", host: "127.0.0.1", username: "u", password: "p", action: "get_credential",
};
/** Fields that are left out: with them a request would be about something else, or be refused before it is about anything. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  "connection_string", "certificate", "private_key_data", "private_key_passphrase", "test_path", "host_key_fingerprint", "sslmode", "ca_certificate", "expires_at",
  "refuse_if_used_within_seconds", "redirect_to", "scopes", "from", "until", "outcome", "status", "everything",
]);
/** Ids that are nobody's in particular. */
const OTHER_IDS: ReadonlySet<string> = new Set(["rotation_id", "user_id", "flow_id", "run_id", "request_id", "actor_id"]);

function valueOf(field: DescField, ids: Ids): unknown {
  const { name } = field;
  if (LEFT_OUT.has(name)) return undefined;
  if (name in ids) return ids[name];
  if (name === "credential_ids") return undefined;
  if (field.fieldKind === "list" && field.listKind === "message") return [messageOf(field.message, ids)];
  if (name === "uses") return 3n;
  if (/_ids?$/.test(name) && name !== "master_key_id") {
    if (OTHER_IDS.has(name)) return name === "rotation_id" || name === "user_id" ? randomUUID() : undefined;
    throw new Error(`the isolation proof does not know whose id ${field.parent.name}.${name} is: teach it`);
  }
  if (name in TEXTS) return TEXTS[name];
  if (field.fieldKind === "enum") return field.parent.name.includes("Postgres") ? 6 : field.parent.name.includes("Authorization") ? 5 : name === "credential_type" ? 5 : 3;
  if (field.fieldKind === "message" && field.message.typeName === StructSchema.typeName) return reflect(StructSchema, create(StructSchema, structOf(SFTP)));
  if (field.fieldKind === "message" && field.message.typeName === TimestampSchema.typeName) return reflect(TimestampSchema, timestampFromMs(Date.now() + 3_600_000));
  if (field.fieldKind === "scalar" && field.scalar === ScalarType.UINT32) return name === "port" || name === "offset" ? undefined : 60;
  return undefined;
}

const structOf = (object: Record<string, string>) => ({ fields: Object.fromEntries(Object.entries(object).map(([key, value]) => [key, { kind: { case: "stringValue" as const, value } }])) });

function messageOf(type: DescMessage, ids: Ids): ReflectMessage {
  const message = reflect(type, create(type));
  for (const field of type.fields) {
    const value = valueOf(field, ids);
    if (field.fieldKind === "list") for (const item of (value ?? []) as unknown[]) message.get(field).add(item);
    else if (value !== undefined) message.set(field, value);
  }
  return message;
}

/** A request of an RPC about somebody's ids. */
function requestOf(method: DescMethod, ids: Ids): { bytes: Uint8Array; json: unknown } {
  const message = messageOf(method.input, ids);
  return { bytes: toBinary(method.input, message.message), json: toJson(method.input, message.message, { useProtoFieldName: true, registry }) };
}

/** Calls, and looks at what a call did, of one service. */
export class World implements AsyncDisposable {
  readonly #service: Service;
  readonly #client: Client;
  readonly superuser: pg.Client;
  readonly #faults: string[] = [];

  private constructor(service: Service, superuser: pg.Client) {
    this.#service = service;
    this.#client = new Client(service.grpc, credentials.createInsecure());
    this.superuser = superuser;
  }

  static async open(service: Service, database: FreshDatabase): Promise<World> {
    const superuser = new pg.Client(connectionOf(database.superuserUrl));
    await superuser.connect();
    return new World(service, superuser);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    await this.superuser.end();
  }

  /** Makes an organization with something of everything. */
  async tenant(): Promise<Tenant> {
    const organizationId = randomUUID();
    const canary = `canary-${randomUUID()}`;
    const planted = { host: "sftp.example.com", username: canary, password: `${canary}-password` };
    const [user, admin, machine] = await Promise.all([token("user", organizationId), administratorToken(organizationId), token("service_account", organizationId)]);
    const call = (method: string, path: string, as: string, body?: unknown) => rest(this.#service, method, path, { token: as, ...(body === undefined ? {} : { body }) });
    const { json: credential } = await call("POST", "/integrations/credentials", user, { provider: "sftp", credential_type: "user_password", credentials: planted, name: canary });
    await call("PATCH", `/integrations/credentials/${credential.id}`, user, { credential_type: "user_password", credentials: planted, keep_previous_seconds: 600 });
    const { json: account } = await call("POST", "/service-accounts", admin, { name: canary });
    const { json: key } = await call("POST", `/service-accounts/${account.id}/api-keys`, admin, { name: canary });
    const ids = { organization_id: organizationId, credential_id: credential.id, service_account_id: account.id, key_id: key.id };
    return { organizationId, canary, ids, callers: { user, admin, machine, key: key.token } };
  }

  /** Makes one call. */
  call(method: DescMethod, bytes: Uint8Array, as: string, more: Readonly<Record<string, string>> = {}): Promise<Outcome> {
    const requestId = ulid();
    const metadata = new Metadata();
    for (const [name, value] of Object.entries({ authorization: `Bearer ${as}`, "x-request-id": requestId, ...more })) metadata.set(name, value);
    const path = `/${method.parent.typeName}/${method.name}`;
    if (method.methodKind === "server_streaming") {
      return heard(this.#client.makeServerStreamRequest(path, (it: Uint8Array) => Buffer.from(it), (it: Buffer) => it, bytes, metadata, { deadline: Date.now() + 15_000 })).then((outcome) => ({ ...outcome, requestId }));
    }
    return new Promise((resolve) => {
      this.#client.makeUnaryRequest(path, (it: Uint8Array) => Buffer.from(it), (it: Buffer) => it, bytes, metadata, { deadline: Date.now() + 15_000 }, (error: ServiceError | null, response?: Buffer) => {
        if (error === null) return resolve({ reason: "OK", message: "", bytes: response ?? Buffer.alloc(0), requestId });
        resolve({ reason: detailsOf(error.metadata).reason ?? `status ${error.code}`, message: error.details, bytes: Buffer.from(JSON.stringify(error.metadata.toJSON())), requestId });
      });
    });
  }

  /** Everything that is stored of an organization, in every table there is that names organizations; its own log of refusals left out. */
  async everythingOf(organizationId: string): Promise<string> {
    const { rows: tables } = await this.superuser.query<{ name: string }>(
      "select c.relname as name from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'organization_id' where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') order by 1",
    );
    const parts: string[] = [];
    for (const { name } of tables) {
      // When a key was last used is written behind the calls of its own organization.
      const { rows } = await this.superuser.query(`select (to_jsonb(t) - 'last_used_at')::text as row from ${name} t where organization_id = $1 order by 1`, [organizationId]);
      parts.push(`${name}: ${rows.map(({ row }) => row).join("\n")}`);
    }
    return parts.join("\n\n");
  }

  /** What an outcome must not tell anyone else. */
  betrays(outcome: Pick<Outcome, "bytes">, { ids, canary }: Tenant): string | undefined {
    const text = outcome.bytes.toString("latin1");
    return [canary, ...Object.values(ids)].find((secret) => text.includes(secret));
  }

  /** What was found since it was last asked for. */
  found(): string[] {
    return this.#faults.splice(0);
  }

  fault(text: string): void {
    this.#faults.push(text);
  }
}

/** Whether the items of a request name somebody's things: such a request is answered item by item, and not refused. */
const itemsAboutIds = (method: DescMethod): boolean => method.input.fields.some((field) => field.fieldKind === "list" && field.listKind === "message" && field.message.fields.some(({ name }) => name === "credential_id"));

/** Whether a request of an RPC names somebody's things. */
const aboutIds = (method: DescMethod): boolean => method.input.fields.some(({ name }) => ["credential_id", "service_account_id", "key_id"].includes(name));

/** Every RPC, by every kind of caller of another organization, about this one's ids: nothing is told, nothing is changed, and it is as if nothing were there. */
export async function foreignCalls(world: World, victim: Tenant, stranger: Tenant, methods = METHODS): Promise<void> {
  const before = await world.everythingOf(victim.organizationId);
  for (const method of methods) {
    if (method.methodKind !== "unary" && method.methodKind !== "server_streaming") throw new Error(`the isolation proof does not know how to call ${method.name}: teach it`);
    for (const [caller, as] of Object.entries(stranger.callers)) {
      for (const organization_id of [victim.organizationId, stranger.organizationId, ""]) {
        if (organization_id !== victim.organizationId && !method.input.fields.some(({ name }) => name === "organization_id")) continue;
        const what = `${method.name} by ${caller} of another organization${organization_id === "" ? " without an organization" : ""}`;
        const own = { ...victim.ids, organization_id };
        const outcome = await world.call(method, requestOf(method, own).bytes, as);
        const betrayed = world.betrays(outcome, victim);
        if (betrayed !== undefined) world.fault(`${what} was told ${betrayed}`);
        if (!aboutIds(method) && !itemsAboutIds(method)) continue;
        if ((outcome.reason === "OK" && aboutIds(method)) || outcome.reason.startsWith("INTERNAL") || outcome.reason.startsWith("status")) world.fault(`${what} got ${outcome.reason}`);
        const nobody = Object.fromEntries(Object.keys(victim.ids).map((name) => [name, name === "organization_id" ? organization_id : randomUUID()]));
        const missing = await world.call(method, requestOf(method, nobody).bytes, as);
        if (missing.reason !== outcome.reason || missing.message !== outcome.message || (itemsAboutIds(method) && !missing.bytes.equals(outcome.bytes) && outcome.reason === "OK")) world.fault(`${what} got ${outcome.reason}, and ${missing.reason} for what is not there`);
      }
    }
  }
  if ((await world.everythingOf(victim.organizationId)) !== before) world.fault("a caller of another organization changed something");
}

/** Metadata that somebody might take for the organization, and what belongs to another caller: it is the token alone that counts. */
export async function foreignMetadata(world: World, victim: Tenant, stranger: Tenant): Promise<void> {
  const before = await world.everythingOf(victim.organizationId);
  const names = ["organization_id", "x-organization-id", "x-org-id", "x-tenant-id", "x-user-id", "x-flow-id", "x-run-id", "x-forwarded-user", "idempotency-key", "app.organizations"];
  const byId = METHODS.filter((method) => aboutIds(method) && method.parent.name === "CredentialService");
  for (const method of byId) {
    for (const name of names) {
      const outcome = await world.call(method, requestOf(method, { ...victim.ids, organization_id: "" }).bytes, stranger.callers.user, { [name]: victim.organizationId });
      if (outcome.reason === "OK" || world.betrays(outcome, victim)) world.fault(`${method.name} with ${name} of another organization got ${outcome.reason}`);
    }
    const both = await world.call(method, requestOf(method, { ...victim.ids, organization_id: "" }).bytes, stranger.callers.user, { "x-api-key": victim.callers.key });
    if (both.reason !== "CONFLICTING_IDENTITIES") world.fault(`${method.name} with two identities got ${both.reason}`);
  }
  if ((await world.everythingOf(victim.organizationId)) !== before) world.fault("metadata of another organization changed something");
}

/** Every route, the same way over REST; missing and foreign are the same answer. */
export async function foreignRoutes(world: World, service: Service, victim: Tenant, stranger: Tenant): Promise<void> {
  const before = await world.everythingOf(victim.organizationId);
  for (const { template, routes } of compileRoutes(registry, ["ResolveCredential"])) {
    for (const [verb, route] of routes) {
      const pathOf = (ids: Ids) => template.replace(/\{(\w+)\}/g, (_, name: string) => ids[name] ?? (name === "provider" ? "sftp" : "none"));
      for (const [caller, as] of Object.entries(stranger.callers)) {
        const body = route.body ? { body: { ...(requestOf(route.method, victim.ids).json as object), provider: "sftp", credential_type: "user_password", organization_id: victim.organizationId } } : {};
        const ask = async (ids: Ids) => {
          const { status, text } = await rest(service, verb, pathOf(ids), { token: as, ...body });
          return { status, text: text.replace(/"request_id":"\w+"/, "") };
        };
        const answer = await ask(victim.ids);
        if (world.betrays({ bytes: Buffer.from(answer.text) }, victim) !== undefined) world.fault(`${verb} ${template} by ${caller} of another organization was told something`);
        if (!/\{(credential|service_account|key)_id\}/.test(template)) continue;
        const missing = await ask(Object.fromEntries(Object.keys(victim.ids).map((name) => [name, randomUUID()])));
        if (answer.status < 400 || answer.status !== missing.status || answer.text !== missing.text) world.fault(`${verb} ${template} by ${caller} of another organization got ${answer.status}, and ${missing.status} for what is not there`);
      }
    }
  }
  if ((await world.everythingOf(victim.organizationId)) !== before) world.fault("a REST caller of another organization changed something");
}

/** Every RPC by every kind of caller of the organization itself who may not: refused, and recorded. */
export async function gates(world: World, tenant: Tenant, methods = METHODS): Promise<void> {
  const kindOf = { user: "user", admin: "user", machine: "service_account", key: "service_account" } as const;
  for (const method of methods.filter(({ name }) => !OPEN.has(name))) {
    const action = actionOf(method);
    const kinds: readonly string[] = ACTIONS[action];
    for (const [caller, as] of Object.entries(tenant.callers)) {
      const role = roleFor(action);
      if (kinds.includes(kindOf[caller as keyof typeof kindOf]) && (role === undefined || caller !== "user")) continue;
      const outcome = await world.call(method, requestOf(method, tenant.ids).bytes, as);
      if (!/_REQUIRED$|^FORBIDDEN$/.test(outcome.reason)) world.fault(`${method.name} by ${caller} got ${outcome.reason}`);
      const { rows } = await world.superuser.query("select outcome, action from audit_event where request_id = $1", [outcome.requestId]);
      if (rows.length !== 1 || rows[0].outcome !== "refused" || rows[0].action !== action) world.fault(`${method.name} by ${caller} was refused without a record`);
    }
  }
}

const rank = ({ name }: DescMethod): number => (name.startsWith("Delete") ? 3 : name.startsWith("Revoke") ? 2 : name.startsWith("Rollback") ? 1 : 0);

/** The same requests by the organization's own callers: they work, so that the refusals above say something; and what changes or reveals something is recorded. */
export async function ownCalls(world: World, tenant: Tenant, methods = METHODS): Promise<void> {
  for (const method of methods.toSorted((a, b) => rank(a) - rank(b))) {
    const action = actionOf(method);
    const kinds: readonly string[] = ACTIONS[action];
    const as = roleFor(action) !== undefined ? tenant.callers.admin : kinds.includes("user") ? tenant.callers.user : kinds.includes("service_account") ? tenant.callers.machine : undefined;
    if (as === undefined || !aboutIds(method)) continue;
    const expected = FOUND[method.name] ?? "OK";
    const outcome = await world.call(method, requestOf(method, tenant.ids).bytes, as);
    if (outcome.reason !== expected) world.fault(`${method.name} of its own got ${outcome.reason}`);
    if (/^(get|list)_/.test(action) || expected !== "OK") continue;
    const { rows } = await world.superuser.query("select outcome from audit_event where request_id = $1 and action = $2 and outcome = 'allowed'", [outcome.requestId, action]);
    if (rows.length === 0) world.fault(`${method.name} left no record`);
  }
}

