import { z } from "zod";
import type { SecretDocument } from "../domain/credential.ts";
import { checkPostgresql, type PostgresqlTarget } from "./checks/postgresql.ts";
import { type Connection, type Demands, NO_DEMANDS, POSTGRES_PORT, parseConnectionString } from "./connection-string.ts";
import { caCertificate, host, identifier, port, secretLine, SSL_MODES, sslmode } from "./fields.ts";
import type { CredentialShape, Provider } from "./provider.ts";
import { numberAt, shape, textAt } from "./shape.ts";
import { fault } from "./structure.ts";

const address = {
  host: host(),
  port: port(POSTGRES_PORT).optional(),
  username: identifier("User name", "Role to log in as"),
  password: secretLine("Password", "The role's password"),
  database: identifier("Database", "Database to connect to"),
};

const security = { sslmode: sslmode().optional(), ca_certificate: caCertificate().optional() };

const connectionString = secretLine(
  "Connection string",
  "A postgresql:// URI or libpq's keywords and values; it wins over host, port, username, password and database",
);

const byFields = z.looseObject({ ...address, ...security });
/** Beside a connection string the fields of the address are not looked at. */
const byString = z.looseObject({ ...security, connection_string: connectionString });

const catalogued = z
  .looseObject({ ...z.looseObject(address).partial().shape, ...security, connection_string: connectionString.optional() })
  .meta({
    title: "PostgreSQL",
    description: "A role of a PostgreSQL database, by fields or by a connection string",
    anyOf: [{ required: ["host", "username", "password", "database"] }, { required: ["connection_string"] }],
  });

/** Where a document connects: what its connection string says, or its fields. */
function connectionOf(document: SecretDocument): Connection {
  const read = parseConnectionString(textAt(document, "connection_string"));
  if ("connection" in read) return read.connection;
  return {
    host: textAt(document, "host"),
    port: numberAt(document, "port", POSTGRES_PORT),
    username: textAt(document, "username"),
    password: textAt(document, "password"),
    database: textAt(document, "database"),
    sslmode: null,
  };
}

/** What its connection string demands of the session. */
function demandsOf(document: SecretDocument): Demands {
  const read = parseConnectionString(textAt(document, "connection_string"));
  return "demands" in read ? read.demands : NO_DEMANDS;
}

/** How far its connection is secured: what the connection string says, or the field, or libpq's default. */
const sslmodeOf = (document: SecretDocument, connection: Connection): PostgresqlTarget["sslmode"] =>
  SSL_MODES.find((mode) => mode === (connection.sslmode ?? textAt(document, "sslmode"))) ?? "prefer";

const passwordShape = shape({
  schema: catalogued,
  schemaFor: (document) => (document["connection_string"] === undefined ? byFields : byString),
  check(document) {
    if (document["connection_string"] === undefined) return [];
    const read = parseConnectionString(textAt(document, "connection_string"));
    if ("broken" in read) return [fault("connection_string", "value_error", read.broken)];
    const { sslmode: inString } = read.connection;
    const disagree = inString !== null && document["sslmode"] !== undefined && document["sslmode"] !== inString;
    return disagree ? [fault("sslmode", "value_error", "The connection string gives another sslmode, and which of the two wins is unclear: give it once")] : [];
  },
  secret(document) {
    const connection = connectionOf(document);
    return {
      $case: "postgresql",
      value: {
        ...connection,
        sslmode: sslmodeOf(document, connection),
        caCertificate: textAt(document, "ca_certificate"),
        connectionString: textAt(document, "connection_string"),
      },
    };
  },
});

const userPassword: CredentialShape = {
  ...passwordShape,
  check(document, io) {
    const connection = connectionOf(document);
    const [sslmode, caCertificate] = [sslmodeOf(document, connection), textAt(document, "ca_certificate")];
    return checkPostgresql({ ...connection, sslmode, caCertificate, demands: demandsOf(document) }, io);
  },
};

/** PostgreSQL databases of the organization's own. */
export const postgresql: Provider = {
  provider: "postgresql",
  displayName: "PostgreSQL",
  description: "A PostgreSQL database of the organization's own",
  category: "database",
  types: { user_password: userPassword },
};

/** PostgreSQL databases that the platform runs. */
export const internalPostgresql: Provider = {
  ...postgresql,
  provider: "internal_postgresql",
  displayName: "Internal PostgreSQL",
  description: "A PostgreSQL database that the platform runs for the organization",
};
