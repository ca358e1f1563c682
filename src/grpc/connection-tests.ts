import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/credential_service.ts";
import type { SecretDocument } from "../domain/credential.ts";
import type { Checked, UseCases } from "../vault/use-cases.ts";
import * as parse from "./parse.ts";
import { unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";

const service = api.CredentialServiceService;

/** The RPCs of `CredentialService` that try a connection. */
type ConnectionTests = Extract<keyof typeof service, `test${string}`>;

/** Providers whose credentials the PostgreSQL test takes. */
const DATABASES = ["postgresql", "internal_postgresql"] as const;

/** What a test found, as it is told. */
function toTest({ result, durationMs }: Checked): { test: api.ConnectionTest } {
  const { success, layer, reason, message, nextStep, details } = result;
  return { test: { success, layer: layer ?? undefined, reason, message, nextStep, durationMs, details: { ...details } } };
}

/** The secret that the given fields of a request make up; those that are unset are not in it. */
function documentOf(fields: Readonly<Record<string, string | number | undefined>>): SecretDocument {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** What a PostgreSQL test needs unless a connection string says it. */
const FIELDS = ["host", "port", "username", "password", "database"] as const;

const text = z.string().optional();
const port = z.number().optional();

const sftp = z.object({
  host: parse.requiredText,
  port,
  username: parse.requiredText,
  authType: parse.sftpAuthType,
  password: text,
  privateKeyData: text,
  privateKeyPassphrase: text,
  testPath: parse.testPath,
  hostKeyFingerprint: text,
});

const postgres = z
  .object({ host: text, port, username: text, password: text, database: text, connectionString: text, sslmode: text, caCertificate: text })
  // Forms send a field that was left empty.
  .transform((input) => (input.connectionString === "" ? { ...input, connectionString: undefined } : input))
  .superRefine((input, ctx) => {
    if (input.connectionString !== undefined) return;
    for (const field of FIELDS) if (input[field] === undefined) parse.reportMissing(ctx, field);
  });

/** The RPCs that try a connection. */
export function connectionTests(deps: UnaryDeps, vault: UseCases): Record<ConnectionTests, UnaryRpc> {
  return {
    testSftpConnection: unary(deps, {
      action: "test_sftp_connection",
      method: service.testSftpConnection,
      request: api.TestSftpConnectionRequest,
      input: sftp,
      async run(grant, { authType, testPath, ...input }) {
        const secret = authType === "user_password" ? { password: input.password } : { private_key_data: input.privateKeyData, private_key_passphrase: input.privateKeyPassphrase };
        const document = documentOf({ host: input.host, port: input.port, username: input.username, host_key_fingerprint: input.hostKeyFingerprint, ...secret });
        return toTest(await vault.checkSecret(grant, { provider: "sftp", credentialType: authType, document, testPath }));
      },
    }),
    testPostgresConnection: unary(deps, {
      action: "test_postgres_connection",
      method: service.testPostgresConnection,
      request: api.TestPostgresConnectionRequest,
      input: postgres,
      async run(grant, { connectionString, caCertificate, ...fields }) {
        const document = documentOf({ ...fields, connection_string: connectionString, ca_certificate: caCertificate });
        return toTest(await vault.checkSecret(grant, { provider: "postgresql", credentialType: "user_password", document, testPath: "" }));
      },
    }),
    testPostgresCredential: unary(deps, {
      action: "test_postgres_credential",
      method: service.testPostgresCredential,
      request: api.TestPostgresCredentialRequest,
      input: z.object({ credentialId: parse.credentialId }),
      credentialId: (request) => request.credentialId,
      run: async (grant, { credentialId }) => toTest(await vault.checkStored(grant, { credentialId, providers: DATABASES })),
    }),
    testCredential: unary(deps, {
      action: "test_credential",
      method: service.testCredential,
      request: api.TestCredentialRequest,
      input: z.object({ credentialId: parse.credentialId }),
      credentialId: (request) => request.credentialId,
      run: async (grant, { credentialId }) => toTest(await vault.checkStored(grant, { credentialId, providers: null })),
    }),
  };
}
