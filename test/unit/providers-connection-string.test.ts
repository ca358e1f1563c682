import { describe, expect, test } from "vitest";
import { type Connection, type Demands, NO_DEMANDS, parseConnectionString } from "../../src/providers/connection-string.ts";
import { accept, expose } from "../../src/providers/index.ts";

const OPTIONS = { now: new Date("2030-01-01T00:00:00Z"), fairness: "organization", signal: new AbortController().signal };
const plain: Connection = { host: "db.example.com", port: 5432, username: "u", password: "p", database: "d", sslmode: null };

const readable: readonly (readonly [string, Partial<Connection>])[] = [
  ["postgres://u:p@db.example.com/d", {}],
  ["postgresql://u:p@db.example.com:5432/d?sslmode=verify-full&application_name=my%20app", { sslmode: "verify-full" }],
  ["postgresql://u:p@db.example.com/d?ssl=true", { sslmode: "require" }],
  ["postgresql://us%40er:p%3A%2F%3F%23%5B%5D%40%25ä@db.example.com/d%2Fb", { username: "us@er", password: "p:/?#[]@%ä", database: "d/b" }],
  ["postgresql://u:a:b+c@db.example.com/d", { password: "a:b+c" }],
  ["postgresql://u:p@[2001:db8::1]:6432/d", { host: "2001:db8::1", port: 6432 }],
  ["host=db.example.com user=u password=p dbname=d", {}],
  [
    "  host = db.example.com\n\tport=6432 user=u password='it\\'s a \\\\ b' dbname=d connect_timeout=5 sslmode=require ",
    { port: 6432, password: "it's a \\ b", sslmode: "require" },
  ],
  ["host=db.example.com user=u password=a\\ b dbname='d e'", { password: "a b", database: "d e" }],
];

const uri = (query: string) => `postgres://u:C4NARY@db.example.com/d?${query}`;
const pairs = (more: string) => `host=db.example.com user=u password=C4NARY dbname=d ${more}`;
const hostile: readonly string[] = [
  "", " ", "C4NARY", "http://u:C4NARY@h/d", "POSTGRES://u:C4NARY@h/d", "jdbc:postgresql://h/d?password=C4NARY",
  "postgres://u:C4NARY@h", "postgres://u:C4NARY@h/", "postgres://u:C4NARY@/d", "postgres://:C4NARY@h/d", "postgres://C4NARY@h/d",
  "postgres://C4NARY:@h/d", "postgres://h/C4NARY",
  "postgres://u:C4NARY@h1,h2/d", "postgres://u:C4NARY@h1:1,h2:2/d", "postgres://u:C4NARY@%2Fvar%2Frun/d", "postgres://u:C4NARY@/d?host=/var/run",
  "postgres://u:C4NARY@h:/d",
  "postgres://u:C4NARY@h:0/d", "postgres://u:C4NARY@h:65536/d", "postgres://u:C4NARY@h:99999999999/d", "postgres://u:C4NARY@[::1/d",
  "postgres://u:C4NARY@[fe80::1%25eth0]/d",
  "postgres://u:C4NARY%@h/d", "postgres://u:C4NARY%zz@h/d", "postgres://u:C4NARY%ff@h/d", "postgres://u:C4NARY%00@h/d",
  "postgres://u:C4NARY@evil@h/d", "postgres://u:C4NARY@h/d/e",
  "postgres://u:C4NARY@h/d#x", "postgres://u:C4NARY@h\\x/d", "postgres://u:C4 NARY@h/d", "postgres://u:C4NARY\n@h/d", "postgres://u:C4NARY@h/d?a?b",
  "postgres://u:%20@h/d",
  ...["host=evil", "hostaddr=192.0.2.1", "port=1", "user=x", "password=x"].map(uri),
  ...["dbname=x", "sslrootcert=/etc/passwd", "sslcert=/x", "sslkey=/x", "sslpassword=x", "sslcrl=/x"].map(uri),
  ...["service=x", "servicefile=/x", "passfile=/x", "options=-c%20x", "replication=database"].map(uri),
  ...["krbsrvname=x", "gsslib=x", "requirepeer=x", "sslmode=no-verify", "sslmode=", "ssl=false"].map(uri),
  ...["sslmode=require&sslmode=disable", "ssl=true&sslmode=disable", "sslmode", "=x", "a=b=c"].map(uri),
  ...["channel_binding=required", "gssencmode=require", "gssencmode=on", "ssl_min_protocol_version=TLSv1.4", "ssl_min_protocol_version=1.3"].map(uri),
  ...["ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2", "ssl_max_protocol_version=TLSv1.1", "ssl_max_protocol_version=none"].map(uri),
  ...["&", "ssl%6Dode=no-verify", "%73ervice=x", "__proto__=x", "application_name=a%0ab", "application_name="].map(uri),
  `${uri("application_name=")}${"x".repeat(257)}`,
  ...["host=evil", "hostaddr=192.0.2.1", "sslrootcert=/etc/passwd", "service=x", "passfile='/x'"].map(pairs),
  ...["options='-c x'", "replication=1", "sslmode=no-verify", "x", "=", "constructor=x"].map(pairs),
  ...["password=again", "dbname='unended", "application_name='a\nb'", "port=0", "port=x", "\0", "ssl=true"].map(pairs),
  "host=/var/run user=u password=C4NARY dbname=d", "host=a,b user=u password=C4NARY dbname=d", "host=@sock user=u password=C4NARY dbname=d",
  "host='' user=u password=C4NARY dbname=d",
  "user=u password=C4NARY dbname=d", "host=h password=C4NARY dbname=d", "host=h user=u dbname=C4NARY", "host=h user=u password=C4NARY",
  "host=h user=u password='' dbname=C4NARY",
  "host=h user=u password= dbname=C4NARY",
];

describe("reading a connection string", () => {
  test.each(readable)("%s", (text, expected) => {
    expect(parseConnectionString(text)).toEqual({ connection: { ...plain, ...expected }, demands: NO_DEMANDS });
  });

  test.each<readonly [string, Partial<Demands>]>([
    ["channel_binding=require", { channelBinding: "require" }],
    ["channel_binding=prefer&gssencmode=prefer", {}],
    ["channel_binding=disable&gssencmode=disable", { channelBinding: "disable" }],
    ["ssl_min_protocol_version=TLSv1.3", { minTlsVersion: "TLSv1.3" }],
    ["ssl_min_protocol_version=TLSv1.2&ssl_max_protocol_version=TLSv1.2", {}],
    ["ssl_min_protocol_version=TLSv1&ssl_max_protocol_version=TLSv1.3", {}],
  ])("%s is demanded, in both forms", (query, expected) => {
    for (const text of [uri(query), pairs(query.replace("&", " "))]) expect(parseConnectionString(text)).toMatchObject({ demands: { ...NO_DEMANDS, ...expected } });
  });

  test("GSSAPI encryption that is required is refused with a sentence of its own", () => {
    for (const text of [uri("gssencmode=require"), pairs("gssencmode=require")]) expect(parseConnectionString(text)).toEqual({ broken: expect.stringContaining("GSSAPI") });
  });

  test.each(hostile)("%j is refused, and the rule quotes nothing of it", async (text) => {
    const result = parseConnectionString(text);
    expect(result).toHaveProperty("broken");
    expect(JSON.stringify(result)).not.toMatch(/C4NARY|evil|passwd|192\.0/);
    const refused = await accept("postgresql", "user_password", { connection_string: text }, OPTIONS).catch((error: unknown) => error);
    expect(refused).toMatchObject({ reason: "INVALID_CREDENTIALS", violations: [{ path: ["credentials", "connection_string"] }] });
    expect(JSON.stringify(refused)).not.toContain("C4NARY");
  });

  test("long adversarial texts are refused by their length before they are read", () => {
    for (const unit of ["postgres://", "a=", "'", "\\", "%", "@", ":", "/", "?", "&", "=", " ", "host='"]) {
      for (const start of ["", "postgres://", "host='"]) {
        expect(parseConnectionString(start + unit.repeat(100_000))).toEqual({ broken: "Must not be longer than 8192 characters" });
        expect(parseConnectionString((start + unit.repeat(8_192)).slice(0, 8_192))).toHaveProperty("broken");
      }
    }
  });
});

describe("a PostgreSQL credential", () => {
  const fields = { host: "other.example.com", port: "1", username: "x", password: "y", database: "z" };

  test("by connection string needs no field, and the string wins over fields whatever they hold", async () => {
    const connection_string = "postgres://u:p@db.example.com/d?sslmode=require";
    for (const beside of [{}, fields, { host: "", port: "", username: 7, password: null, database: "" }]) {
      const { document } = await accept("postgresql", "user_password", { ...beside, connection_string }, OPTIONS);
      expect(document["connection_string"]).toBe(connection_string);
      expect(expose("postgresql", "user_password", document)).toEqual({
        secret: {
          $case: "postgresql",
          value: { ...plain, sslmode: "require", caCertificate: "", connectionString: connection_string },
        },
        extra: {},
        expiresAt: null,
      });
    }
  });

  test("an sslmode beside a string counts where the string has none, and is checked in any case", async () => {
    const connection_string = "postgres://u:p@db.example.com/d";
    const { document } = await accept("postgresql", "user_password", { connection_string, sslmode: "verify-full" }, OPTIONS);
    expect(expose("postgresql", "user_password", document).secret).toMatchObject({ value: { sslmode: "verify-full" } });
    await expect(accept("postgresql", "user_password", { connection_string, sslmode: "no-verify" }, OPTIONS)).rejects.toThrow("Invalid request data");
  });

  test("an sslmode beside a string that gives another one is refused by its name, and the same one is not", async () => {
    const connection_string = "postgres://u:C4NARY@db.example.com/d?sslmode=verify-full";
    for (const sslmode of ["prefer", "require", "disable"]) {
      const refused = await accept("postgresql", "user_password", { connection_string, sslmode }, OPTIONS).catch((error: unknown) => error);
      expect(refused).toMatchObject({ reason: "INVALID_CREDENTIALS", violations: [{ path: ["credentials", "sslmode"], message: expect.stringContaining("unclear") }] });
      expect(JSON.stringify(refused)).not.toContain("C4NARY");
    }
    for (const same of [{ sslmode: "verify-full" }, { sslmode: null }, {}]) {
      const { document } = await accept("postgresql", "user_password", { connection_string, ...same }, OPTIONS);
      expect(expose("postgresql", "user_password", document).secret).toMatchObject({ value: { sslmode: "verify-full" } });
    }
  });

  test("by fields is exposed with libpq's defaults, for both providers", async () => {
    const { port: _, ...withoutPort } = fields;
    for (const provider of ["postgresql", "internal_postgresql"] as const) {
      const { document } = await accept(provider, "user_password", { ...withoutPort, connection_string: null }, OPTIONS);
      const value = { ...withoutPort, port: 5432, sslmode: "prefer", caCertificate: "", connectionString: "" };
      expect(expose(provider, "user_password", document).secret).toEqual({ $case: "postgresql", value });
    }
  });

  test("an empty or wrongly typed connection string is refused even beside good fields", async () => {
    for (const connection_string of ["", " ", 7, {}]) {
      await expect(accept("postgresql", "user_password", { ...fields, connection_string }, OPTIONS)).rejects.toMatchObject({
        violations: [{ path: ["credentials", "connection_string"] }],
      });
    }
  });
});
