import { dirname } from "node:path";
import { type EmbeddedPostgres, startEmbedded } from "../../src/store/embedded.ts";
import { debianPostgres } from "../../test/support/debian-postgres.ts";

/**
 * Starts a PostgreSQL in a folder, durable as in production, only on a socket. Debian's, where it is installed, as one in production is built;
 * else the embedded one, which is compiled for its size and needs a quarter to a third more CPU for the service's statements.
 */
export function startPostgres(folder: string, settings: Readonly<Record<string, string>> = {}): Promise<EmbeddedPostgres> {
  const bin = debianPostgres();
  return startEmbedded(folder, { settings, ...(bin === undefined ? {} : { programs: dirname(bin) }) });
}
