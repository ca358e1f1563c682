import { randomUUID } from "node:crypto";
import { expect, test, vi } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { migrated, RECOVERY_MS, startReplicas, through } from "../support/ha.ts";
import { chainFaults } from "../support/invariants.ts";
import { rest, token } from "../support/service.ts";
import { startPair } from "../support/standby.ts";
import { startProxy } from "../support/tcp-proxy.ts";

const sftp = (password: string) => ({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });

test("the standby was behind when it was promoted: what it had not received is gone, and nothing else is harmed by what replicas remember of it", async () => {
  await using pair = await startPair("asynchronous", migrated);
  await using address = await startProxy(pair.primary.target);
  await using replicas = await startReplicas(2, through(address.target));
  await replicas.load.until(200);
  await replicas.load.stop();
  const organization = randomUUID();
  const [user, machine] = await Promise.all([token("user", organization), token("service_account", organization)]);
  const create = (index: number, password: string) => rest(replicas.running[index] as (typeof replicas.running)[number], "POST", "/integrations/credentials", { token: user, body: sftp(password) });
  const resolve = async (index: number, credentialId: string) => {
    const client = createCredentialClient({ target: (replicas.running[index] as (typeof replicas.running)[number]).grpc, token: machine, tls: "insecure", retries: 0 });
    const answer = await client.resolveCredential({ credentialId }).then(({ credentials }) => (credentials?.$case === "sftpPassword" ? credentials.value.password : credentials?.$case), (error: { reason?: string }) => error.reason);
    client.close();
    return answer;
  };

  pair.link.cut();
  // The organization's key is made with its first credential, and both are on the primary alone.
  const lost = await create(0, "lost");
  expect(lost.status).toBe(201);
  await pair.primary.kill();
  await pair.promote();
  address.to(pair.standby.target);
  await vi.waitFor(async () => expect(await replicas.ready()).toEqual([true, true]), { timeout: RECOVERY_MS, interval: 100 });

  for (const index of [0, 1]) expect(await resolve(index, lost.json.id)).toBe("CREDENTIAL_NOT_FOUND");
  for (const [index, password] of [[0, "first"], [1, "second"]] as const) {
    const { status, json } = await create(index, password);
    expect(status).toBe(201);
    for (const other of [0, 1]) expect(await resolve(other, json.id)).toBe(password);
  }
  expect(await chainFaults(pair.standby.run, organization)).toEqual([]);
}, 120_000);
