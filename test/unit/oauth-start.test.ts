import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

test("the providers' libraries are loaded when a token is first renewed, and not at the start", async () => {
  const folder = mkdtempSync(join(tmpdir(), "flow-start-"));
  const url = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  try {
    const script = join(folder, "script.mjs");
    writeFileSync(
      script,
      `import { registerHooks } from "node:module";
       const loaded = new Set();
       registerHooks({ load(url, context, next) { const name = /node_modules\\/(@azure\\/msal-node|google-auth-library)\\//.exec(url)?.[1]; if (name) loaded.add(name); return next(url, context); } });
       await import(${url("../../src/app.ts")});
       const before = [...loaded];
       const { providers } = await import(${url("../../src/providers/index.ts")});
       const io = { client: undefined, now: () => new Date(), signal: new AbortController().signal, request: async () => ({ status: 500, headers: {}, body: Buffer.from("") }) };
       const document = { refresh_token: "r", client_id: "c", client_secret: "s" };
       const kinds = [await providers.google.types.oauth2.refresh(document, io), await providers.microsoft.types.oauth2.refresh(document, io)].map(({ kind }) => kind);
       console.log(JSON.stringify({ before, after: [...loaded].sort(), kinds }));`,
    );
    const { stdout } = await promisify(execFile)(process.execPath, [script], { env: { PATH: process.env["PATH"] } });
    expect(JSON.parse(stdout)).toEqual({ before: [], after: ["@azure/msal-node", "google-auth-library"], kinds: ["unavailable", "unavailable"] });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
