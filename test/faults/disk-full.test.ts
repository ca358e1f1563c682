import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { createCredentialClient, type CredentialClient } from "../../src/client/index.ts";
import { ChainReader } from "../../src/domain/audit-chain.ts";
import { limitFiles, mountSmallDisk, type OwnServer, servingProcesses, startOwnServer } from "../support/full-disk.ts";
import { mountable } from "../support/mount.ts";
import { rest, type Service, serviceEnv, startService, token } from "../support/service.ts";
import { NEVER, openTestStore } from "../support/store.ts";

let own: OwnServer;
let service: Service;
let client: CredentialClient;
let user: string;
let credentialId: string;
const organizationId = randomUUID();
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
const { provider: _, ...CHANGE } = SFTP;
const path = () => `/integrations/credentials/${credentialId}`;

/** How far files may grow while the disk is full: as far as a segment of the write-ahead log, which has its space from the start. */
const FULL = 16 * 1024 * 1024;

/** What has been done so far: secrets handed out and updates that succeeded. */
const done = { resolved: 0, updated: 0 };
/** What was there of both before. */
let before: { opened: number; recorded: number; updates: number };

beforeAll(async () => {
  own = await startOwnServer();
  const { applicationUrl, ownerUrl, superuserUrl } = own.server;
  service = await startService(serviceEnv({ name: "own", applicationUrl, ownerUrl, superuserUrl, async [Symbol.asyncDispose]() {} }));
  user = await token("user", organizationId);
  client = createCredentialClient({ target: service.grpc, token: await token("service_account", organizationId), tls: "insecure", retries: 0 });
  credentialId = (await rest(service, "POST", "/integrations/credentials", { token: user, body: SFTP })).json.id;
  // Another organization's records, until their table is as large as a file may be.
  await own.run(
    `insert into audit_event (organization_id, link, position, occurred_at, request_id, actor_kind, actor_id, action, outcome, flow_id, hash)
    select $1, n, 1, now(), 'filler', 'user', 'filler', 'list_credentials', 'allowed', repeat('x', 1000), sha256('') from generate_series(1, 17000) n`,
    [randomUUID()],
  );
  expect(Number((await own.run("select pg_relation_size('audit_event') as size"))[0].size)).toBeGreaterThan(FULL);
});
afterAll(async () => {
  client.close();
  await service.stop();
  await own[Symbol.asyncDispose]();
});

const resolve = async (): Promise<string> => {
  const outcome = await client.resolveCredential({ credentialId }).then(() => "OK", (error: { reason?: string; code?: string }) => `${error.code} ${error.reason}`);
  if (outcome === "OK") done.resolved++;
  return outcome;
};
const update = async (): Promise<number> => {
  const { status } = await rest(service, "PATCH", path(), { token: user, body: CHANGE });
  if (status === 200) done.updated++;
  return status;
};
const opened = async (): Promise<number> => Number(/credentials_sealing_total\{operation="opened"\} (\d+)/.exec((await rest(service, "GET", "/metrics")).text)?.[1] ?? Number.NaN);
const records = async (action: string): Promise<number> =>
  Number((await own.run("select count(*) as n from audit_event where organization_id = $1 and action = $2 and outcome = 'allowed'", [organizationId, action]))[0].n);
const recovered = () => vi.waitFor(async () => expect(await resolve()).toBe("OK"), { timeout: 20_000, interval: 100 });

beforeEach(async () => {
  await recovered();
  Object.assign(done, { resolved: 0, updated: 0 });
  // The metrics are rendered once a second.
  await vi.waitFor(async () => expect(await opened()).toBe(await records("resolve_credential")), { timeout: 10_000 });
  before = { opened: await opened(), recorded: await records("resolve_credential"), updates: await records("update_credential") };
});

/** Calls until the last space inside the pages that are there is used up, and not one call of several rounds finds any. */
async function untilNothingFits(): Promise<void> {
  for (let [refused, rounds] = [0, 0]; refused < 3; rounds++) {
    expect(rounds, "the disk never gets full").toBeLessThan(200);
    const outcomes = await Promise.all(Array.from({ length: 10 }, resolve));
    for (const outcome of outcomes) expect(["OK", "UNAVAILABLE AUDIT_UNAVAILABLE"]).toContain(outcome);
    refused = outcomes.includes("OK") ? 0 : refused + 1;
  }
}

/** Every secret that left was opened once and is recorded, no key was used for any other, and the chain and what changed are whole. */
async function nothingIsHalfDone(recordsWithoutAnswer: "never" | "perhaps"): Promise<void> {
  await vi.waitFor(async () => expect(await opened()).toBe(before.opened + done.resolved), { timeout: 10_000 });
  const [recorded, updates] = [await records("resolve_credential"), await records("update_credential")];
  if (recordsWithoutAnswer === "never") expect({ recorded, updates }).toEqual({ recorded: before.recorded + done.resolved, updates: before.updates + done.updated });
  else expect(recorded).toBeGreaterThanOrEqual(before.recorded + done.resolved);
  expect((await rest(service, "GET", path(), { token: user })).json.etag).toBe(`r${1 + updates}`);
  await using store = await openTestStore(own.server.applicationUrl);
  const reader = new ChainReader();
  for (const record of await store.trail.records(organizationId, 0, 100_000, NEVER)) expect(reader.next(record)).toBeUndefined();
  expect(reader.end()).toBeUndefined();
  expect((await store.trail.head(organizationId, NEVER))?.link).toBe(reader.place.link);
}

test("where no file can grow any more, nothing is released and no key is used, and it recovers by itself", async () => {
  const { backends, postmaster } = await servingProcesses(own);
  limitFiles([...backends, postmaster], FULL);
  try {
    await untilNothingFits();
    for (let n = 0; n < 5; n++) expect([200, 500, 503]).toContain(await update());
    await nothingIsHalfDone("never");
  } finally {
    limitFiles([...(await servingProcesses(own)).backends, postmaster], null);
  }
  await recovered();
  expect(await update()).toBe(200);
  await nothingIsHalfDone("never");
});

test("where the write-ahead log cannot be written, PostgreSQL itself stops, and it recovers by itself", async () => {
  const outcomes = new Set<string>();
  await vi.waitFor(async () => {
    limitFiles((await servingProcesses(own)).backends, 0);
    for (const outcome of await Promise.all(Array.from({ length: 5 }, resolve))) outcomes.add(outcome);
    expect(outcomes).toContain("UNAVAILABLE AUDIT_UNAVAILABLE");
  }, { timeout: 20_000, interval: 1 });
  await recovered();
  expect([...outcomes].filter((outcome) => outcome !== "OK")).toEqual(["UNAVAILABLE AUDIT_UNAVAILABLE"]);
  await vi.waitFor(async () => expect(await update()).toBe(200), { timeout: 10_000 });
  await nothingIsHalfDone("perhaps");
});

test.runIf(mountable())("where the disk has no space left, nothing is released and no key is used, and it recovers when there is some", async () => {
  using disk = mountSmallDisk(join(own.folder, "small"));
  await own.run("delete from audit_event where request_id = 'filler'");
  await own.run("vacuum full audit_event");
  await own.run(`create tablespace small location '${disk.folder}'`);
  await own.run("alter table audit_event set tablespace small");
  disk.fill();
  await untilNothingFits();
  for (let n = 0; n < 5; n++) expect([200, 503]).toContain(await update());
  await nothingIsHalfDone("never");
  disk.empty();
  await recovered();
  expect(await update()).toBe(200);
  await nothingIsHalfDone("never");
  await own.run("alter table audit_event set tablespace pg_default");
  await own.run("drop tablespace small");
});
