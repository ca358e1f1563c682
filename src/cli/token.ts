import type { Command } from "commander";
import type { Context } from "./context.ts";
import { developmentConfig, developmentToken, type Holder, OPERATOR } from "./development.ts";
import { usage } from "./failure.ts";
import { uuid, whole } from "./values.ts";

interface Options {
  readonly org?: string;
  readonly user?: string;
  readonly serviceAccount?: string;
  readonly operator?: true;
  readonly role?: string;
  readonly expiresIn: string;
  readonly json?: true;
}

const EXAMPLE = `
Example:
  $ flow-credentials token --org 22222222-2222-4222-8222-222222222222 --user 11111111-1111-4111-8111-111111111111`;

const YEAR_SECONDS = 31_536_000;

/** `token`: prints a token for development and nothing else. */
export function addToken(program: Command, context: Context): void {
  program
    .command("token")
    .description("print a token for a user, a service account or an operator (development profile only)")
    .option("--org <uuid>", "organization of the user or the service account")
    .option("--user <uuid>", "token of a user")
    .option("--service-account <uuid>", "token of a service account")
    .option("--role <role>", "role of the user inside the organization, such as org_admin")
    .option("--operator", "token of an operator")
    .option("--expires-in <seconds>", "how long the token works", "3600")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action(async (options: Options) => {
      const holder = holderOf(options);
      const seconds = whole("--expires-in", options.expiresIn, 1, YEAR_SECONDS);
      const token = await developmentToken(developmentConfig(context.env, "tokens are made"), holder, seconds);
      context.print(options.json ? JSON.stringify({ token }) : token);
    });
}

function holderOf({ org, user, serviceAccount, operator, role }: Options): Holder {
  if ([user, serviceAccount, operator].filter((given) => given !== undefined).length !== 1) {
    throw usage("give exactly one of --user, --service-account and --operator");
  }
  if (role !== undefined && user === undefined) throw usage("--role goes with --user");
  if (operator) {
    if (org !== undefined) throw usage("--org does not go with --operator: operators belong to no organization");
    return OPERATOR;
  }
  if (org === undefined) throw usage("--org is required for a user or a service account");
  const organizationId = uuid("--org", org);
  if (user !== undefined) return { kind: "user", id: uuid("--user", user), organizationId, role };
  return { kind: "service_account", id: uuid("--service-account", serviceAccount ?? ""), organizationId };
}
