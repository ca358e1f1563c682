import { randomUUID } from "node:crypto";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { CredentialType } from "../../src/client/index.ts";
import { debianPostgres, type DebianServer, startDebianPostgres } from "../support/debian-postgres.ts";
import { Installation, makePlatform, type Platform } from "../support/installation.ts";
import { blocksOf } from "../support/runbook.ts";
import { type Service, temporaryFolder } from "../support/service.ts";

// Two servers, two services and a dozen commands are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 120_000 });

const [DUMP = "", RESTORE = "", VERIFY = ""] = blocksOf("Back up and restore");
const ORGANIZATION = randomUUID();

const secret = (text: string) => ({ credentialType: CredentialType.CREDENTIAL_TYPE_USER_PASSWORD, credentials: { host: "sftp.example.com", username: "u", password: text } });

describe.skipIf(debianPostgres() === undefined)("an operator with the runbook and two machines (needs the Debian package postgresql)", () => {
  const folder = temporaryFolder();
  let databases: DebianServer[];
  let platform: Platform;
  let here: Installation;
  let there: Installation;
  let service: Service;
  let user: string;
  let key: string;
  let credentialId: string;

  beforeAll(async () => {
    const [first, second] = [await startDebianPostgres(), await startDebianPostgres()];
    databases = [first, second];
    platform = await makePlatform();
    here = new Installation(join(folder.path, "here"), first);
    there = new Installation(join(folder.path, "there"), second);
    for (const machine of [here, there]) machine.terminal.env["ORG"] = ORGANIZATION;
    user = await platform.token({ kind: "user", organizationId: ORGANIZATION, subject: randomUUID() });
  });
  afterAll(async () => {
    await service?.[Symbol.asyncDispose]();
    for (const database of databases) database[Symbol.dispose]();
    folder[Symbol.dispose]();
  });

  const password = async (at: Installation) => {
    using client = at.client(key);
    const { credentials } = await client.resolveCredential({ credentialId });
    return credentials?.$case === "sftpPassword" ? credentials.value.password : undefined;
  };

  test("story 1: from nothing to the first credential that an executor has resolved", async () => {
    service = await here.install(platform);
    Object.assign(here.terminal.env, { USER_TOKEN: user, REST: service.rest.replace("127.0.0.1", "localhost") });
    const body = { provider: "sftp", credential_type: "user_password", credentials: secret("last-night").credentials };
    const said = await here.terminal.run(`curl --fail --silent --cacert ca.pem "$REST/integrations/credentials" -H "authorization: Bearer $USER_TOKEN" -H 'content-type: application/json' -d '${JSON.stringify(body)}'`);
    credentialId = JSON.parse(said).id;
    const [first = ""] = blocksOf("Let an executor in");
    key = (await here.terminal.run(`${first}\ncat executor.key`)).trim().split("\n").at(-1) ?? "";
    expect(key).toMatch(/^saf_org_/);
    expect(await password(here)).toBe("last-night");
    expect(await here.terminal.run('flow-credentials audit list --org "$ORG"')).toMatch(/allowed  resolve_credential .*\n.*allowed  create_service_account_key .*\n.*allowed  set_service_account_access .*\n.*allowed  create_service_account .*\n.*allowed  create_credential /);
  });

  test("story 9: last night's backup is restored on another machine, with the keys that were kept", async () => {
    // The owner of the tables would leave out what row-level security hides from it, were it not for this refusal.
    const asOwner = await here.terminal.try(DUMP.replace("--username credentials_backup", "--username credentials_owner"));
    expect([asOwner.code, asOwner.stderr]).toEqual([1, expect.stringContaining("row-level security")]);
    await here.terminal.run(DUMP);
    {
      using client = here.client(user);
      await client.updateCredential({ credentialId, etag: "", ...secret("this-morning") });
    }
    expect(await password(here)).toBe("this-morning");
    await service.stop();

    await there.prepare(platform);
    copyFileSync(join(here.folder, "credentials.dump"), join(there.folder, "credentials.dump"));
    await there.terminal.run(RESTORE);
    await there.migrate();
    // The new machine's own master key has the same id, and opens nothing of the dump.
    await expect(there.start()).rejects.toThrow('master key "2026-11" is not the key this database knows under that id');
    for (const kept of ["master-keys", "audit.pem"]) copyFileSync(join(here.folder, kept), join(there.folder, kept));
    service = await there.start();
    const said = await there.terminal.run(VERIFY);
    // The replica of the machine before counts until it has been silent for long enough.
    expect(said).toMatch(/^master key 2026-11: primary, wraps 1, loaded by (1 of 1|2 of 2) replica/m);
    expect(said).toContain("verification: proven; 0 left, 0 moved, 2 read back, 0 failed");
    expect(said.match(/^good: \d+ records/gm)).toHaveLength(2);
    expect(await password(there)).toBe("last-night");
    using client = there.client(user);
    await client.updateCredential({ credentialId, etag: "", ...secret("at noon") });
    expect(await password(there)).toBe("at noon");
  });
});
