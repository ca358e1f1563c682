import { readFileSync } from "node:fs";
import { StoreSetupError } from "./errors.ts";

/** Where the database is and who connects, as the driver takes it. Every field is given, so that it asks no PG* variable. */
export interface ConnectionFields {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** A function, so that the password is on no object that could be printed. */
  readonly password: () => string;
  /** TLS with full verification, or none. */
  readonly ssl: false | { readonly host: string; readonly rejectUnauthorized: true; readonly ca?: string };
  readonly application_name: string;
  /** Longest time until a connection stands, ms. */
  readonly connectionTimeoutMillis: number;
  readonly keepAlive: true;
  /** Silence on an idle connection after which the other end is asked for a sign of life, ms; ten are asked for, a second apart. */
  readonly keepAliveInitialDelayMillis: number;
}

const URL_FORM = /^postgres(?:ql)?:\/\/(?:([^:@/?#]*)(?::([^@/?#]*))?@)?(\[[^\]]+\]|[^:@/?#]*)(?::(\d{1,5}))?(?:\/([^?#]*))?(?:\?([^#]*))?$/;
const PARAMETERS = ["host", "port", "user", "password", "dbname", "sslmode"];
const SSL_MODES = ["disable", "require", "verify-ca", "verify-full"];

/**
 * Reads a libpq connection URI (PostgreSQL documentation 34.1.1.2), the socket form `postgresql://role@/db?host=/dir`
 * included, of which the common URL parsers make nothing. Every `sslmode` but `disable` verifies certificate and name;
 * the modes that fall back to plaintext are refused. Throws StoreSetupError, which never quotes the URL.
 */
export function parseDatabaseUrl(url: string, caFile?: string): ConnectionFields {
  const match = URL_FORM.exec(url);
  if (!match) throw new StoreSetupError("the database URL is not of the form postgresql://user:password@host:port/database");
  const parameters = parametersOf(match[6] ?? "");
  const part = (index: number): string | undefined => (match[index] ? decoded(match[index]) : undefined);
  const host = parameters.get("host") ?? part(3)?.replace(/^\[|\]$/g, "") ?? "localhost";
  const port = Number(parameters.get("port") ?? match[4] ?? 5432);
  const user = parameters.get("user") ?? part(1);
  const password = parameters.get("password") ?? part(2) ?? "";
  if (user === undefined) throw new StoreSetupError("the database URL names no user");
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new StoreSetupError("the database URL has no valid port");
  return {
    host,
    port,
    user,
    database: parameters.get("dbname") ?? part(5) ?? user,
    password: () => password,
    ssl: tlsOf(host, parameters.get("sslmode"), caFile),
    application_name: "flow-credentials",
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    // A peer that vanished without a word is noticed while nobody waits for it; the system's own delay is two hours.
    keepAliveInitialDelayMillis: 5_000,
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new StoreSetupError("the database URL has a malformed percent-encoding");
  }
}

function parametersOf(query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const pair of query.split("&").filter((text) => text !== "")) {
    const [name = "", ...rest] = pair.split("=");
    if (!PARAMETERS.includes(name)) throw new StoreSetupError(`the database URL may only have the parameters ${PARAMETERS.join(", ")}`);
    parameters.set(name, decoded(rest.join("=")));
  }
  return parameters;
}

function tlsOf(host: string, mode: string | undefined, caFile: string | undefined): ConnectionFields["ssl"] {
  if (mode !== undefined && !SSL_MODES.includes(mode)) throw new StoreSetupError(`sslmode in the database URL must be one of ${SSL_MODES.join(", ")}`);
  if (caFile === undefined) return mode === undefined || mode === "disable" ? false : { host, rejectUnauthorized: true };
  if (mode === "disable") throw new StoreSetupError("the database URL turns TLS off although a certificate authority is set");
  try {
    return { host, rejectUnauthorized: true, ca: readFileSync(caFile, "utf8") };
  } catch {
    throw new StoreSetupError("the file with the database's certificate authority cannot be read");
  }
}
