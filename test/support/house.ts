/** The rules of the house as data, and the checks that read source text. Each check gives its faults, one line each. */

/** One source file: its path from the project's root, with slashes, and its text. */
export interface Source {
  readonly path: string;
  readonly text: string;
}

/** Root files of `src` that put the process together; together they are the group `app`. */
const COMPOSITION = ["app", "authorization", "background", "certificates", "failpoints", "gauges", "serve", "announce", "issuer", "key-gauges", "master-keys", "metrics", "oauth-access", "otlp", "process", "tracing", "upkeep"];
const EVERYTHING = ["auth", "config", "crypto", "domain", "egress", "events", "grpc", "log", "providers", "rest", "settings", "store", "trace", "vault"];

/** Files that are a group of their own: each is where a process begins, and nothing imports it. */
const STARTS: Readonly<Record<string, string>> = { "src/egress/probe-child.ts": "probe" };

/** Which group of `src` may import which, besides itself. Whatever is not listed may not. */
export const ARROWS: Readonly<Record<string, readonly string[]>> = {
  main: ["app"],
  app: EVERYTHING,
  // `auth` for the development token, which the service's own code signs; `crypto` for the import of Fernet tokens, whose keys
  // never reach the service, and `store` for the table they are read from; `domain` for the chain of an audit export, which is
  // checked without the service.
  cli: ["app", "auth", "client", "config", "crypto", "domain", "store"],
  client: ["gen"],
  rest: ["gen"],
  grpc: ["vault", "auth", "domain", "gen"],
  vault: ["providers", "store", "crypto", "domain"],
  events: ["store", "crypto", "domain"],
  providers: ["domain"],
  auth: ["domain"],
  store: ["domain"],
  crypto: ["domain"],
  egress: ["domain"],
  // The process of a connection test brings the tests and the ways out together.
  probe: ["domain", "egress", "providers"],
  // Describes the interface as REST serves it; only the build runs it.
  openapi: ["domain", "providers", "rest"],
  config: ["domain", "settings"],
  settings: [],
  log: ["log-lines", "trace"],
  "log-lines": [],
  trace: [],
  domain: [],
};

/** Groups that everyone may import, and whether only their types. */
const SHARED: Readonly<Record<string, "values" | "types">> = { log: "values", trace: "values", config: "types", settings: "types" };
/** Groups that stand below the shared ones. */
const BELOW = ["domain", "settings", "trace", "log-lines", "log", "config"];

/** Which groups may import a package. A package that is not listed may be imported nowhere. */
export const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "@aws-sdk/client-kms": ["crypto"],
  "@aws-sdk/client-sesv2": ["providers"],
  "@azure/msal-node": ["providers"],
  "@bufbuild/protobuf": ["grpc", "rest", "openapi"],
  "@opentelemetry/api": ["app"],
  "@opentelemetry/resources": ["app"],
  "@opentelemetry/sdk-trace": ["app"],
  "@grpc/grpc-js": ["grpc", "rest", "client"],
  "google-auth-library": ["providers"],
  "grpc-health-check": ["grpc"],
  commander: ["cli"],
  fastify: ["rest"],
  "ipaddr.js": ["egress"],
  "jsonc-parser": ["rest"],
  jose: ["auth", "providers"],
  knex: ["store"],
  // The client of the service's own database, and of the databases that tenants have tested.
  pg: ["store", "providers"],
  pino: ["log", "log-lines"],
  "prom-client": ["app"],
  ssh2: ["providers"],
  "swagger-ui-dist": ["rest"],
  ulid: ["log"],
  zod: ["cli", "domain", "settings", "auth", "grpc", "providers"],
};

/** Node's network modules: what may be taken from them as a value, and by whom. Types are free, and `egress` may take all. */
const NETWORK: Readonly<Record<string, readonly string[]>> = {
  isIP: ["*"], isIPv4: ["*"], isIPv6: ["*"], BlockList: ["*"], STATUS_CODES: ["rest"], createServer: ["rest", "grpc"],
};
const NETWORK_MODULES = /^(?:node:)?(?:net|tls|http|https|http2|dgram|dns|dns\/promises)$/;

/** Text that may stand only in files whose path below `src/` matches. */
const WORDS: readonly { readonly pattern: RegExp; readonly where: RegExp; readonly rule: string }[] = [
  { pattern: /\bprocess\.env\b/, where: /^(main\.ts|cli\/)/, rule: "the environment is read in main.ts and cli" },
  { pattern: /\bconsole\./, where: /^cli\/main\.ts$/, rule: "console is for cli/main.ts" },
  { pattern: /\b(createCipheriv|createDecipheriv|hkdf|hkdfSync|createHmac)\b|\b(scrypt|pbkdf2)(Sync)?\(/, where: /^crypto\//, rule: "ciphers and key derivation are in crypto" },
  { pattern: /[`"']\s*(select\s[^`"']*\sfrom\s|insert into\s|update\s+\w+\s+set\s|delete from\s|create table\s|alter table\s)/i, where: /^store\//, rule: "SQL is in store" },
  {
    // A method that is named fetch is declared without one of these before it.
    pattern: /(?:\b(?:await|return|void|yield)|[=>(,:?&|])\s*fetch\(|\bglobalThis\.fetch\b|\bnew (Socket|WebSocket|EventSource)\b|\b(net|tls|http|https|http2)\.(connect|request|get|createConnection)\(/,
    where: /^egress\//,
    rule: "sockets to the outside are opened in egress",
  },
  { pattern: /\bas (unknown as )?Grant\b/, where: /^vault\/gate\.ts$/, rule: "grants are made in vault/gate.ts" },
  { pattern: /@ts-(ignore|expect-error|nocheck)\b|\boxlint-disable\b|\beslint-disable\b/, where: /^$/, rule: "no checks are switched off" },
  { pattern: /\benum\s+\w+\s*\{|\bnamespace\s+\w+\s*\{/, where: /^$/, rule: "only syntax that type stripping erases" },
];

/** Text without comments: block comments that begin a line, and line comments after a space. */
export const withoutComments = (text: string): string =>
  text.replace(/^[ \t]*\/\*[\s\S]*?\*\//gm, "").replace(/(^|\s)\/\/ .*$/gm, "$1");

/** One import or re-export. */
interface Import {
  readonly specifier: string;
  readonly typesOnly: boolean;
  /** Names as exported there; a namespace or default import is `*` or `default`. */
  readonly names: readonly string[];
}

const FROM = /^(?:import|export)\s+(type\s+)?([^;'"]*?)\s*from\s*["']([^"']+)["']/gm;
const BARE = /^import\s+["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)|\brequire\(\s*["']([^"']+)["']\s*\)/gm;

/** Every import of a file, dynamic ones and type queries included. */
export function importsOf(text: string): Import[] {
  const code = withoutComments(text);
  const found: Import[] = [];
  for (const [, type, clause = "", specifier = ""] of code.matchAll(FROM)) {
    const braces = /\{([^}]*)\}/.exec(clause)?.[1] ?? "";
    const named = braces.split(",").map((part) => part.trim()).filter((part) => part !== "");
    const outside = clause.replace(/\{[^}]*\}/, "").replaceAll(",", "").trim();
    const values = named.filter((name) => !name.startsWith("type ")).map((name) => name.split(/\s+as\s+/)[0] as string);
    if (outside !== "") values.push(outside.startsWith("*") ? "*" : "default");
    found.push({ specifier, typesOnly: type !== undefined || values.length === 0, names: type === undefined ? values : [] });
  }
  for (const match of code.matchAll(BARE)) found.push({ specifier: match[1] ?? match[2] ?? match[3] ?? "", typesOnly: false, names: ["*"] });
  return found;
}

/** Which group of `src` a path belongs to; `gen` and foreign folders are their own. */
export function groupOf(path: string): string {
  const start = STARTS[path];
  if (start !== undefined) return start;
  const [top = "", next = ""] = path.split("/");
  const name = top === "src" ? next.replace(/\.ts$/, "") : top;
  return top === "src" && COMPOSITION.includes(name) && next.endsWith(".ts") ? "app" : name;
}

/** Resolves a relative specifier against the file that holds it, both from the project's root. */
export const resolved = (from: string, specifier: string): string => new URL(specifier, `file:///${from}`).pathname.slice(1);

/** Imports that no arrow allows, by a file of `src`. */
export function arrowFaults({ path, text }: Source): string[] {
  const group = groupOf(path);
  const allowed = ARROWS[group];
  if (!allowed) return [`${path}: ${group} is not a folder of the house`];
  const faults: string[] = [];
  for (const { specifier, typesOnly, names } of importsOf(text)) {
    if (specifier.startsWith(".")) {
      const target = groupOf(resolved(path, specifier));
      const shared = BELOW.includes(group) ? undefined : SHARED[target];
      const free = target === group || allowed.includes(target) || shared === "values" || (shared === "types" && typesOnly);
      if (!free) faults.push(`${path}: ${group} may not import ${shared === "types" ? "values of " : ""}${target}`);
      if (!specifier.endsWith(".ts")) faults.push(`${path}: ${specifier} must end in .ts`);
    } else if (NETWORK_MODULES.test(specifier)) {
      for (const name of names) if (!NETWORK[name]?.some((may) => may === "*" || may === group) && group !== "egress") faults.push(`${path}: ${group} may not use ${name} of ${specifier}`);
    } else if (!specifier.startsWith("node:")) {
      const name = specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
      if (!PACKAGES[name]?.includes(group)) faults.push(`${path}: ${group} may not import ${name}`);
    }
  }
  return faults;
}

/** Words that stand where they may not, in a file of `src`. */
export function wordFaults({ path, text }: Source): string[] {
  const code = withoutComments(text);
  const below = path.replace(/^src\//, "");
  return WORDS.filter(({ pattern, where }) => !where.test(below) && pattern.test(code)).map(({ rule }) => `${path}: ${rule}`);
}

/** Cipher calls without an explicit tag length: Node would accept a tag cut down to four bytes. */
export function cipherFaults({ path, text }: Source): string[] {
  const calls = withoutComments(text).matchAll(/\bcreate(?:De)?[Cc]ipheriv\(([^;]*?)\);/g);
  return [...calls].filter(([call]) => !call.includes("authTagLength")).map(([call]) => `${path}: ${call.slice(0, 60)} has no authTagLength`);
}

/** Longest file of ours, in lines. */
export const MAX_LINES = 300;

/** Files over the cap. */
export function lengthFaults({ path, text }: Source): string[] {
  const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
  return lines > MAX_LINES ? [`${path}: ${lines} lines, and ${MAX_LINES} are the most`] : [];
}

/** Exported declarations without a doc comment. One that follows another export directly belongs to its group. */
export function docFaults({ path, text }: Source): string[] {
  const lines = text.split("\n");
  const faults: string[] = [];
  for (const [index, line] of lines.entries()) {
    const name = /^export (?:declare )?(?:abstract )?(?:async )?(?:const|let|function\*?|class|interface|type) (\w+)/.exec(line)?.[1];
    if (name === undefined) continue;
    const before = lines[index - 1]?.trimEnd() ?? "";
    const grouped = before.startsWith("export ") || /^(\} as const|\] as const|\}|\])[^(]*;$/.test(before);
    if (!before.endsWith("*/") && !grouped) faults.push(`${path}:${index + 1}: ${name} has no doc comment`);
  }
  return faults;
}

/** Words that no committed file may hold; written in halves, so that this file is not one of them. */
const FORBIDDEN: readonly RegExp[] = [
  new RegExp(["\\.\\.", "shared"].join("/")),
  new RegExp(`["'\`\\s(]/${"work"}/`),
  new RegExp(`\\b(TO${"DO"}|FIX${"ME"}|XX${"X"})\\b`),
  new RegExp(`\\b(contract|security|performance|toolchain|style|design)\\.${"md"}\\b`),
];
const PRIVATE_KEY = /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:\s|\\n)*[A-Za-z0-9+/=]{40,}/;

/** Words and keys that may not be committed, in any text file. */
export function forbiddenFaults({ path, text }: Source): string[] {
  const found = FORBIDDEN.map((pattern) => pattern.exec(text)?.[0]).filter((word) => word !== undefined);
  if (!path.startsWith("test/") && PRIVATE_KEY.test(text)) found.push("a private key");
  return found.map((word) => `${path}: holds ${word.trim()}`);
}
