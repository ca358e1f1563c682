import type { Command } from "commander";
import type { Provider as ProviderNumber, ServiceAccount } from "../client/service-accounts.ts";
import { addConnection, callService, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { CliError, usage } from "./failure.ts";
import { uuid, words } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly org: string;
  readonly serviceAccount: string;
  readonly name: string;
  readonly description?: string;
  readonly everything?: true;
  readonly providers?: string;
  readonly credentials?: string;
  readonly json?: true;
}

const EXAMPLE = `
Example:
  $ flow-credentials service-account create --org 22222222-2222-4222-8222-222222222222 --name executor
  $ flow-credentials service-account grant --org 22222222-2222-4222-8222-222222222222 \\
      --service-account 33333333-3333-4333-8333-333333333333 --providers sftp,postgresql`;

/** Longest name, in characters. */
const MAX_NAME = 255;

/** Accounts that are listed with one call. */
const PAGE = 1_000;

const ACTIVE = 1;
const INACTIVE = 2;

/** An account as JSON. */
function facts(account: ServiceAccount, providerName: (number: number) => string): Record<string, unknown> {
  const { id, organizationId, name, description = null, createdAt = null, updatedAt = null, modifiedBy, status, access, lastUsedAt = null } = account;
  const granted = access?.everything ? "everything" : { providers: access?.providers.map(providerName) ?? [], credential_ids: access?.credentialIds ?? [] };
  return {
    id, organization_id: organizationId, name, description, status: status === ACTIVE ? "active" : "inactive", access: granted,
    created_at: createdAt, updated_at: updatedAt, modified_by: modifiedBy, last_used_at: lastUsedAt,
  };
}

const PREFIX = "PROVIDER_";

/** Providers by their numbers and back, from the generated enum; loaded with the client. */
async function providers() {
  const { Provider } = await import("../client/service-accounts.ts");
  const names = Provider as Readonly<Record<string, unknown>>;
  return {
    name: (number: number): string => (Object.keys(names).find((name) => names[name] === number) ?? "").replace(PREFIX, "").toLowerCase(),
    number(word: string): ProviderNumber {
      const number = names[PREFIX + word.toUpperCase()] as ProviderNumber | undefined;
      if (!number) throw usage("--providers must be names such as sftp, separated by commas");
      return number;
    },
  };
}

/** `service-account`: makes, lists, narrows, stops and deletes service accounts. */
export function addServiceAccount(program: Command, context: Context): void {
  const group = program.command("service-account").description("service accounts, which resolve credentials").addHelpText("after", EXAMPLE);
  const command = (name: string, description: string) =>
    addConnection(group.command(name)).description(description).requiredOption("--org <uuid>", "its organization").option("--json", "print JSON").addHelpText("after", EXAMPLE);
  const onOne = (name: string, description: string) => command(name, description).requiredOption("--service-account <uuid>", "the service account");
  const placeOf = (options: Options) => ({ organizationId: uuid("--org", options.org), serviceAccountId: uuid("--service-account", options.serviceAccount) });
  const show = async (options: Options, account: ServiceAccount | undefined, plain: (account: ServiceAccount) => string) => {
    if (!account) throw new CliError("the service answered without a service account");
    context.print(options.json ? JSON.stringify(facts(account, (await providers()).name)) : plain(account));
  };

  command("create", "make a service account and print its id")
    .requiredOption("--name <name>", "a name for people, 1 to 255 characters")
    .option("--description <text>", "what it is for")
    .action(async (options: Options) => {
      if (options.name === "" || options.name.length > MAX_NAME) throw usage(`--name must have 1 to ${MAX_NAME} characters`);
      const request = { organizationId: uuid("--org", options.org), name: options.name, ...(options.description === undefined ? {} : { description: options.description }) };
      const { serviceAccount } = await callService(context, options, (client) => client.createServiceAccount(request));
      await show(options, serviceAccount, ({ id }) => id);
    });

  command("list", "list the service accounts of an organization, newest first").action(async (options: Options) => {
    const organizationId = uuid("--org", options.org);
    const accounts = await callService(context, options, async (client) => {
      const all: ServiceAccount[] = [];
      for (;;) {
        const { serviceAccounts } = await client.listServiceAccounts({ organizationId, offset: all.length, limit: PAGE });
        all.push(...serviceAccounts);
        if (serviceAccounts.length < PAGE) return all;
      }
    });
    const { name } = await providers();
    if (options.json) return context.print(JSON.stringify(accounts.map((account) => facts(account, name))));
    for (const account of accounts) {
      context.print(`${account.id}  ${account.status === ACTIVE ? "active  " : "inactive"}  ${account.access?.everything ? "everything" : "narrowed  "}  last used ${account.lastUsedAt?.toISOString() ?? "never"}  ${account.name}`);
    }
  });

  for (const [name, status, description] of [["disable", INACTIVE, "refuse a service account and its keys from its next call on"], ["enable", ACTIVE, "let a disabled service account in again"]] as const) {
    onOne(name, description).action(async (options: Options) => {
      const { serviceAccount } = await callService(context, options, (client) => client.updateServiceAccount({ ...placeOf(options), status }));
      await show(options, serviceAccount, ({ id }) => `${id} ${name}d`);
    });
  }

  onOne("delete", "delete a service account and revoke its keys").action(async (options: Options) => {
    const place = placeOf(options);
    await callService(context, options, (client) => client.deleteServiceAccount(place));
    context.print(options.json ? JSON.stringify({ id: place.serviceAccountId, deleted: true }) : `${place.serviceAccountId} deleted`);
  });

  onOne("grant", "say which credentials a service account may touch, in the place of what was said before")
    .option("--everything", "every credential of its organization")
    .option("--providers <names>", "every credential of these providers, such as sftp,postgresql")
    .option("--credentials <uuids>", "these credentials, separated by commas")
    .action(async (options: Options) => {
      const { number } = await providers();
      const request = {
        ...placeOf(options),
        everything: options.everything === true,
        providers: words(options.providers).map(number),
        credentialIds: words(options.credentials).map((text) => uuid("--credentials", text)),
      };
      if (request.everything && request.providers.length + request.credentialIds.length > 0) throw usage("--everything goes without --providers and --credentials");
      const { serviceAccount } = await callService(context, options, (client) => client.setServiceAccountAccess(request));
      await show(options, serviceAccount, ({ id }) => `${id} granted`);
    });
}
