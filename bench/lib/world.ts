import { randomBytes, randomUUID } from "node:crypto";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { SignJWT } from "jose";
import { CreateCredentialRequest, CreateCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { CredentialType, Provider } from "../../gen/flow/credentials/v1/resources.ts";
import type { Measured } from "./process.ts";
import { unary } from "./unary.ts";

/** How large a world is. */
export interface Shape {
  /** Organizations that are read. Enough that calls rarely meet on one organization's counters. */
  readonly readers: number;
  /** Organizations that are only written to. */
  readonly writers: number;
  /** Credentials of each organization that is read, besides one of OAuth. */
  readonly credentials: number;
}

const SHAPE: Shape = { readers: 256, writers: 64, credentials: 10 };
/** How many calls fill the world at once. */
const LANES = 32;

/** About 300 bytes, as an SFTP password with a pinned host key is. */
export const SECRET = { host: "sftp.example.com", port: 22, username: "reports", password: "p".repeat(32), host_key_fingerprint: `SHA256:${"A".repeat(43)}` } as const;

/** A token that is good for a day, so that nothing renews it meanwhile. */
const GRANT = { access_token: "a".repeat(120), refresh_token: "r".repeat(120), expires_in: 86_400, client_id: "client", client_secret: "secret" } as const;

/** The service's environment: everything on free ports and in one folder, limits out of the way. */
export function serviceEnvironment(dataDir: string, jwtSecret: string): Record<string, string> {
  const most = "1000000";
  return {
    CREDENTIALS_GRPC_LISTEN: "127.0.0.1:0",
    CREDENTIALS_REST_LISTEN: "127.0.0.1:0",
    CREDENTIALS_DATA_DIR: dataDir,
    CREDENTIALS_JWT_SECRET: jwtSecret,
    CREDENTIALS_MASTER_KEYS: `bench:${randomBytes(32).toString("base64")}`,
    CREDENTIALS_PRIMARY_KEY_ID: "bench",
    CREDENTIALS_LIMIT_PER_PROVIDER: most,
    CREDENTIALS_LIMIT_PER_USER: most,
    // So many that 256 calls may wait for a connection.
    CREDENTIALS_DATABASE_POOL_SIZE: "20",
    CREDENTIALS_RATE_RESOLVES_PER_CALLER: most,
    CREDENTIALS_RATE_RESOLVES_PER_ORGANIZATION: most,
    CREDENTIALS_RATE_WRITES_PER_CALLER: most,
    CREDENTIALS_RATE_WRITES_PER_ORGANIZATION: most,
  };
}

/** The message that creates a credential. */
export function creationOf(secret: Readonly<Record<string, unknown>>, provider: Provider = Provider.PROVIDER_SFTP, credentialType: CredentialType = CredentialType.CREDENTIAL_TYPE_USER_PASSWORD): Buffer {
  return Buffer.from(CreateCredentialRequest.encode({ provider, credentialType, credentials: { ...secret } }).finish());
}

/** The id of the credential that an answer to CreateCredential tells of. */
export const createdId = (bytes: Buffer): string => CreateCredentialResponse.decode(bytes).credential?.id ?? "";

/** One organization: who calls in it, and what is stored. */
export interface Tenant {
  readonly user: Metadata;
  readonly machine: Metadata;
  readonly credentialIds: string[];
  /** Its credential of OAuth, whose token is good. */
  oauthId: string;
}

/** Organizations with their callers' tokens; `fill` stores credentials in them. Those that are read stay as they were filled. */
export class World {
  readonly #readers: Tenant[] = [];
  readonly #writers: Tenant[] = [];
  readonly #shape: Shape;
  #turn = 0;

  private constructor(shape: Shape) {
    this.#shape = shape;
  }

  /** Mints the tokens of every organization's user and service account, as the platform's issuer would. */
  static async make(jwtSecret: string, shape: Shape = SHAPE): Promise<World> {
    const world = new World(shape);
    const key = new TextEncoder().encode(jwtSecret);
    const bearer = async (organization: string, kind: string) => {
      const token = await new SignJWT({ organization_id: organization, account_type: kind })
        .setProtectedHeader({ alg: "HS256" }).setIssuer("flow-credentials-dev").setAudience("flow-credentials")
        .setSubject(randomUUID()).setIssuedAt().setExpirationTime("12h").sign(key);
      const metadata = new Metadata();
      metadata.set("authorization", `Bearer ${token}`);
      return metadata;
    };
    for (let count = 0; count < shape.readers + shape.writers; count += 1) {
      const organization = randomUUID();
      const tenant = { user: await bearer(organization, "user"), machine: await bearer(organization, "service_account"), credentialIds: [], oauthId: "" };
      (count < shape.readers ? world.#readers : world.#writers).push(tenant);
    }
    return world;
  }

  /** Stores the credentials that calls will be about. */
  async fill(server: Measured): Promise<void> {
    const client = new Client(server.target, credentials.createInsecure());
    const [plain, oauth] = [creationOf(SECRET), creationOf(GRANT, Provider.PROVIDER_GOOGLE, CredentialType.CREDENTIAL_TYPE_OAUTH2)];
    const create = (tenant: Tenant, message: Buffer) => unary(client, "CreateCredential", message, tenant.user, createdId);
    const due = this.#readers.flatMap((tenant) => [
      ...Array.from({ length: this.#shape.credentials }, () => async () => void tenant.credentialIds.push(await create(tenant, plain))),
      async () => void (tenant.oauthId = await create(tenant, oauth)),
    ]);
    due.push(...this.#writers.map((tenant) => async () => void tenant.credentialIds.push(await create(tenant, plain))));
    const lane = async () => {
      for (let task = due.pop(); task; task = due.pop()) await task();
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    client.close();
  }

  /** The token of a user, each index of another organization. */
  user(index: number): Metadata {
    return (this.#readers[index % this.#readers.length] as Tenant).user;
  }

  /** The token of a service account of the same organization. */
  machine(index: number): Metadata {
    return (this.#readers[index % this.#readers.length] as Tenant).machine;
  }

  /** The next organization to read, all in turn. */
  reader(): Tenant {
    return this.#readers[(this.#turn += 1) % this.#readers.length] as Tenant;
  }

  /** The next organization to write to, all in turn. */
  writer(): Tenant {
    return this.#writers[(this.#turn += 1) % this.#writers.length] as Tenant;
  }
}
