import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import knexPackage from "knex";
import { expect, test } from "vitest";
import { type Migration, MIGRATION_TABLE, MIGRATIONS } from "../../src/store/migrations/index.ts";
import { connectionOf, freshDatabase } from "../support/postgres.ts";
import { blocksOf, Terminal } from "../support/runbook.ts";
import { rest, serviceEnv, startService, temporaryFolder, token } from "../support/service.ts";

test("a database of an earlier release is refused by a new replica, upgraded by the runbook's command, and then served", async () => {
  using folder = temporaryFolder();
  await using database = await freshDatabase("empty");
  const [earlier, missing] = [MIGRATIONS.slice(0, -2), MIGRATIONS.slice(-2)];
  const migrationSource = { getMigrations: async () => [...earlier], getMigrationName: ({ name }: Migration) => name, getMigration: async ({ up }: Migration) => ({ up, down: async () => {} }) };
  const knex = knexPackage.knex({ client: "pg", version: "18", connection: () => ({ ...connectionOf(database.ownerUrl) }), pool: { min: 0, max: 2 } });
  await knex.migrate.latest({ migrationSource, tableName: MIGRATION_TABLE });
  await knex.raw("grant usage on schema public to credentials_app");
  await knex.raw(`grant select on ${MIGRATION_TABLE} to credentials_app`);
  await knex.destroy();

  const { CREDENTIALS_DATABASE_MIGRATION_URL: _, ...env } = serviceEnv(database);
  await expect(startService(env)).rejects.toThrow(/behind|migrat/);
  writeFileSync(join(folder.path, "migration-url"), database.ownerUrl);
  writeFileSync(join(folder.path, "settings"), Object.entries(env).filter(([name]) => name !== "PATH").map(([name, value]) => `${name}='${value}'\n`).join(""));
  const terminal = new Terminal(folder.path, {});
  const [upgrade = ""] = blocksOf("Upgrade");
  expect(await terminal.run(upgrade)).toBe(missing.map(({ name }) => `${name}\n`).join(""));
  expect(await terminal.try(upgrade)).toMatchObject({ code: 0, stdout: "", stderr: "The schema is up to date.\n" });
  await using service = await startService(env);
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
  expect((await rest(service, "POST", "/integrations/credentials", { token: await token("user", randomUUID()), body })).status).toBe(201);
}, 60_000);
