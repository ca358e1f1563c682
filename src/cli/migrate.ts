import type { Command } from "commander";
import { loadConfig } from "../config.ts";
import type { Context } from "./context.ts";
import { CliError } from "./failure.ts";

const EXAMPLE = `
Example:
  $ CREDENTIALS_DATABASE_URL=… CREDENTIALS_DATABASE_MIGRATION_URL=… flow-credentials migrate`;

/** `migrate`: brings the database's schema up to date and prints what it applied. */
export function addMigrate(program: Command, context: Context): void {
  program
    .command("migrate")
    .description("apply the migrations that the database lacks")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action(async ({ json }: { readonly json?: true }) => {
      const config = loadConfig(context.env);
      // Loaded here alone: the whole service comes with it.
      const [{ runMigrations }, { startFailure }] = await Promise.all([import("../app.ts"), import("../serve.ts")]);
      const applied = await runMigrations(config).catch((error: unknown) => {
        throw new CliError(startFailure(error).replace(/^cannot start/, "cannot migrate"));
      });
      if (json) return context.print(JSON.stringify({ applied }));
      for (const name of applied) context.print(name);
      if (applied.length === 0) context.note("The schema is up to date.");
    });
}
