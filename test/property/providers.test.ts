import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { CredentialTypeName, ProviderName, SecretDocument } from "../../src/domain/credential.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import { NO_DEMANDS, parseConnectionString } from "../../src/providers/connection-string.ts";
import { accept, expose, providers } from "../../src/providers/index.ts";

const RUNS = process.env["FLOW_TEST_LONG"] ? 5_000 : 300;
const OPTIONS = { now: new Date("2030-01-01T00:00:00Z"), fairness: "organization", signal: new AbortController().signal };
// The short run is the same every time; the long one looks further with each.
if (!process.env["FLOW_TEST_LONG"]) fc.configureGlobal({ seed: 20_300_101 });
const CANARY = "c4nary5ecret";

const pairs = Object.values(providers).flatMap(({ provider, types }) => (Object.keys(types) as CredentialTypeName[]).map((type) => ({ provider, type })));
const pair = fc.constantFrom(...pairs);
const allKeys = [
  ...new Set(pairs.flatMap(({ provider, type }) => Object.keys((providers[provider].types[type] as { schema: { shape?: object } }).schema.shape ?? {}))),
  "type", "note", "__proto__", "constructor",
];

/** Everything that is said of an error, its causes included. */
function told(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const violations = error instanceof CredentialError ? JSON.stringify(error.violations) : "";
  return `${error.name} ${error.message} ${error.stack} ${violations} ${error.cause === undefined ? "" : told(error.cause)}`;
}

const planted = fc.oneof(
  fc.constant(CANARY),
  fc.string({ maxLength: 20 }).map((text) => text + CANARY),
  fc.constantFrom("PRIVATE KEY", "CERTIFICATE", "OPENSSH PRIVATE KEY").map((label) => `-----BEGIN ${label}-----\n${CANARY}`),
  fc.constantFrom("ssh-rsa ", "SHA256:", "2030-01-01T", "verify-").map((start) => start + CANARY),
  fc.constantFrom(`postgres://u:${CANARY}@h`, `postgres://u:${CANARY}%@h/d`, `postgres://u:p@h/d?${CANARY}=1`),
  fc.constantFrom(`host=h user=u password=${CANARY}`, `host=${CANARY}/ x=1`),
  fc.constantFrom(`\ud800${CANARY}`, `${CANARY}\0`, `https://${CANARY}.example`, `../${CANARY}`),
  fc.constantFrom<unknown>([CANARY], { [CANARY]: CANARY }, { a: [{ __proto__: null, b: CANARY }] }, 7, true, null, Number.NaN),
);
const documents = fc.dictionary(fc.constantFrom(...allKeys, CANARY), planted, { noNullPrototype: true });

describe("no error quotes a value", () => {
  test("whatever the document and wherever the canary in it", async () => {
    await fc.assert(
      fc.asyncProperty(pair, documents, async ({ provider, type }, document) => {
        const refused: unknown = await accept(provider, type, document, OPTIONS).then(() => null, (error: unknown) => error);
        if (refused === null) return;
        expect(refused).toBeInstanceOf(CredentialError);
        expect(told(refused)).not.toContain(CANARY);
      }),
      { numRuns: RUNS },
    );
  });
});

const name = fc.stringMatching(/^[a-z][a-z0-9]{0,10}$/);
const host = fc.tuple(name, name).map((labels) => labels.join("."));
const text = fc.string({ unit: "binary", minLength: 1, maxLength: 40 }).filter((value) => /\S/.test(value) && value.isWellFormed() && !value.includes("\0"));
const visible = fc.string({ minLength: 1, maxLength: 40 }).filter((value) => /\S/.test(value));
const port = fc.integer({ min: 1, max: 65_535 });
const anyPort = port.chain((value) => fc.constantFrom<number | string>(value, String(value)));
const extras = fc.dictionary(
  fc.stringMatching(/^x_[a-z]{1,8}$/),
  // Keys of letters only are left out: names that every object has are among them, and those are refused.
  fc.jsonValue({ maxDepth: 4, stringUnit: "grapheme" }).filter((value) => !/"(?:__|[a-zA-Z]+":)/.test(JSON.stringify(value))),
  { noNullPrototype: true, maxKeys: 3 },
);

/** Good documents of a shape, and the fields an executor must find in what is exposed. */
interface Good {
  provider: ProviderName;
  type: CredentialTypeName;
  document: SecretDocument;
  value: SecretDocument;
}
const good: readonly (readonly [string, fc.Arbitrary<Good>])[] = [
  [
    "sftp/user_password",
    fc.record({ host, port: anyPort, username: text, password: text }).map((document) => ({
      provider: "sftp",
      type: "user_password",
      document,
      value: { ...document, port: Number(document.port), hostKeyFingerprint: "" },
    })),
  ],
  [
    "postgresql/user_password",
    fc.record({ host, port: anyPort, username: text, password: text, database: text }).map((document) => ({
      provider: "postgresql",
      type: "user_password",
      document,
      value: { ...document, port: Number(document.port), sslmode: "prefer", caCertificate: "", connectionString: "" },
    })),
  ],
  [
    "google/oauth2",
    fc.record({ access_token: visible, refresh_token: visible, client_secret: visible, id_token: visible }).map((document) => ({
      provider: "google",
      type: "oauth2",
      document,
      value: { accessToken: document.access_token, tokenType: "Bearer", scopes: [], tenantId: "", siteUrl: "" },
    })),
  ],
  [
    "aws_ses/api_key",
    fc.record({ access_key_id: visible, secret_access_key: visible }).map((document) => ({
      provider: "aws_ses",
      type: "api_key",
      document: { ...document, region: "eu-central-1" },
      value: { accessKeyId: document.access_key_id, secretAccessKey: document.secret_access_key, region: "eu-central-1", sessionToken: "" },
    })),
  ],
];

describe("what was accepted comes out as it went in", () => {
  test.each(good)("%s", async (_, arbitrary) => {
    await fc.assert(
      fc.asyncProperty(arbitrary, extras, async ({ provider, type, document, value }, extra) => {
        const accepted = await accept(provider, type, { ...document, ...extra }, OPTIONS);
        const exposed = expose(provider, type, accepted.document);
        expect(exposed.secret.value).toEqual(value);
        expect(exposed.extra).toEqual(extra);
        expect((await accept(provider, type, accepted.document, OPTIONS)).document).toEqual(accepted.document);
      }),
      { numRuns: RUNS },
    );
  });
});

describe("OAuth credentials keep to themselves what an executor must not have", () => {
  const withheld = fc.constantFrom("refresh_token", "id_token", "client_secret", "refreshToken", "idToken", "CLIENT_SECRET", "client-secret");
  const holders = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof({ maxDepth: 3 }, fc.constant(CANARY), fc.dictionary(withheld, tie("value")), fc.array(tie("value"), { maxLength: 2 })),
  })).value;

  test("at any depth of the extra keys", async () => {
    const oauth = fc.constantFrom(...pairs.filter(({ provider, type }) => providers[provider].types[type]?.isOauth));
    await fc.assert(
      fc.asyncProperty(oauth, withheld, holders, async ({ provider, type }, key, inner) => {
        const token = { [key]: key.includes("_") && key === key.toLowerCase() ? CANARY : inner };
        const nested = { wrapper: { [key]: inner }, list: [{ [key]: inner }] };
        const { document } = await accept(provider, type, { access_token: "t", ...token, ...nested }, OPTIONS);
        expect(JSON.stringify(expose(provider, type, document))).not.toContain(CANARY);
      }),
      { numRuns: RUNS },
    );
  });
});

describe("connection strings", () => {
  const part = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }).filter((value) => /\S/.test(value) && !value.includes("\0"));
  const parts = fc.record({ host, port, username: part, password: part, database: part });

  test("a URI whose parts are percent-encoded is read back part by part", () => {
    fc.assert(
      fc.property(parts, (given) => {
        const [user, password, database] = [given.username, given.password, given.database].map(encodeURIComponent);
        const uri = `postgresql://${user}:${password}@${given.host}:${given.port}/${database}`;
        expect(parseConnectionString(uri)).toEqual({ connection: { ...given, sslmode: null }, demands: NO_DEMANDS });
      }),
      { numRuns: RUNS },
    );
  });

  test("keywords whose values are quoted are read back value by value", () => {
    const quoted = (value: string | number): string => `'${String(value).replace(/[\\']/g, "\\$&")}'`;
    fc.assert(
      fc.property(parts, ({ host: at, port: number, username, password, database }) => {
        const pairsText = `host=${at} port=${number} user=${quoted(username)} password = ${quoted(password)} dbname=${quoted(database)}`;
        expect(parseConnectionString(pairsText)).toEqual({ connection: { host: at, port: number, username, password, database, sslmode: null }, demands: NO_DEMANDS });
      }),
      { numRuns: RUNS },
    );
  });

  test("any text at all is read or refused, and a refusal quotes nothing", () => {
    const reserved = [..."'\\@:/?&=% []#,\0"];
    const piece = fc.constantFrom("postgres://", "postgresql://", "host=", "user=", "%41", "h", "1", CANARY, ...reserved);
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const result = parseConnectionString(pieces.join(""));
        if ("broken" in result) expect(result.broken).not.toContain(CANARY);
      }),
      { numRuns: RUNS * 10 },
    );
  });
});
