import { isHost, SSL_MODES } from "./fields.ts";

/** Longest connection string that is read, in characters. */
const MAX_CHARACTERS = 8 * 1024;
/** Longest value of a parameter, in characters. */
const MAX_VALUE_CHARACTERS = 256;
/** The port a server listens on where nothing else is said. */
export const POSTGRES_PORT = 5432;

/** What a connection string says. */
export interface Connection {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  readonly database: string;
  /** Null where the string leaves it open. */
  readonly sslmode: string | null;
}

/** What a connection string demands of a session beyond its sslmode. */
export interface Demands {
  /** libpq's `channel_binding`: whether the login must be, may be or must not be bound to the TLS session (RFC 5802 section 6). */
  readonly channelBinding: "disable" | "prefer" | "require";
  /** The oldest version of TLS; never one older than 1.2, which RFC 8996 forbids. */
  readonly minTlsVersion: "TLSv1.2" | "TLSv1.3";
}

/** What holds where no connection string demands anything. */
export const NO_DEMANDS: Demands = { channelBinding: "prefer", minTlsVersion: "TLSv1.2" };

/** A connection string that was read, or the rule it breaks: a sentence that quotes nothing of it. */
export type ConnectionResult = { readonly connection: Connection; readonly demands: Demands } | { readonly broken: string };

class Broken extends Error {}

/** The settings of one string, by libpq's keywords. */
type Settings = ReadonlyMap<string, string>;

const ADDRESS_KEYS: ReadonlySet<string> = new Set(["host", "port", "user", "password", "dbname"]);

/**
 * Parameters that change neither where a client connects, nor as whom, nor which files it reads, nor what the server
 * runs. Everything else is refused: `hostaddr`, `service`, `passfile`, `sslcert`, `sslkey`, `sslrootcert`, `options`,
 * `replication` and whatever libpq or a driver will add.
 */
const HARMLESS: ReadonlySet<string> = new Set([
  "sslmode",
  "application_name",
  "fallback_application_name",
  "client_encoding",
  "connect_timeout",
  "tcp_user_timeout",
  "keepalives",
  "keepalives_idle",
  "keepalives_interval",
  "keepalives_count",
  "target_session_attrs",
  "channel_binding",
  "gssencmode",
  "sslsni",
  "sslcompression",
  "ssl_min_protocol_version",
  "ssl_max_protocol_version",
]);

const TLS_VERSIONS = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
/** Parameters that secure a connection, with libpq's values for them: a misspelt one would pass for a demand that is met. */
const CHOICES: Readonly<Record<string, readonly string[]>> = {
  sslmode: SSL_MODES,
  channel_binding: ["disable", "prefer", "require"],
  gssencmode: ["disable", "prefer", "require"],
  ssl_min_protocol_version: TLS_VERSIONS,
  ssl_max_protocol_version: TLS_VERSIONS,
};

const NOT_ALLOWED = `Of the parameters only these may be given: ${[...HARMLESS].join(", ")}`;
const ENCODE = "Reserved characters in a part of the URI must be percent-encoded";

/**
 * Reads a connection string of PostgreSQL, as a URI or as keywords and values (PostgreSQL's manual, "Connection
 * Strings"). It is stricter than libpq, so that every driver reads the same out of it: one host that is no socket, every
 * address part present, no part given twice, and only harmless parameters. Linear in the length of the string.
 */
export function parseConnectionString(text: string): ConnectionResult {
  try {
    if (text.length > MAX_CHARACTERS) throw new Broken(`Must not be longer than ${MAX_CHARACTERS} characters`);
    const authority = /^postgres(?:ql)?:\/\//.exec(text);
    const settings = authority ? settingsOfUri(text.slice(authority[0].length)) : settingsOfKeywords(text);
    return { connection: connectionOf(settings), demands: demandsOf(settings) };
  } catch (error) {
    if (error instanceof Broken) return { broken: error.message };
    throw error;
  }
}

function connectionOf(settings: Settings): Connection {
  const named = (key: string, what: string): string => {
    const value = settings.get(key);
    if (value === undefined || !/\S/.test(value)) throw new Broken(`Must name the ${what}`);
    return value;
  };
  const host = named("host", "host");
  if (!isHost(host)) throw new Broken("Must name one host by its name or IP address, not a socket or a list");
  const port = settings.get("port") ?? String(POSTGRES_PORT);
  if (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65_535) throw new Broken("The port must be a whole number from 1 to 65535");
  const sslmode = settings.get("sslmode") ?? null;
  return { host, port: Number(port), username: named("user", "user"), password: named("password", "password"), database: named("dbname", "database"), sslmode };
}

/** Every demand is either kept or refused: one that is passed over would leave a connection less safe than it says. */
function demandsOf(settings: Settings): Demands {
  for (const [key, choices] of Object.entries(CHOICES)) {
    const value = settings.get(key);
    if (value !== undefined && !choices.includes(value)) throw new Broken(`${key} must be one of ${choices.join(", ")}`);
  }
  if (settings.get("gssencmode") === "require") throw new Broken("gssencmode=require cannot be met: connections are encrypted with TLS, not with GSSAPI");
  const [oldest, newest] = [settings.get("ssl_min_protocol_version") ?? "TLSv1.2", settings.get("ssl_max_protocol_version") ?? "TLSv1.3"];
  if (TLS_VERSIONS.indexOf(oldest) > TLS_VERSIONS.indexOf(newest)) {
    throw new Broken("ssl_max_protocol_version must not be older than TLSv1.2, nor than ssl_min_protocol_version");
  }
  return { channelBinding: (settings.get("channel_binding") ?? "prefer") as Demands["channelBinding"], minTlsVersion: oldest === "TLSv1.3" ? oldest : "TLSv1.2" };
}

/** Collects settings and refuses repetition, control characters and parameters that are not allowed. */
function collector(allowed: ReadonlySet<string>) {
  const settings = new Map<string, string>();
  const add = (key: string, value: string): void => {
    if (!ADDRESS_KEYS.has(key) && !allowed.has(key)) throw new Broken(NOT_ALLOWED);
    if (settings.has(key)) throw new Broken("No part or parameter may be given twice");
    if (value.includes("\0")) throw new Broken("Must not contain a NUL character");
    if (allowed.has(key) && (value === "" || value.length > MAX_VALUE_CHARACTERS || hasControls(value))) {
      throw new Broken(`Values of parameters must be 1 to ${MAX_VALUE_CHARACTERS} printable characters`);
    }
    settings.set(key, value);
  };
  return { settings, add };
}

const hasControls = (text: string): boolean => /\p{Cc}/u.test(text);

/** Reads `user:password@host:port/database?parameters`, what follows the scheme (RFC 3986 section 3.2). */
function settingsOfUri(text: string): Settings {
  const { settings, add } = collector(HARMLESS);
  if (/[\s#\\]/.test(text) || hasControls(text)) throw new Broken(ENCODE);
  const [address, query, ...noMore] = text.split("?");
  if (noMore.length > 0) throw new Broken(ENCODE);
  const [authority, database, ...deeper] = (address ?? "").split("/");
  if (deeper.length > 0) throw new Broken(ENCODE);
  const [credentials, location, ...further] = (authority ?? "").split("@");
  if (further.length > 0) throw new Broken(ENCODE);
  if (location === undefined) throw new Broken("Must name the user and the password before the host");
  const colon = (credentials ?? "").indexOf(":");
  if (colon === -1) throw new Broken("Must name the password");
  add("user", decoded((credentials ?? "").slice(0, colon)));
  add("password", decoded((credentials ?? "").slice(colon + 1)));
  const place = /^(?:\[([0-9a-f:.]{2,45})\]|([^:[\]]*))(?::(\d{1,5}))?$/i.exec(location);
  if (place === null) throw new Broken("Must name one host, and one port at most");
  add("host", place[1] ?? place[2] ?? "");
  if (place[3] !== undefined) add("port", place[3]);
  add("dbname", decoded(database ?? ""));
  for (const pair of query === undefined ? [] : query.split("&")) {
    const [key, value, ...rest] = pair.split("=");
    if (value === undefined || rest.length > 0) throw new Broken("Parameters must be written as name=value, joined by &");
    addParameter(add, decoded(key ?? ""), decoded(value));
  }
  return settings;
}

/** Address parts belong before the `?`: after it they would override what a reader sees. libpq reads `ssl=true` as below. */
function addParameter(add: (key: string, value: string) => void, key: string, value: string): void {
  if (key === "ssl" && value === "true") return add("sslmode", "require");
  if (ADDRESS_KEYS.has(key)) throw new Broken(NOT_ALLOWED);
  add(key, value);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Broken("Percent-encoding must be two hexadecimal digits a byte, and UTF-8");
  }
}

/** What libpq's `isspace` takes for a space. */
const SPACE = /[ \t\n\r\v\f]/;

/** Reads `host=… port=…`: values may stand in single quotes, and a backslash takes the next character as it is. */
function settingsOfKeywords(text: string): Settings {
  const { settings, add } = collector(HARMLESS);
  let at = 0;
  const skipSpace = (): void => {
    while (at < text.length && SPACE.test(text.charAt(at))) at += 1;
  };
  for (skipSpace(); at < text.length; skipSpace()) {
    const start = at;
    while (at < text.length && text.charAt(at) !== "=" && !SPACE.test(text.charAt(at))) at += 1;
    const key = text.slice(start, at);
    skipSpace();
    if (text.charAt(at) !== "=") throw new Broken("Must be a postgresql:// URI, or name=value pairs with spaces between them");
    at += 1;
    skipSpace();
    const value = readValue(text, at);
    at = value.end;
    add(key, value.text);
  }
  return settings;
}

function readValue(text: string, from: number): { readonly text: string; readonly end: number } {
  const quoted = text.charAt(from) === "'";
  const ends = (character: string): boolean => (quoted ? character === "'" : SPACE.test(character));
  let value = "";
  let at = quoted ? from + 1 : from;
  for (; at < text.length && !ends(text.charAt(at)); at += 1) {
    if (text.charAt(at) === "\\") at += 1;
    value += text.charAt(at);
  }
  if (quoted && at >= text.length) throw new Broken("A quoted value must end with a quote");
  return { text: value, end: quoted ? at + 1 : at };
}
