import type { Command } from "commander";
import { addConnection, callAdmin, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { usage } from "./failure.ts";
import { uuid } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly org: string;
  readonly yes?: true;
  readonly json?: true;
}

const EXAMPLE = `
Example:
  $ flow-credentials organization destroy --org 22222222-2222-4222-8222-222222222222 --yes`;

/** `organization destroy`: destroys the keys of an organization. */
export function addOrganization(program: Command, context: Context): void {
  const group = program.command("organization").description("organizations as a whole").addHelpText("after", EXAMPLE);
  addConnection(group.command("destroy"))
    .description("destroy every key of an organization: nobody can open its secrets any more, and it cannot be undone")
    .requiredOption("--org <uuid>", "the organization")
    .option("--yes", "required: says that it is meant")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action(async (options: Options) => {
      const organizationId = uuid("--org", options.org);
      if (!options.yes) throw usage("--yes is required: what is destroyed cannot be brought back");
      const { destroyedKeys } = await callAdmin(context, options, (admin) => admin.destroyOrganization({ organizationId }));
      context.print(options.json ? JSON.stringify({ organization_id: organizationId, destroyed_keys: destroyedKeys }) : `${destroyedKeys} key(s) destroyed`);
      context.note("Replicas let go of their cached keys within a minute. Backups made before still hold the wrapped keys.");
    });
}
