import { execFile } from "node:child_process";
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";

/** Debian's strace; without it nothing here can be shown. */
function traceable(): boolean {
  try {
    accessSync("/usr/bin/strace", constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

describe.runIf(traceable())("with every system call on record", () => {
  test("a renewal opens no file that a document names and no socket at all, whatever kind of JSON it was given", async () => {
    const folder = mkdtempSync(join(tmpdir(), "flow-trace-"));
    const named = join(folder, "named-by-tenant");
    const [marker, trace, script] = [join(folder, "named-by-us"), join(folder, "trace"), join(folder, "script.ts")];
    const file = { credential_source: { file: named, certificate: { certificate_config_location: named }, executable: { command: named } }, keyFile: named, private_key: named, client_certificate_path: named, quota_project_id: named };
    const urls = { token_url: "http://192.0.2.7/", token_uri: "http://192.0.2.7/", authority: "https://192.0.2.7/common", service_account_impersonation_url: "http://192.0.2.7/", universe_domain: "192.0.2.7" };
    const documents = ["authorized_user", "service_account", "external_account", "external_account_authorized_user", "impersonated_service_account", "gdch_service_account"].map((type) => ({ type, refresh_token: "r", client_id: "c", client_secret: "s", ...file, ...urls }));
    try {
      for (const path of [named, marker]) writeFileSync(path, "{}");
      const index = new URL("../../src/providers/index.ts", import.meta.url).href;
      writeFileSync(
        script,
        `import { readFileSync } from "node:fs";
         import { providers } from ${JSON.stringify(index)};
         readFileSync(${JSON.stringify(marker)});
         const asked = [];
         const io = { client: undefined, now: () => new Date(), signal: new AbortController().signal,
           request: async (ask) => (asked.push([ask.url, ask.body]), { status: 200, headers: {}, body: Buffer.from('{"access_token":"a","expires_in":60}') }) };
         for (const document of ${JSON.stringify(documents)}) {
           for (const shape of [providers.google.types.google_oauth, providers.microsoft.types.oauth2, providers.sharepoint.types.sharepoint_oauth]) {
             const said = await shape.refresh(document, io);
             if (said.kind !== "refreshed") throw new Error(JSON.stringify(said));
           }
         }
         console.log(JSON.stringify(asked));`,
      );
      const strace = ["-f", "-qq", "-s", "256", "-e", "trace=%file,%network,execve", "-o", trace, process.execPath, script];
      // Where the libraries would look if they were asked to find credentials by themselves.
      const env = { PATH: process.env["PATH"], GOOGLE_APPLICATION_CREDENTIALS: named, GOOGLE_API_CERTIFICATE_CONFIG: named, HTTPS_PROXY: "http://192.0.2.7", MSAL_FORCE_REGION: "TryAutoDetect" };
      const { stdout } = await promisify(execFile)("/usr/bin/strace", strace, { env, maxBuffer: 64 * 1024 * 1024 });
      const asked = JSON.parse(stdout) as [string, string][];
      expect(new Set(asked.map(([url]) => url))).toEqual(new Set(["https://oauth2.googleapis.com/token", "https://login.microsoftonline.com/organizations/oauth2/v2.0/token"]));
      expect([asked.length, asked.filter(([, body]) => /192\.0\.2\.7|named-by-tenant/.test(body))]).toEqual([18, []]);
      const calls = readFileSync(trace, "utf8").split("\n");
      // The record shows what it should: a file of ours.
      expect(calls.some((line) => line.includes(`"${marker}"`))).toBe(true);
      expect(calls.filter((line) => line.includes("named-by-tenant"))).toEqual([]);
      expect(calls.filter((line) => /\b(connect|bind|sendto)\(.*AF_INET/.test(line))).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }, 60_000);
});
