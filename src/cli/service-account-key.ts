import type { Command } from "commander";
import { addConnection, callService, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { CliError } from "./failure.ts";
import { time, uuid } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly org: string;
  readonly serviceAccount: string;
  readonly expiresAt?: string;
  readonly json?: true;
}

const EXAMPLE = `
Example:
  $ flow-credentials service-account-key create --org 22222222-2222-4222-8222-222222222222 \\
      --service-account 33333333-3333-4333-8333-333333333333 > executor.key`;

/** `service-account-key create`: prints a new API key, once. */
export function addServiceAccountKey(program: Command, context: Context): void {
  const group = program.command("service-account-key").description("API keys of service accounts").addHelpText("after", EXAMPLE);
  addConnection(group.command("create"))
    .description("make an API key and print it; it is shown once")
    .requiredOption("--org <uuid>", "organization of the service account")
    .requiredOption("--service-account <uuid>", "the service account")
    .option("--expires-at <time>", "when the key stops working, such as 2030-01-31T12:00:00Z; without it, never")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action(async (options: Options) => {
      const request = {
        organizationId: uuid("--org", options.org),
        serviceAccountId: uuid("--service-account", options.serviceAccount),
        ...(options.expiresAt === undefined ? {} : { expiresAt: time("--expires-at", options.expiresAt) }),
      };
      const { key, token } = await callService(context, options, (client) => client.createServiceAccountKey(request));
      if (!key || token === "") throw new CliError("the service answered without a key");
      const { id, serviceAccountId, tokenPrefix, createdAt = null, expiresAt = null } = key;
      const facts = { id, service_account_id: serviceAccountId, token_prefix: tokenPrefix, created_at: createdAt, expires_at: expiresAt };
      context.print(options.json ? JSON.stringify({ ...facts, token }) : token);
      context.note(`Keep the key ${tokenPrefix}… now: it is not stored and cannot be shown again.`);
    });
}
