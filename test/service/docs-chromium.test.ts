import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { chromiumInstalled, complaints, picture, startChromium } from "../support/chromium.ts";
import { rest, startFresh, token } from "../support/service.ts";

const DOCUMENT = JSON.parse(readFileSync(new URL("../../gen/openapi.json", import.meta.url), "utf8")) as { readonly paths: Record<string, Record<string, unknown>> };

test.skipIf(!chromiumInstalled)("a person finds every operation in the reference, and creates a credential there", async () => {
  await using service = await startFresh();
  await using browser = await startChromium();
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const lines = complaints(page);
  // All it asks for is here: the page works without a network.
  const elsewhere: string[] = [];
  page.on("request", (request) => void (request.url().startsWith(service.rest) || request.url().startsWith("data:") || elsewhere.push(request.url())));
  await page.goto(`${service.rest}/docs`);
  await page.locator(".opblock").first().waitFor();
  const operations = Object.values(DOCUMENT.paths).flatMap((path) => Object.keys(path).filter((method) => ["get", "post", "patch", "put", "delete"].includes(method)));
  await expect.poll(() => page.locator(".opblock").count(), { timeout: 30_000 }).toBe(operations.length);
  await picture(page, "docs");

  const bearer = await token("user", randomUUID());
  await page.getByRole("button", { name: "Authorize" }).first().click();
  await page.locator(".modal-ux input").first().fill(bearer);
  await page.locator(".modal-ux .btn.authorize").first().click();
  await page.locator(".modal-ux .btn-done").first().click();

  const create = page.locator("#operations-Credential-createCredential");
  await create.locator(".opblock-summary-control").click();
  await create.getByRole("button", { name: "Try it out" }).click();
  await create.getByRole("button", { name: "Execute" }).click();
  const answer = create.locator(".live-responses-table tbody td.response-col_status").first();
  await expect.poll(() => answer.innerText(), { timeout: 30_000 }).toContain("201");
  await create.locator(".live-responses-table").scrollIntoViewIfNeeded();
  await picture(page, "docs-created");
  expect((await rest(service, "GET", "/integrations/credentials", { token: bearer })).json).toMatchObject([{ provider: "sftp" }]);
  expect([lines, elsewhere]).toEqual([[], []]);
}, 120_000);
