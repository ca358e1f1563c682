import type { Command } from "commander";
import { addConnection, callService, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { CliError, usage } from "./failure.ts";
import { uuid } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly org: string;
  readonly name: string;
  readonly json?: true;
}

const EXAMPLE = `
Example:
  $ flow-credentials service-account create --org 22222222-2222-4222-8222-222222222222 --name executor`;

/** Longest name, in characters. */
const MAX_NAME = 255;

/** `service-account create`: prints the id of a new service account. */
export function addServiceAccount(program: Command, context: Context): void {
  const group = program.command("service-account").description("service accounts, which resolve credentials").addHelpText("after", EXAMPLE);
  addConnection(group.command("create"))
    .description("make a service account and print its id")
    .requiredOption("--org <uuid>", "its organization")
    .requiredOption("--name <name>", "a name for people, 1 to 255 characters")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action(async (options: Options) => {
      const organizationId = uuid("--org", options.org);
      if (options.name === "" || options.name.length > MAX_NAME) throw usage(`--name must have 1 to ${MAX_NAME} characters`);
      const request = { organizationId, name: options.name };
      const { serviceAccount } = await callService(context, options, (client) => client.createServiceAccount(request));
      if (!serviceAccount) throw new CliError("the service answered without a service account");
      const { id, name, createdAt = null } = serviceAccount;
      context.print(options.json ? JSON.stringify({ id, organization_id: serviceAccount.organizationId, name, created_at: createdAt }) : id);
    });
}
