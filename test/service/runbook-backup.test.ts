import { randomUUID } from "node:crypto";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { CredentialType, Provider } from "../../src/client/index.ts";
import { debianPostgres, startDebianPostgres } from "../support/debian-postgres.ts";
import { Installation, makePlatform } from "../support/installation.ts";
import { blocksOf } from "../support/runbook.ts";
import { temporaryFolder } from "../support/service.ts";

// Two servers, two services and a dozen commands are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 180_000 });

const [DUMP = "", RESTORE = "", VERIFY = ""] = blocksOf("Back up and restore");
const ORGANIZATION = randomUUID();

test.skipIf(debianPostgres() === undefined)("what was installed by hand is backed up while it is used, and restored on another machine with the keys that were kept (needs the Debian package postgresql)", async () => {
  using folder = temporaryFolder();
  using first = await startDebianPostgres();
  using second = await startDebianPostgres();
  const platform = await makePlatform();
  const here = new Installation(join(folder.path, "here"), first);
  const there = new Installation(join(folder.path, "there"), second);
  const user = await platform.token({ kind: "user", organizationId: ORGANIZATION, subject: randomUUID() });
  const machine = await platform.token({ kind: "service_account", organizationId: ORGANIZATION, subject: randomUUID() });
  const password = async (at: Installation, credentialId: string) => {
    using client = at.client(machine);
    const { credentials } = await client.resolveCredential({ credentialId });
    return credentials?.$case === "sftpPassword" ? credentials.value.password : undefined;
  };
  const secret = (text: string) => ({ credentialType: CredentialType.CREDENTIAL_TYPE_USER_PASSWORD, credentials: { host: "sftp.example.com", username: "u", password: text } });

  let credentialId = "";
  {
    await using _ = await here.install(platform);
    using client = here.client(user);
    credentialId = (await client.createCredential({ provider: Provider.PROVIDER_SFTP, ...secret("last-night") })).credential?.id ?? "";
    expect(await password(here, credentialId)).toBe("last-night");
    // The owner of the tables would leave out what row-level security hides from it, were it not for this refusal.
    const asOwner = await here.terminal.try(DUMP.replace("--username credentials_backup", "--username credentials_owner"));
    expect([asOwner.code, asOwner.stderr]).toEqual([1, expect.stringContaining("row-level security")]);
    await here.terminal.run(DUMP);
    await client.updateCredential({ credentialId, etag: "", ...secret("this-morning") });
    expect(await password(here, credentialId)).toBe("this-morning");
  }

  await there.prepare(platform);
  copyFileSync(join(here.folder, "credentials.dump"), join(there.folder, "credentials.dump"));
  await there.terminal.run(RESTORE);
  await there.migrate();
  // The new machine's own master key has the same id, and opens nothing of the dump.
  await expect(there.start()).rejects.toThrow('master key "2026-11" is not the key this database knows under that id');
  for (const kept of ["master-keys", "audit.pem"]) copyFileSync(join(here.folder, kept), join(there.folder, kept));
  await using _ = await there.start();
  there.terminal.env["ORG"] = ORGANIZATION;
  const said = await there.terminal.run(VERIFY);
  // The replica of the machine before counts until it has been silent for long enough.
  expect(said).toMatch(/^master key 2026-11: primary, wraps 1, loaded by (1 of 1|2 of 2) replica/m);
  expect(said).toContain("verification: proven; 0 left, 0 moved, 2 read back, 0 failed");
  expect(said.match(/^good: \d+ records/gm)).toHaveLength(2);
  expect(await password(there, credentialId)).toBe("last-night");
  using client = there.client(user);
  await client.updateCredential({ credentialId, etag: "", ...secret("at noon") });
  expect(await password(there, credentialId)).toBe("at noon");
});
