import { describe, expect, test } from "vitest";
import { CREDENTIAL_TYPES, type CredentialTypeName, MAX_SECRET_BYTES, type ProviderName, PROVIDERS, type SecretDocument } from "../../src/domain/credential.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import { accept, catalog, expose, providers } from "../../src/providers/index.ts";

const OPTIONS = { now: new Date("2030-01-01T00:00:00Z"), fairness: "organization", signal: new AbortController().signal };
const TAKEN: Record<ProviderName, readonly CredentialTypeName[]> = {
  microsoft: ["oauth2"],
  sharepoint: ["sharepoint_oauth", "oauth2"],
  sftp: ["user_password", "key_file"],
  aws_ses: ["api_key", "user_password"],
  google: ["google_oauth", "oauth2", "api_key"],
  postgresql: ["user_password"],
  internal_postgresql: ["user_password"],
};
const SFTP = { host: "files.example.com", username: "alice", password: "s3cret" };
const POSTGRES = { host: "db.example.com", username: "alice", password: "s3cret", database: "app" };
const SES = { access_key_id: "AKIAEXAMPLE", secret_access_key: "abc/def+", region: "eu-central-1" };
const SMTP = { username: "AKIAEXAMPLE", password: "s3cret", region: "eu-central-1" };

/** The faults of a document by key, or an empty object where it is accepted. */
async function faults(provider: ProviderName, type: CredentialTypeName, document: SecretDocument): Promise<Record<string, string>> {
  try {
    await accept(provider, type, document, OPTIONS);
    return {};
  } catch (error) {
    if (!(error instanceof CredentialError)) throw error;
    expect(error.reason).toBe("INVALID_CREDENTIALS");
    return Object.fromEntries(error.violations.map((violation) => [violation.path.join("."), violation.type]));
  }
}

const pairs = PROVIDERS.flatMap((provider) => CREDENTIAL_TYPES.map((type) => [provider, type] as const));

describe("which types a provider takes", () => {
  test.each(pairs)("%s with %s is taken or refused as documented", async (provider, type) => {
    const found = await faults(provider, type, {});
    expect("credential_type" in found).toBe(!TAKEN[provider].includes(type));
    expect(Object.keys(found)).not.toEqual([]);
  });

  test("the refusal names the types that the provider takes", async () => {
    await expect(accept("sftp", "oauth2", SFTP, OPTIONS)).rejects.toMatchObject({
      violations: [{ in: "body", path: ["credential_type"], message: "This provider takes user_password, key_file" }],
    });
  });
});

const shapes = [
  ["sftp", "user_password", SFTP],
  ["postgresql", "user_password", POSTGRES],
  ["internal_postgresql", "user_password", POSTGRES],
  ["aws_ses", "api_key", SES],
  ["aws_ses", "user_password", SMTP],
  ["google", "api_key", { api_key: "AIzaExample" }],
] as const;
const requiredKeys = shapes.flatMap(([provider, type, document]) => Object.keys(document).map((key) => ({ provider, type, document, key })));

describe("required keys", () => {
  test.each(requiredKeys)("$provider/$type refuses $key where it is missing, null, empty, blank or not text", async ({ provider, type, document, key }) => {
    const { [key]: _, ...without } = { ...document } as SecretDocument;
    const at = `credentials.${key}`;
    expect(await faults(provider, type, document)).toEqual({});
    expect(await faults(provider, type, without)).toEqual({ [at]: "missing" });
    for (const empty of ["", " ", "\t\r\n"]) expect(await faults(provider, type, { ...document, [key]: empty })).toEqual({ [at]: "value_error" });
    for (const wrong of [7, true, [], {}]) expect(await faults(provider, type, { ...document, [key]: wrong })).toEqual({ [at]: "string_type" });
    expect(Object.keys(await faults(provider, type, { ...document, [key]: null }))).toEqual([at]);
  });

  test("optional keys may be null, which says that they are not given", async () => {
    const { document } = await accept("sftp", "user_password", { ...SFTP, port: null, host_key_fingerprint: null }, OPTIONS);
    expect(document).toEqual(SFTP);
  });

  test("text is stored untouched, spaces around it included", async () => {
    const given = { ...SFTP, username: " alice ", password: "  päss\0wörd\n" };
    expect((await accept("sftp", "user_password", given, OPTIONS)).document).toEqual(given);
  });
});

describe("single fields", () => {
  test.each([1, 22, 65_535, "1", "2222", "65535"])("port %j becomes a number", async (port) => {
    expect((await accept("sftp", "user_password", { ...SFTP, port }, OPTIONS)).document["port"]).toBe(Number(port));
  });

  test.each([0, 65_536, -1, 22.5, "0", "65536", "22x", " 22", "0x16", "", "1e3", true, [22]])("port %j is refused", async (port) => {
    expect(Object.keys(await faults("sftp", "user_password", { ...SFTP, port }))).toEqual(["credentials.port"]);
  });

  test.each(["files.example.com", "files", "a_b.internal", "192.0.2.7", "2001:db8::1", "bücher.example", "files.example.com.", "xn--bcher-kva.example"])(
    "host %j is taken",
    async (host) => expect(await faults("sftp", "user_password", { ...SFTP, host })).toEqual({}),
  );

  test.each([
    "sftp://h", "h/path", "user@h", "h:22", "a b", "h\0", "[::1]", "fe80::1%eth0", "-h", "h..x", "a,b", "/run/ssh", "ａ＠ｂ", "x".repeat(64),
    "h\n", "bü\nx", "bü\u00adx", ".",
  ])(
    "host %j is refused",
    async (host) => expect(await faults("sftp", "user_password", { ...SFTP, host })).toEqual({ "credentials.host": "value_error" }),
  );

  test("a host key fingerprint is what OpenSSH prints, and nothing else", async () => {
    const fingerprint = `SHA256:${"a".repeat(42)}A`;
    expect(await faults("sftp", "user_password", { ...SFTP, host_key_fingerprint: fingerprint })).toEqual({});
    for (const wrong of [`${fingerprint}=`, "SHA256:abc", fingerprint.replace("SHA256", "MD5"), `SHA256:${"a".repeat(43)}`, "", `${fingerprint}\n`]) {
      expect(await faults("sftp", "user_password", { ...SFTP, host_key_fingerprint: wrong })).toHaveProperty(["credentials.host_key_fingerprint"]);
    }
  });

  test("names hold no NUL, and passwords of PostgreSQL none either", async () => {
    for (const key of ["username", "password", "database", "host"]) {
      expect(await faults("postgresql", "user_password", { ...POSTGRES, [key]: "a\0b" })).toEqual({ [`credentials.${key}`]: "value_error" });
    }
    expect(await faults("sftp", "user_password", { ...SFTP, username: "a\0b" })).toEqual({ "credentials.username": "value_error" });
  });

  test("sslmode is one of libpq's names", async () => {
    expect(await faults("postgresql", "user_password", { ...POSTGRES, sslmode: "verify-full" })).toEqual({});
    for (const sslmode of ["no-verify", "VERIFY-FULL", "", 1]) {
      expect(await faults("postgresql", "user_password", { ...POSTGRES, sslmode })).toEqual({ "credentials.sslmode": "enum" });
    }
  });

  test("SES over SMTP needs a region or a host, and derives the host from the region", async () => {
    const { region: _, ...neither } = SMTP;
    expect(await faults("aws_ses", "user_password", neither)).toEqual({ "credentials.region": "missing" });
    expect(expose("aws_ses", "user_password", SMTP).secret).toMatchObject({ value: { host: "email-smtp.eu-central-1.amazonaws.com", port: 587 } });
    const { document } = await accept("aws_ses", "user_password", { ...neither, host: "mail.example.com", port: "2587" }, OPTIONS);
    expect(expose("aws_ses", "user_password", document).secret).toMatchObject({ value: { host: "mail.example.com", port: 2587, region: "" } });
  });

  test.each(["eu-central-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1"])("region %s is taken", async (region) => {
    expect(await faults("aws_ses", "api_key", { ...SES, region })).toEqual({});
  });

  test.each(["eu", "EU-CENTRAL-1", "eu-central-1.evil.example", "eu-central-1/", "../x"])("region %j is refused", async (region) => {
    expect(await faults("aws_ses", "api_key", { ...SES, region })).toEqual({ "credentials.region": "value_error" });
  });
});

describe("documents of any shape", () => {
  const nest = (levels: number): unknown => (levels === 0 ? 1 : [nest(levels - 1)]);

  test("names that objects inherit are refused at every level, and change nothing", async () => {
    for (const key of ["__proto__", "constructor", "prototype", "toString"]) {
      const inner: unknown = JSON.parse(`{${JSON.stringify(key)}: {"polluted": 1}}`);
      for (const document of [{ ...SFTP, a: [{ b: inner }] }, Object.assign(JSON.parse(`{${JSON.stringify(key)}: 1}`) as SecretDocument, SFTP)]) {
        expect(await faults("sftp", "user_password", document)).toEqual({ credentials: "value_error" });
      }
    }
    expect(({} as SecretDocument)["polluted"]).toBeUndefined();
  });

  test("lone surrogates, numbers that JSON lacks, and what is no JSON are refused", async () => {
    for (const value of ["\ud800", Number.NaN, Number.POSITIVE_INFINITY, undefined, 1n, new Date(0), Buffer.from("x"), new Map(), () => 1]) {
      expect(await faults("sftp", "user_password", { ...SFTP, note: { value } })).toEqual({ credentials: "value_error" });
    }
    expect(await faults("sftp", "user_password", { ...SFTP, password: "\udc00x" })).toEqual({ "credentials.password": "value_error" });
    expect(await faults("sftp", "user_password", { ...SFTP, ["\ud800"]: 1 })).toEqual({ credentials: "value_error" });
  });

  test("a document is taken up to its largest size and refused beyond it", async () => {
    const padding = MAX_SECRET_BYTES - JSON.stringify({ ...SFTP, note: "" }).length;
    expect(await faults("sftp", "user_password", { ...SFTP, note: "x".repeat(padding) })).toEqual({});
    expect(await faults("sftp", "user_password", { ...SFTP, note: "x".repeat(padding + 1) })).toEqual({ credentials: "value_error" });
    expect(await faults("sftp", "user_password", { ...SFTP, note: "ä".repeat(padding) })).toEqual({ credentials: "value_error" });
  });

  test("nesting that would exhaust a stack is refused", async () => {
    expect(await faults("sftp", "user_password", { ...SFTP, note: nest(20) })).toEqual({});
    expect(await faults("sftp", "user_password", { ...SFTP, note: nest(5_000) })).toEqual({ credentials: "value_error" });
  });

  test("unknown keys are kept and come back as extra", async () => {
    const extra = { note: "x", nested: { list: [1, null, { a: true }] } };
    const { document } = await accept("sftp", "user_password", { ...SFTP, ...extra }, OPTIONS);
    expect(document).toEqual({ ...SFTP, ...extra });
    expect(expose("sftp", "user_password", document).extra).toEqual(extra);
  });
});

describe("the catalog", () => {
  const secretKeys = /password|secret|token$|passphrase|private_key_data|api_key|connection_string/;

  test("has one entry for each provider, with stable ids of version 5", () => {
    expect(catalog().map((entry) => entry.provider).toSorted()).toEqual([...PROVIDERS].toSorted());
    expect(new Set(catalog().map((entry) => entry.id)).size).toBe(PROVIDERS.length);
    for (const entry of catalog()) expect(entry.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(catalog().find((entry) => entry.name === "postgresql")?.id).toBe("b0671140-5625-5231-917d-0d1222ff735e");
  });

  test.each(catalog())("$name lists its types in order, with schemas of draft 2020-12 whose secrets are write-only", (entry) => {
    expect(entry.credentialTypes).toEqual(TAKEN[entry.provider]);
    expect(entry.credentialProviders.map((shape) => shape.name)).toEqual(entry.credentialTypes);
    for (const { credentialSchema, isOauth, name } of entry.credentialProviders) {
      expect(credentialSchema["$schema"]).toBe("https://json-schema.org/draft/2020-12/schema");
      expect(isOauth).toBe(providers[entry.provider].types[name]?.isOauth);
      for (const [key, field] of Object.entries(credentialSchema["properties"] as Record<string, SecretDocument>)) {
        expect(field["title"], key).toBeTypeOf("string");
        expect(field["description"], key).toBeTypeOf("string");
        if (secretKeys.test(key)) expect(field, key).toMatchObject({ writeOnly: true, format: "password" });
      }
    }
  });
});
