import { readFileSync } from "node:fs";
import type { Command } from "commander";
import type { ServiceAccountKey } from "../client/service-accounts.ts";
import { addConnection, callService, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { CliError } from "./failure.ts";
import { time, uuid } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly org: string;
  readonly serviceAccount: string;
  readonly keyId: string;
  readonly expiresAt?: string;
  readonly name?: string;
  readonly certificate?: string;
  readonly json?: true;
}

const EXAMPLE = `
Example:
  $ flow-credentials service-account-key create --org 22222222-2222-4222-8222-222222222222 \\
      --service-account 33333333-3333-4333-8333-333333333333 > executor.key
  $ flow-credentials service-account-key revoke --org 22222222-2222-4222-8222-222222222222 \\
      --service-account 33333333-3333-4333-8333-333333333333 --key-id 44444444-4444-4444-8444-444444444444`;

/** A key as JSON, without the key itself. */
function facts(key: ServiceAccountKey): Record<string, unknown> {
  const { id, serviceAccountId, organizationId, name, tokenPrefix, createdAt = null, expiresAt = null, lastUsedAt = null } = key;
  return { id, service_account_id: serviceAccountId, organization_id: organizationId, name, token_prefix: tokenPrefix, created_at: createdAt, expires_at: expiresAt, last_used_at: lastUsedAt };
}

function certificateOf(file: string | undefined): { readonly certificate?: string } {
  if (file === undefined) return {};
  try {
    return { certificate: readFileSync(file, "utf8") };
  } catch (error) {
    throw new CliError(`the file of --certificate cannot be read (${error instanceof Error && "code" in error ? String(error.code) : "error"})`);
  }
}

/** `service-account-key`: makes an API key and prints it, once; lists and revokes keys; maps client certificates. */
export function addServiceAccountKey(program: Command, context: Context): void {
  const group = program.command("service-account-key").description("API keys of service accounts, and client certificates that stand for them").addHelpText("after", EXAMPLE);
  const command = (name: string, description: string) =>
    addConnection(group.command(name))
      .description(description)
      .requiredOption("--org <uuid>", "organization of the service account")
      .requiredOption("--service-account <uuid>", "the service account")
      .option("--json", "print JSON")
      .addHelpText("after", EXAMPLE);
  const placeOf = (options: Options) => ({ organizationId: uuid("--org", options.org), serviceAccountId: uuid("--service-account", options.serviceAccount) });

  command("create", "make an API key and print it; it is shown once")
    .option("--expires-at <time>", "when the key stops working, such as 2030-01-31T12:00:00Z; without it, never")
    .option("--name <name>", "a name for people, 1 to 255 characters")
    .option("--certificate <file>", "map this client certificate, PEM, in the place of making a key")
    .action(async (options: Options) => {
      const request = {
        ...placeOf(options),
        ...(options.expiresAt === undefined ? {} : { expiresAt: time("--expires-at", options.expiresAt) }),
        ...(options.name === undefined ? {} : { name: options.name }),
        ...certificateOf(options.certificate),
      };
      const { key, token } = await callService(context, options, (client) => client.createServiceAccountKey(request));
      if (!key || (token === "") === (options.certificate === undefined)) throw new CliError("the service answered without a key");
      if (options.certificate !== undefined) return context.print(options.json ? JSON.stringify(facts(key)) : key.id);
      context.print(options.json ? JSON.stringify({ ...facts(key), token }) : token);
      context.note(`Keep the key ${key.tokenPrefix}… now: it is not stored and cannot be shown again.`);
    });

  command("list", "list the keys of a service account that are not revoked, newest first").action(async (options: Options) => {
    const { keys } = await callService(context, options, (client) => client.listServiceAccountKeys({ ...placeOf(options), offset: 0, limit: 1_000 }));
    if (options.json) return context.print(JSON.stringify(keys.map(facts)));
    for (const key of keys) context.print(`${key.id}  ${key.tokenPrefix}…  ends ${key.expiresAt?.toISOString() ?? "never"}  last used ${key.lastUsedAt?.toISOString() ?? "never"}  ${key.name}`);
  });

  command("revoke", "revoke a key: it is refused with its next call")
    .requiredOption("--key-id <uuid>", "the key")
    .action(async (options: Options) => {
      const keyId = uuid("--key-id", options.keyId);
      await callService(context, options, (client) => client.revokeServiceAccountKey({ ...placeOf(options), keyId }));
      context.print(options.json ? JSON.stringify({ id: keyId, revoked: true }) : `${keyId} revoked`);
    });
}
