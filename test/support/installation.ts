import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { SignJWT } from "jose";
import { createCredentialClient, type CredentialClient } from "../../src/client/index.ts";
import { makeCertificate } from "./certificate.ts";
import type { DebianServer } from "./debian-postgres.ts";
import { blocksOf, Terminal } from "./runbook.ts";
import { type Service, startService } from "./service.ts";

/** Who signs the tokens of a platform, and the authority of its certificates. */
export interface Platform {
  /** PEM. */
  readonly issuer: string;
  readonly certificate: Awaited<ReturnType<typeof makeCertificate>>;
  token(holder: { readonly operator: string } | { readonly kind: "user" | "service_account"; readonly organizationId: string; readonly subject: string }): Promise<string>;
}

/** Makes one. */
export async function makePlatform(): Promise<Platform> {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  return {
    issuer: publicKey.export({ format: "pem", type: "spki" }).toString(),
    certificate: await makeCertificate(),
    token(holder) {
      const [audience, subject, claims] = "operator" in holder
        ? ["flow-credentials-operator", holder.operator, { account_type: "operator" }]
        : ["flow-credentials", holder.subject, { account_type: holder.kind, organization_id: holder.organizationId }];
      return new SignJWT(claims).setProtectedHeader({ alg: "EdDSA" }).setSubject(subject).setIssuer("https://issuer.example").setAudience(audience).setIssuedAt().setExpirationTime("10m").sign(privateKey);
    },
  };
}

/** A machine on which somebody follows the runbook's entry about installing, in production, with a PostgreSQL of the distribution. */
export class Installation {
  readonly folder: string;
  readonly terminal: Terminal;
  readonly #database: DebianServer;

  /** @param folder stands for the runbook's /etc/flow-credentials */
  constructor(folder: string, database: DebianServer) {
    mkdirSync(folder, { recursive: true });
    this.folder = folder;
    this.#database = database;
    writeFileSync(join(folder, "superuser"), `*:*:*:postgres:${new URL(database.superuserUrl).password}`, { mode: 0o600 });
    const env = { PGHOST: "127.0.0.1", PGPORT: String(database.port), PGPASSFILE: join(folder, "superuser"), FLOW_CREDENTIALS_TOKEN_FILE: join(folder, "operator.token"), FLOW_CREDENTIALS_CA_FILE: join(folder, "ca.pem") };
    this.terminal = new Terminal(folder, env, [database.bin]);
  }

  /** The entry's first block, and the files that an operator brings. */
  async prepare(platform: Platform): Promise<void> {
    const [roles = ""] = blocksOf("Install");
    await this.terminal.run(roles);
    const { certificate, issuer } = platform;
    const files = { "issuer.pem": issuer, "tls.pem": certificate.cert, "tls.key": certificate.key, "ca.pem": certificate.ca, "operator.token": await platform.token({ operator: "ops" }) };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.folder, name), text, { mode: 0o600 });
    const listeners = (text: string) => text.replaceAll(/^(\w+_LISTEN)=.*$/gm, "$1=127.0.0.1:0");
    writeFileSync(join(this.folder, "settings"), listeners(this.terminal.here(blocksOf("Install", "ini")[0] ?? "")));
  }

  /** The entry's block about the schema; gives the migrations that were applied. */
  migrate(): Promise<string> {
    return this.terminal.run(blocksOf("Install")[1] ?? "");
  }

  /** Starts the service with the settings that were written, and further ones. */
  async start(extra: Readonly<Record<string, string>> = {}): Promise<Service> {
    const settings = parseEnv(readFileSync(join(this.folder, "settings"), "utf8")) as Record<string, string>;
    const service = await startService({ PATH: process.env["PATH"] ?? "", ...settings, ...extra });
    this.terminal.serve(service);
    // By the name in the certificate.
    this.terminal.env["FLOW_CREDENTIALS_TARGET"] = service.grpc.replace("127.0.0.1", "localhost");
    return service;
  }

  /** The entry as a whole: everything is made, started with further settings, and asked whether it can serve. */
  async install(platform: Platform, extra: Readonly<Record<string, string>> = {}): Promise<Service> {
    await this.prepare(platform);
    await this.migrate();
    const service = await this.start(extra);
    await this.terminal.run(blocksOf("Install")[2] ?? "");
    return service;
  }

  /** A client of the service with this token or key. */
  client(token: string): CredentialClient & Disposable {
    const client = createCredentialClient({ target: this.terminal.env["FLOW_CREDENTIALS_TARGET"] ?? "", token, tls: { ca: readFileSync(join(this.folder, "ca.pem")) } });
    return Object.assign(client, { [Symbol.dispose]: () => client.close() });
  }

  /** URL of this installation's database, as its superuser. */
  get superuserUrl(): string {
    return this.#database.superuserUrl.replace(/\/postgres$/, "/flow_credentials");
  }
}
