import { randomBytes } from "node:crypto";
import pg from "pg";
import { inject } from "vitest";
import { parseDatabaseUrl } from "../../src/store/connection.ts";

/** Migrated database that fresh ones are cloned from. */
export const TEMPLATE = "flow_credentials_template";

/** A database of one test file's own. */
export interface FreshDatabase extends AsyncDisposable {
  readonly name: string;
  readonly applicationUrl: string;
  readonly ownerUrl: string;
  readonly superuserUrl: string;
}

/** Fields for the driver of a URL. */
export const connectionOf = (url: string) => ({ ...parseDatabaseUrl(url) });

/** The same URL for another database of the server. */
export const onDatabase = (url: string, database: string): string => url.replace(/@\/[^?]*/, `@/${database}`);

/** A connection that closes with its block. */
export async function connect(url: string): Promise<pg.Client & AsyncDisposable> {
  const client = new pg.Client(connectionOf(url));
  client.on("error", () => {});
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}

/** Clones the migrated template, or makes an empty database; dropped at the end of the block, with whoever is still connected. */
export async function freshDatabase(content: "migrated" | "empty" = "migrated"): Promise<FreshDatabase> {
  const urls = inject("postgres");
  const name = `test_${randomBytes(6).toString("hex")}`;
  await using server = await connect(urls.superuserUrl);
  await server.query(`create database ${name} owner credentials_owner ${content === "migrated" ? `template ${TEMPLATE}` : ""}`);
  return {
    name,
    applicationUrl: onDatabase(urls.applicationUrl, name),
    ownerUrl: onDatabase(urls.ownerUrl, name),
    superuserUrl: onDatabase(urls.superuserUrl, name),
    async [Symbol.asyncDispose]() {
      await using again = await connect(urls.superuserUrl);
      await again.query(`drop database if exists ${name} with (force)`);
    },
  };
}
