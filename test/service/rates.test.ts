import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { connect } from "../support/postgres.ts";
import { rest, startFresh, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };

beforeAll(async () => {
  service = await startFresh({ CREDENTIALS_RATE_WRITES_PER_CALLER: "1", CREDENTIALS_RATE_RESOLVES_PER_ORGANIZATION: "2", CREDENTIALS_RATE_RECORD_MS: "500" });
});
afterAll(async () => service[Symbol.asyncDispose]());

test("whoever calls too often is told when to come back, over REST and gRPC, and others are served", async () => {
  const organization = randomUUID();
  const [user, colleague, machine] = await Promise.all([token("user", organization), token("user", organization), token("service_account", organization)]);
  const create = (as: string) => rest(service, "POST", "/integrations/credentials", { token: as, body: SFTP });
  const answers = await Promise.all(Array.from({ length: 40 }, () => create(user)));
  const refused = answers.filter(({ status }) => status !== 201);
  expect(answers.length - refused.length).toBeGreaterThanOrEqual(10);
  expect(refused.length).toBeGreaterThan(0);
  for (const { status, headers, json } of refused) {
    expect(status).toBe(429);
    expect(headers.get("retry-after")).toBe("1");
    expect(json.error).toEqual({ message: "Too many requests; try again later", code: "service_error", details: null });
  }
  expect((await create(colleague)).status).toBe(201);
  expect((await rest(service, "GET", "/integrations/credentials", { token: user })).status).toBe(200);

  const credentialId = answers.find(({ status }) => status === 201)?.json.id as string;
  const client = createCredentialClient({ target: service.grpc, token: machine, tls: "insecure" });
  const outcomes = await Promise.all(Array.from({ length: 60 }, () => client.resolveCredential({ credentialId }).then(() => "OK", (error: { reason?: string }) => error.reason)));
  client.close();
  expect(new Set(outcomes)).toEqual(new Set(["OK", "RATE_LIMITED"]));
  expect(outcomes.filter((outcome) => outcome === "OK").length).toBeGreaterThanOrEqual(20);

  // Every refusal is in the trail, most of them as a number, and few records tell of them.
  await using superuser = await connect(service.database.superuserUrl);
  const told = async () => (await superuser.query("select action, actor_kind, calls from audit_event where organization_id = $1 and outcome = 'refused' and reason = 'RATE_LIMITED' order by link", [organization])).rows;
  const numbers = { create_credential: refused.length, resolve_credential: outcomes.filter((outcome) => outcome === "RATE_LIMITED").length };
  await vi.waitFor(async () => {
    const rows = await told();
    for (const [action, number] of Object.entries(numbers)) expect(rows.filter((row) => row.action === action).reduce((sum, { calls }) => sum + (calls ?? 1), 0)).toBe(number);
  }, { timeout: 10_000 });
  expect((await told()).some(({ calls }) => calls !== null)).toBe(true);
});

test("what was refused before a stop is recorded with the stop", async () => {
  await using service = await startFresh({ CREDENTIALS_RATE_WRITES_PER_CALLER: "1" });
  const organization = randomUUID();
  const user = await token("user", organization);
  const answers = await Promise.all(Array.from({ length: 40 }, () => rest(service, "POST", "/integrations/credentials", { token: user, body: SFTP })));
  const refused = answers.filter(({ status }) => status === 429).length;
  expect(refused).toBeGreaterThan(1);
  await service.stop();
  await using superuser = await connect(service.database.superuserUrl);
  const { rows } = await superuser.query("select calls from audit_event where organization_id = $1 and reason = 'RATE_LIMITED' order by link", [organization]);
  expect(rows).toEqual([{ calls: null }, { calls: refused - 1 }]);
});
