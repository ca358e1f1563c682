import type { Command } from "commander";
import type { Provider as ProviderNumber } from "../client/service-accounts.ts";
import { addConnection, callAdmin, callService, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { CliError, usage } from "./failure.ts";
import { uuid, whole } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly org: string;
  readonly credential: string;
  readonly provider: string;
  readonly limit?: string;
  readonly olderThanDays?: string;
  readonly json?: true;
}

const ONE = "--org 22222222-2222-4222-8222-222222222222 --credential 11111111-1111-4111-8111-111111111111";
const EXAMPLE = `
Example:
  $ flow-credentials credential usage ${ONE}
  $ flow-credentials credential rollback ${ONE}
  $ flow-credentials credential purge --older-than-days 7`;
const LIMIT_EXAMPLE = `
Example:
  $ flow-credentials limit set --org 22222222-2222-4222-8222-222222222222 --provider sftp --limit 200`;

const MAX_DAYS = 36_500;
const MAX_LIMIT = 1_000_000;

/** `credential`: who uses one, going back to the secret before, bringing a deleted one back, purging. */
export function addCredential(program: Command, context: Context): void {
  const group = program.command("credential").description("single credentials, and what is left of deleted ones").addHelpText("after", EXAMPLE);
  const onOne = (name: string, description: string) =>
    addConnection(group.command(name))
      .description(description)
      .requiredOption("--org <uuid>", "its organization")
      .requiredOption("--credential <uuid>", "the credential")
      .option("--json", "print JSON")
      .addHelpText("after", EXAMPLE);
  const placeOf = (options: Options) => ({ organizationId: uuid("--org", options.org), credentialId: uuid("--credential", options.credential) });

  onOne("usage", "tell who resolved a credential, newest first").action(async (options: Options) => {
    const { uses } = await callAdmin(context, options, (admin) => admin.listCredentialUses(placeOf(options)));
    if (options.json) {
      const rows = uses.map((use) => ({ service_account_id: use.serviceAccountId, flow_id: use.flowId, last_run_id: use.lastRunId ?? null, last_used_at: use.lastUsedAt ?? null, uses: Number(use.uses) }));
      return context.print(JSON.stringify(rows));
    }
    for (const use of uses) context.print(`${use.lastUsedAt?.toISOString() ?? "-"}  service account ${use.serviceAccountId}  flow ${use.flowId || "-"}  run ${use.lastRunId ?? "-"}  ${use.uses} time(s)`);
    if (uses.length === 0) context.note("Nobody has resolved it.");
  });

  onOne("rollback", "go back to the secret before the newest one, while it is kept").action(async (options: Options) => {
    const place = placeOf(options);
    const { secretVersion } = await callService(context, options, (client) => client.rollbackCredential({ ...place, etag: "" }));
    context.print(options.json ? JSON.stringify({ id: place.credentialId, secret_version: Number(secretVersion) }) : `${place.credentialId} rolled back, as version ${secretVersion}`);
  });

  onOne("restore", "bring a deleted credential back, if the limits have room for it").action(async (options: Options) => {
    const { credential } = await callAdmin(context, options, (admin) => admin.restoreCredential(placeOf(options)));
    if (!credential) throw new CliError("the service answered without a credential");
    context.print(options.json ? JSON.stringify({ id: credential.id, restored: true }) : `${credential.id} restored`);
  });

  addConnection(group.command("purge"))
    .description("remove the secrets of deleted credentials, and superseded ones whose time is over")
    .option("--older-than-days <days>", "only of credentials that were deleted longer ago; else CREDENTIALS_PURGE_AFTER_DAYS of the service")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action(async (options: Options) => {
      const days = options.olderThanDays === undefined ? {} : { olderThanDays: whole("--older-than-days", options.olderThanDays, 0, MAX_DAYS) };
      const { credentials, previousSecrets } = await callAdmin(context, options, (admin) => admin.purgeDeleted(days));
      context.print(options.json ? JSON.stringify({ credentials: Number(credentials), previous_secrets: Number(previousSecrets) }) : `${credentials} deleted credential(s) and ${previousSecrets} superseded secret(s) purged`);
    });
}

/** `limit set`: sets how many credentials of a provider an organization may have. */
export function addLimit(program: Command, context: Context): void {
  const group = program.command("limit").description("limits of active credentials").addHelpText("after", LIMIT_EXAMPLE);
  addConnection(group.command("set"))
    .description("set or lift the limit of a provider in an organization")
    .requiredOption("--org <uuid>", "the organization")
    .requiredOption("--provider <name>", "the provider, such as sftp")
    .option("--limit <n>", "active credentials at most; without it, the installation's own limit holds again")
    .option("--json", "print JSON")
    .addHelpText("after", LIMIT_EXAMPLE)
    .action(async (options: Options) => {
      const { Provider } = await import("../client/service-accounts.ts");
      const provider = (Provider as Readonly<Record<string, unknown>>)[`PROVIDER_${options.provider.toUpperCase()}`] as ProviderNumber | undefined;
      if (!provider) throw usage("--provider must be a name such as sftp");
      const organizationId = uuid("--org", options.org);
      const limit = options.limit === undefined ? undefined : whole("--limit", options.limit, 1, MAX_LIMIT);
      await callAdmin(context, options, (admin) => admin.setCredentialLimit({ organizationId, provider, ...(limit === undefined ? {} : { limit }) }));
      const said = limit === undefined ? "the installation's own limit" : String(limit);
      context.print(options.json ? JSON.stringify({ organization_id: organizationId, provider: options.provider.toLowerCase(), limit: limit ?? null }) : `${options.provider.toLowerCase()}: ${said}`);
    });
}
