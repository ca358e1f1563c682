import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { CredentialType, Provider } from "../../src/client/index.ts";
import { QUICK } from "../support/admin.ts";
import { debianPostgres, type DebianServer, startDebianPostgres } from "../support/debian-postgres.ts";
import { Installation, makePlatform, type Platform } from "../support/installation.ts";
import { blocksOf } from "../support/runbook.ts";
import { type Service, temporaryFolder } from "../support/service.ts";

// A dozen commands are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const ORGANIZATION = randomUUID();
const ID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

describe.skipIf(debianPostgres() === undefined)("an operator with the runbook, on a machine of their own (needs the Debian package postgresql)", () => {
  const folder = temporaryFolder();
  let database: DebianServer;
  let platform: Platform;
  let at: Installation;
  let service: Service;
  let credentialId: string;

  beforeAll(async () => {
    database = await startDebianPostgres();
    platform = await makePlatform();
    at = new Installation(join(folder.path, "home"), database);
    service = await at.install(platform, QUICK);
    at.terminal.env["ORG"] = ORGANIZATION;
    using client = at.client(await platform.token({ kind: "user", organizationId: ORGANIZATION, subject: randomUUID() }));
    const created = await client.createCredential({ provider: Provider.PROVIDER_GOOGLE, credentialType: CredentialType.CREDENTIAL_TYPE_API_KEY, credentials: { api_key: "kept" } });
    credentialId = created.credential?.id ?? "";
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
    database[Symbol.dispose]();
    folder[Symbol.dispose]();
  });

  const resolve = async (key?: string) => {
    using client = at.client(key ?? (await platform.token({ kind: "service_account", organizationId: ORGANIZATION, subject: randomUUID() })));
    const { credentials } = await client.resolveCredential({ credentialId });
    return credentials?.$case === "apiKey" ? credentials.value.apiKey : credentials?.$case;
  };
  const LOADED = "the master keys were loaded again";
  /** Runs a block that ends with a reload, and waits until the service has read its keys. */
  const reload = async (block: string) => {
    const before = service.output().split(LOADED).length;
    await at.terminal.run(block);
    await expect.poll(() => service.output().split(LOADED).length, { timeout: 20_000 }).toBeGreaterThan(before);
  };
  const again = async () => {
    await service.stop();
    service = await at.start(QUICK);
  };

  test("story 4: the master key is rotated, taken back, rotated again and finished; nothing needs the old one", async () => {
    const [draw = "", rotate = "", rollBack = "", finish = ""] = blocksOf("Rotate keys");
    await reload(draw);
    const said = await at.terminal.run(rotate);
    expect(said).toMatch(/^master key 2027-11: wraps 0, loaded by 1 of 1 replica/m);
    expect(said).toMatch(/^\S+ master_key 2026-11 -> 2027-11: proven; 0 left, 1 moved/m);
    expect(said).toMatch(/^\S+ organization_key 1 -> 2 of \S+: proven; 0 left, 1 moved/m);
    at.terminal.env["ROTATION"] = ID.exec(said.split("\n").find((line) => line.includes(" master_key ")) ?? "")?.[0] ?? "";
    expect(await at.terminal.run(rollBack)).toMatch(/ master_key 2027-11 -> 2026-11: proven; 0 left/);
    at.terminal.env["ROTATION"] = ID.exec(await at.terminal.run("flow-credentials keys rotate --master-key 2027-11"))?.[0] ?? "";
    await reload(finish);
    expect(readFileSync(join(at.folder, "master-keys"), "utf8")).toMatch(/^2027-11:\S{44}\n$/);
    await again();
    expect(await resolve()).toBe("kept");
  });

  test("a master key that is lost is replaced by a process that still has it", async () => {
    const [draw = "", rotate = ""] = blocksOf("A master key is lost");
    const file = join(at.folder, "master-keys");
    writeFileSync(file, "");
    await reload(draw.replaceAll("2027-11", "2028-11"));
    expect(service.output()).toContain('"key_id":"2027-11","message":"a master key that is still used is no longer configured');
    await expect(at.start({ ...QUICK, CREDENTIALS_PRIMARY_KEY_ID: "2028-11" })).rejects.toThrow('master key "2027-11" is not loaded, and 2 row(s) of organization_key are wrapped under it');
    at.terminal.serve(service);
    at.terminal.env["ROTATION"] = ID.exec(await at.terminal.run(rotate.replaceAll("2027-11", "2028-11")))?.[0] ?? "";
    const finish = blocksOf("Rotate keys")[3] ?? "";
    await reload(finish.replaceAll("2027-11", "2028-11").replaceAll("2026-11", "2027-11"));
    await again();
    expect(await resolve()).toBe("kept");
  });

  test("after a leak every organization gets a new key, and what was in use is told", async () => {
    const [renew = "", used = ""] = blocksOf("A master key or the database has leaked");
    expect(await at.terminal.run(renew)).toMatch(new RegExp(`^\\S+ organization_key 2 -> 3 of ${ORGANIZATION}: proven; 0 left, 1 moved`));
    expect((await at.terminal.run(used)).match(new RegExp(`allowed  resolve_credential ${credentialId}`, "g"))).toHaveLength(2);
    expect(await resolve()).toBe("kept");
  });

  test("story 3: a key turns up in a public place; whose it is, revoked, and what was done with it", async () => {
    const [find = "", revoke = ""] = blocksOf("An API key has leaked");
    const account = (await at.terminal.run('flow-credentials service-account create --org "$ORG" --name executor')).trim();
    const key = (await at.terminal.run(`flow-credentials service-account-key create --org "$ORG" --service-account ${account}`)).trim();
    expect(await resolve(key)).toBe("kept");
    const [organization = "", ofAccount = "", keyId = ""] = (await at.terminal.run(`LEAKED=${key}\n${find}`)).trim().split(" ");
    expect([organization, ofAccount]).toEqual([ORGANIZATION, account]);
    Object.assign(at.terminal.env, { ACCOUNT: ofAccount, KEY: keyId });
    const said = await at.terminal.run(revoke);
    expect(said).toContain(`${keyId}  ${key.slice(0, 34)}…`);
    expect(said).toContain(`${keyId} revoked\n`);
    expect(said.match(new RegExp(`allowed  resolve_credential ${credentialId}  by service_account ${account}`, "g"))).toHaveLength(1);
    await expect(resolve(key)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  });

  test("story 5: an organization leaves; its secrets open nowhere, which is shown, and its audit stays", async () => {
    const [destroy = "", readBack = ""] = blocksOf("An organization leaves");
    expect(await at.terminal.run(destroy)).toMatch(/^3 key\(s\) destroyed\n\S+  allowed  destroy_organization .* by operator ops  request \S+\n$/);
    expect(await at.terminal.try(readBack)).toEqual({ code: 1, stdout: "", stderr: "flow-credentials: The organization's keys were destroyed\n" });
    await expect.poll(() => resolve().catch(({ reason }) => reason), { timeout: 20_000 }).toBe("ORGANIZATION_DESTROYED");
    expect(await at.terminal.run('flow-credentials audit verify --org "$ORG"')).toMatch(/^good: /);
  });
});
