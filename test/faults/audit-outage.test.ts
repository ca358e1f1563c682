import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { createCredentialClient, type CredentialClient } from "../../src/client/index.ts";
import { block } from "../support/blocker.ts";
import { connect } from "../support/postgres.ts";
import { rest, startFresh, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let client: CredentialClient;
let credentialId: string;
let user: string;
const organizationId = randomUUID();
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };

beforeAll(async () => {
  service = await startFresh();
  const machine = await token("service_account", organizationId);
  user = await token("user", organizationId);
  client = createCredentialClient({ target: service.grpc, token: machine, tls: "insecure", retries: 0 });
  credentialId = (await rest(service, "POST", "/integrations/credentials", { token: user, body: SFTP })).json.id;
});
afterAll(async () => {
  client.close();
  await service[Symbol.asyncDispose]();
});

const resolve = (): Promise<string> => client.resolveCredential({ credentialId }).then(() => "OK", (error: { reason?: string; code?: string }) => `${error.code} ${error.reason}`);
/** Secrets that this process has opened, as its metrics tell. */
const opened = async (): Promise<number> => {
  const { text } = await vi.waitFor(async () => {
    const answer = await rest(service, "GET", "/metrics");
    expect(answer.status).toBe(200);
    return answer;
  });
  const line = text.split("\n").find((one) => one.startsWith('credentials_sealing_total{operation="opened"}'));
  if (line === undefined) throw new Error("no metric tells of opened secrets");
  return Number(line.split(" ").at(-1));
};
/** The metrics are rendered once a second. */
const settled = async (): Promise<number> => {
  await new Promise((done) => setTimeout(done, 1_100));
  return opened();
};
const count = async (): Promise<number> => {
  await using superuser = await connect(service.database.superuserUrl);
  return Number((await superuser.query("select count(*) as n from audit_event where organization_id = $1 and action = 'resolve_credential' and outcome = 'allowed'", [organizationId])).rows[0].n);
};

describe("while the audit trail cannot be written", () => {
  const superuser = async (statement: string) => {
    await using connection = await connect(service.database.superuserUrl);
    await connection.query(statement);
  };
  test("because the right is gone, nothing is released, no key is used, nothing changes, and it recovers by itself", async () => {
    expect(await resolve()).toBe("OK");
    const before = { opened: await settled(), recorded: await count() };
    await superuser("revoke insert on audit_event from credentials_app");
    try {
      const answers = await Promise.all(Array.from({ length: 20 }, resolve));
      expect(new Set(answers)).toEqual(new Set(["UNAVAILABLE AUDIT_UNAVAILABLE"]));
      expect([503, 500]).toContain((await rest(service, "DELETE", `/integrations/credentials/${credentialId}`, { token: user })).status);
      expect({ opened: await settled(), recorded: await count() }).toEqual(before);
    } finally {
      await superuser("grant insert on audit_event to credentials_app");
    }
    await vi.waitFor(async () => expect(await resolve()).toBe("OK"), { timeout: 15_000, interval: 200 });
    expect((await rest(service, "GET", `/integrations/credentials/${credentialId}`, { token: user })).status).toBe(200);
  }, 60_000);

  test("because the table is locked, the same", async () => {
    expect(await resolve()).toBe("OK");
    const before = { opened: await settled(), recorded: await count() };
    {
      await using blocker = await block(service.database.superuserUrl, "lock table audit_event in access exclusive mode");
      const answers = await Promise.all(Array.from({ length: 20 }, resolve));
      expect(new Set(answers)).toEqual(new Set(["UNAVAILABLE AUDIT_UNAVAILABLE"]));
      expect(await settled()).toBe(before.opened);
      await blocker.release();
    }
    await vi.waitFor(async () => expect(await resolve()).toBe("OK"), { timeout: 15_000, interval: 200 });
    expect(await count()).toBe(before.recorded + 1);
  }, 60_000);
});
