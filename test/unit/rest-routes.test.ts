import { describe, expect, it } from "vitest";
import { loadDescriptors } from "../../src/rest/descriptors.ts";
import { compileRoutes, findRoute, isAmbiguousPath } from "../../src/rest/routes.ts";

const registry = loadDescriptors();
const all = compileRoutes(registry, []);

function target(verb: string, path: string): string {
  const found = findRoute(all, verb, path);
  return found.kind === "route" ? `${found.route.method.name}(${[...found.params].map(([name, value]) => `${name}=${value}`).join()})` : found.kind;
}

describe("the routes", () => {
  it("are the annotated RPCs and nothing else", () => {
    const table = all.flatMap(({ template, routes }) => [...routes.values()].map(({ verb, method }) => `${verb} ${template} ${method.name}`));
    expect(table.sort()).toEqual([
      "DELETE /integrations/credentials/{credential_id} DeleteCredential",
      "DELETE /service-accounts/{service_account_id} DeleteServiceAccount",
      "DELETE /service-accounts/{service_account_id}/api-keys/{key_id} RevokeServiceAccountKey",
      "GET /integrations/catalog ListIntegrations",
      "GET /integrations/credentials ListCredentials",
      "GET /integrations/credentials/provider/{provider} ListCredentials",
      "GET /integrations/credentials/{credential_id} GetCredential",
      "GET /integrations/credentials/{credential_id}/credentials ResolveCredential",
      "GET /integrations/{provider}/authorize BeginAuthorization",
      "GET /integrations/{provider}/callback CompleteAuthorization",
      "GET /service-accounts ListServiceAccounts",
      "GET /service-accounts/{service_account_id} GetServiceAccount",
      "GET /service-accounts/{service_account_id}/api-keys ListServiceAccountKeys",
      "PATCH /integrations/credentials/{credential_id} UpdateCredential",
      "PATCH /service-accounts/{service_account_id} UpdateServiceAccount",
      "PATCH /service-accounts/{service_account_id}/api-keys/{key_id} UpdateServiceAccountKey",
      "POST /integrations/credentials CreateCredential",
      "POST /integrations/credentials/{credential_id}/rollback RollbackCredential",
      "POST /integrations/credentials/{credential_id}/test TestCredential",
      "POST /integrations/postgres/test-connection TestPostgresConnection",
      "POST /integrations/postgres/test-connection/{credential_id} TestPostgresCredential",
      "POST /integrations/sftp/test-connection TestSftpConnection",
      "POST /service-accounts CreateServiceAccount",
      "POST /service-accounts/{service_account_id}/api-keys CreateServiceAccountKey",
      "PUT /service-accounts/{service_account_id}/access SetServiceAccountAccess",
    ]);
  });

  it.each(["", "/api"])("are served below the prefix %j", (prefix) => {
    expect(target("POST", `${prefix}/integrations/credentials`)).toBe("CreateCredential()");
    expect(target("GET", `${prefix}/integrations/credentials/c1`)).toBe("GetCredential(credential_id=c1)");
    expect(target("GET", `${prefix}/integrations/credentials/provider/SFTP`)).toBe("ListCredentials(provider=SFTP)");
  });

  it("prefer a literal segment to a variable", () => {
    expect(target("GET", "/integrations/credentials/provider/credentials")).toBe("ListCredentials(provider=credentials)");
    expect(target("GET", "/integrations/credentials/c1/credentials")).toBe("ResolveCredential(credential_id=c1)");
    expect(target("GET", "/integrations/credentials/catalog")).toBe("GetCredential(credential_id=catalog)");
    expect(target("DELETE", "/integrations/credentials/provider/credentials")).toBe("wrong_method");
  });

  it("compare the path as it came", () => {
    for (const path of [
      "/integrations/credentials/", "/integrations//credentials", "//integrations/credentials", "/Integrations/credentials", "/integrations/%63redentials",
      "/api/api/integrations/credentials", "/api", "/api/", "/", "/apiintegrations/credentials", "/integrations/credentials/a/b", "/flow.credentials.v1.CredentialService/GetCredential",
    ]) expect(target("GET", path), path).toBe("unknown");
  });

  it("name the methods of a path that exists", () => {
    const found = findRoute(all, "PUT", "/integrations/credentials/c1");
    expect(found.kind === "wrong_method" && [...found.allow].sort()).toEqual(["DELETE", "GET", "PATCH"]);
  });

  it("leave out what is withheld, and refuse to withhold what is not there", () => {
    const without = compileRoutes(registry, ["ResolveCredential"]);
    expect(findRoute(without, "GET", "/integrations/credentials/c1/credentials").kind).toBe("unknown");
    expect(() => compileRoutes(registry, ["RevealCredential"])).toThrow("no annotated RPC is named RevealCredential");
  });
});

describe("a path", () => {
  it.each([
    "/a/../b", "/a/./b", "/..", "/a/%2e%2e/b", "/a/%2E./b", "/a/.%2e", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a\0", "/a b", "/ä", "a", "", "*", "http://host/a", "/a#b", "/a\nb",
  ])("that two readers may read differently is ambiguous: %j", (path) => {
    expect(isAmbiguousPath(path)).toBe(true);
  });

  it.each(["/", "/a", "/a/...", "/a/.b", "/a/b.", "/a/%zz", "/a/%252e%252e", "/a/b;c=d", "/a//b"])("that has one reading is not: %j", (path) => {
    expect(isAmbiguousPath(path)).toBe(false);
  });
});
