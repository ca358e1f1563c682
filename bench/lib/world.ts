import { randomBytes, randomUUID } from "node:crypto";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { SignJWT } from "jose";
import { CreateCredentialRequest, CreateCredentialResponse, ResolveCredentialRequest } from "../../gen/flow/credentials/v1/credential_service.ts";
import type { Load } from "./load.ts";
import type { Measured } from "./process.ts";

const METHOD = "/flow.credentials.v1.CredentialService/";
/** Enough organizations that calls rarely meet on one organization's counters. */
const ORGANIZATIONS = 256;
const CREDENTIALS_EACH = 4;
/** How many calls fill the world at once. */
const LANES = 32;

/** The service's environment: everything on free ports and in one folder, limits out of the way. */
export function serviceEnvironment(dataDir: string, jwtSecret: string): Record<string, string> {
  return {
    CREDENTIALS_GRPC_LISTEN: "127.0.0.1:0",
    CREDENTIALS_REST_LISTEN: "127.0.0.1:0",
    CREDENTIALS_DATA_DIR: dataDir,
    CREDENTIALS_JWT_SECRET: jwtSecret,
    CREDENTIALS_MASTER_KEYS: `bench:${randomBytes(32).toString("base64")}`,
    CREDENTIALS_PRIMARY_KEY_ID: "bench",
    CREDENTIALS_LIMIT_PER_PROVIDER: "1000000",
    CREDENTIALS_LIMIT_PER_USER: "1000000",
  };
}

/** One organization: who calls in it, and what is stored. */
interface Tenant {
  readonly user: Metadata;
  readonly machine: Metadata;
  readonly credentialIds: string[];
}

/** Organizations with their callers' tokens; `fill` stores credentials in them. */
export class World {
  readonly #tenants: Tenant[] = [];
  #turn = 0;

  /** Mints the tokens of every organization's user and service account, as the platform's issuer would. */
  static async make(jwtSecret: string): Promise<World> {
    const world = new World();
    const key = new TextEncoder().encode(jwtSecret);
    const bearer = async (organization: string, kind: string) => {
      const token = await new SignJWT({ organization_id: organization, account_type: kind })
        .setProtectedHeader({ alg: "HS256" }).setIssuer("flow-credentials-dev").setAudience("flow-credentials")
        .setSubject(randomUUID()).setIssuedAt().setExpirationTime("1h").sign(key);
      const metadata = new Metadata();
      metadata.set("authorization", `Bearer ${token}`);
      return metadata;
    };
    for (let count = 0; count < ORGANIZATIONS; count += 1) {
      const organization = randomUUID();
      world.#tenants.push({ user: await bearer(organization, "user"), machine: await bearer(organization, "service_account"), credentialIds: [] });
    }
    return world;
  }

  /** Stores the credentials that Resolve will ask for. */
  async fill(server: Measured): Promise<void> {
    const client = new Client(server.target, credentials.createInsecure());
    const due = this.#tenants.flatMap((tenant) => Array.from({ length: CREDENTIALS_EACH }, () => tenant));
    const lane = async () => {
      for (let tenant = due.pop(); tenant; tenant = due.pop()) tenant.credentialIds.push(await create(client, tenant.user));
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    client.close();
  }

  /** The token of a user, each index of another organization. */
  user(index: number): Metadata {
    return (this.#tenants[index % this.#tenants.length] as Tenant).user;
  }

  /** The token of a service account of the same organization. */
  machine(index: number): Metadata {
    return (this.#tenants[index % this.#tenants.length] as Tenant).machine;
  }

  #next(): Tenant {
    this.#turn = (this.#turn + 1) % this.#tenants.length;
    return this.#tenants[this.#turn] as Tenant;
  }

  /** The empty call, which carries the same token and the same request as Resolve. */
  echo(server: Measured): Load {
    return { ...this.resolve(server), name: "empty call" };
  }

  /** ResolveCredential of a random credential. */
  resolve(server: Measured): Load {
    const next = () => {
      const { machine, credentialIds } = this.#next();
      const credentialId = credentialIds[Math.floor(Math.random() * credentialIds.length)] ?? "";
      return { message: Buffer.from(ResolveCredentialRequest.encode({ credentialId }).finish()), metadata: machine };
    };
    return { name: "ResolveCredential", server, path: `${METHOD}ResolveCredential`, next };
  }

  /** CreateCredential, organizations in turn. */
  create(server: Measured): Load {
    return { name: "CreateCredential", server, path: `${METHOD}CreateCredential`, next: () => ({ message: NEW_CREDENTIAL, metadata: this.#next().user }) };
  }
}

/** About 300 bytes, as an SFTP password with a pinned host key is. */
const NEW_CREDENTIAL = Buffer.from(
  CreateCredentialRequest.encode({
    provider: 3,
    credentialType: 5,
    credentials: { host: "sftp.example.com", port: 22, username: "reports", password: "p".repeat(32), host_key_fingerprint: `SHA256:${"A".repeat(43)}` },
  }).finish(),
);

function create(client: Client, metadata: Metadata): Promise<string> {
  return new Promise((resolve, reject) => {
    const decode = (bytes: Buffer) => CreateCredentialResponse.decode(bytes);
    client.makeUnaryRequest(`${METHOD}CreateCredential`, (bytes: Buffer) => bytes, decode, NEW_CREDENTIAL, metadata, { deadline: Date.now() + 20_000 }, (error, response) =>
      error ? reject(error) : resolve(response?.credential?.id ?? ""),
    );
  });
}
