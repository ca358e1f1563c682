import type { Json } from "./schemas.ts";

/** What a field of a message looks like, by its name; under a message's name, where one name means several things. */
const FIELDS: Readonly<Record<string, Json>> = {
  id: "123e4567-e89b-12d3-a456-426614174000",
  credential_id: "123e4567-e89b-12d3-a456-426614174000",
  user_id: "11111111-1111-4111-8111-111111111111",
  created_at: "2026-01-23T15:30:00.000Z",
  updated_at: "2026-01-23T15:30:00.000Z",
  modified_by: "11111111-1111-4111-8111-111111111111",
  provider: "sftp",
  credential_type: "user_password",
  google_email: null,
  name: null,
  status: "active",
  status_reason: null,
  status_since: "2026-01-23T15:30:00.000Z",
  token_expires_at: null,
  etag: "1",
  success: false,
  layer: "auth",
  reason: "ssh_password_refused",
  message: "The server refused this user name and password.",
  next_step: "Check user name and password, also for spaces at their ends.",
  duration_ms: 412,
  details: { server: "OpenSSH 9.2", host_key_type: "ssh-ed25519", credential_checked: true },
  last_used_at: "2026-01-24T03:00:00.000Z",
  service_account_id: "33333333-3333-4333-8333-333333333333",
  key_id: "44444444-4444-4444-8444-444444444444",
  organization_id: "22222222-2222-4222-8222-222222222222",
  flow_id: "invoices",
  last_run_id: "42",
  uses: "17",
  previous_kept_until: null,
  secret_version: "2",
  "ServiceAccount.id": "33333333-3333-4333-8333-333333333333",
  "ServiceAccount.name": "executor",
  "ServiceAccount.description": null,
  everything: true,
  providers: [],
  credential_ids: [],
  "ServiceAccountKey.name": "executor",
  "ServiceAccountKey.description": null,
  "ServiceAccountKey.user_id": null,
  "IssuedServiceAccountKey.name": "executor",
  "IssuedServiceAccountKey.description": null,
  "IssuedServiceAccountKey.user_id": null,
  token_prefix: "saf_org_22222222_33333333_ab12",
  expires_at: null,
  token: "saf_org_22222222_33333333_…",
  "Integration.name": "sftp",
  "Integration.provider": "sftp",
  category: "storage",
  display_name: "SFTP",
  description: "An SFTP server",
  credential_types: ["user_password", "key_file"],
  is_plugin: false,
  is_oauth: false,
  "CredentialProvider.name": "user_password",
  credential_schema: { type: "object", required: ["host", "username", "password"] },
  authorization_url: "https://accounts.google.com/o/oauth2/v2/auth?response_type=code&state=…",
  access: { everything: false, providers: ["sftp"], credential_ids: [] },
  "ServiceAccountKey.id": "44444444-4444-4444-8444-444444444444",
  "IssuedServiceAccountKey.id": "44444444-4444-4444-8444-444444444444",
  "IssuedServiceAccountKey.last_used_at": null,
  used_by: [{ service_account_id: "33333333-3333-4333-8333-333333333333", flow_id: "invoices", last_run_id: "run-7", last_used_at: "2026-01-23T15:30:00.000Z", uses: "41" }],
  host: "sftp.example.com",
  port: 22,
  username: "demo",
  password: "demo",
  host_key_fingerprint: "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
};

/** An example of a field. Throws where there is none, so that no operation goes without. */
export function exampleOf(field: string, message?: string): Json {
  const found = FIELDS[`${message}.${field}`] ?? FIELDS[field];
  if (found === undefined) throw new Error(`there is no example of ${message === undefined ? "" : `${message}.`}${field}`);
  return found;
}

const SFTP = { host: "sftp.example.com", username: "demo", password: "demo" };

/** Requests as somebody would write them, by RPC and by a name for each. */
const REQUESTS: Readonly<Record<string, Readonly<Record<string, Json>>>> = {
  CreateCredential: {
    "SFTP with a password": { provider: "sftp", credential_type: "user_password", credentials: SFTP },
    "PostgreSQL by connection string": { provider: "postgresql", credential_type: "user_password", credentials: { connection_string: "postgresql://demo:demo@db.example.com/data?sslmode=verify-full" } },
  },
  UpdateCredential: { "A new password": { credential_type: "user_password", credentials: { ...SFTP, password: "demo-2" } } },
  CreateServiceAccount: { "An executor": { name: "executor", description: "Runs the nightly flows" } },
  UpdateServiceAccount: { "Stop it": { status: "inactive" } },
  SetServiceAccountAccess: { "One provider and one credential": { providers: ["sftp"], credential_ids: ["123e4567-e89b-12d3-a456-426614174000"] }, "Everything": { everything: true } },
  CreateServiceAccountKey: { "With an end": { name: "blue cluster", expires_at: "2030-01-31T12:00:00Z" } },
  UpdateServiceAccountKey: { "Another name": { name: "green cluster" } },
  TestSftpConnection: { "With a password": { ...SFTP, auth_type: "password", test_path: "/upload" } },
  TestPostgresConnection: {
    "By fields": { host: "db.example.com", username: "demo", password: "demo", database: "data", sslmode: "verify-full" },
    "By connection string": { connection_string: "postgresql://demo:demo@db.example.com/data?sslmode=verify-full" },
  },
};

/** The examples of an RPC's request, as OpenAPI writes them. Throws where there are none. */
export function requestExamples(rpc: string): Json {
  const found = REQUESTS[rpc];
  if (found === undefined) throw new Error(`there is no example of a request of ${rpc}`);
  return Object.fromEntries(Object.entries(found).map(([summary, value]) => [summary.toLowerCase().replace(/[^a-z0-9]+/g, "_"), { summary, value }]));
}
