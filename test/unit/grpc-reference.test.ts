import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { AdminServiceService } from "../../gen/flow/credentials/v1/admin_service.ts";
import { AuthorizationServiceService } from "../../gen/flow/credentials/v1/authorization_service.ts";
import { CredentialServiceService } from "../../gen/flow/credentials/v1/credential_service.ts";
import { ServiceAccountServiceService } from "../../gen/flow/credentials/v1/service_account_service.ts";
import { REASONS } from "../../src/domain/errors.ts";

const text = readFileSync("docs/grpc.md", "utf8");
const headings = [...text.matchAll(/^#{2,3} (.*)$/gm)].map(([, title]) => title as string);

test("the gRPC reference is what the protos and the table of errors say now", () => {
  const descriptors = execFileSync("node_modules/.bin/buf", ["build", "--type", "flow.credentials.v1", "-o", "-", "--as-file-descriptor-set"], { maxBuffer: 1 << 26 });
  expect(execFileSync(process.execPath, ["src/openapi/grpc-main.ts"], { input: descriptors, encoding: "utf8" })).toBe(text);
});

test("it has every RPC with its caller, and every reason", () => {
  const services = [CredentialServiceService, AuthorizationServiceService, ServiceAccountServiceService, AdminServiceService];
  const methods = services.flatMap((service) => Object.values(service).map(({ path }) => path.split("/")[2] as string));
  expect(methods.length).toBeGreaterThan(30);
  for (const method of methods) expect(text).toMatch(new RegExp(`^### ${method}\n\n(?:.+\n)+\n(?:.+\n+)*?Takes .*Callers: \\w`, "m"));
  for (const [reason, { grpc, http }] of Object.entries(REASONS)) expect(text).toContain(`| \`${reason}\` | ${grpc} | ${http} |`);
});

test("every link of it leads somewhere, and to one place", () => {
  expect(headings.filter((title, index) => headings.indexOf(title) !== index)).toEqual([]);
  const anchors = new Set(headings.map((title) => title.toLowerCase().replace(/[^a-z0-9-]/g, "")));
  const links = [...text.matchAll(/\]\(#([^)]*)\)/g)].map(([, to]) => to as string);
  expect(links.length).toBeGreaterThan(100);
  expect(links.filter((to) => !anchors.has(to))).toEqual([]);
});
