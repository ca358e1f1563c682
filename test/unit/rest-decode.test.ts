import { fromBinary, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { decodeRequest } from "../../src/rest/decode.ts";
import { loadDescriptors } from "../../src/rest/descriptors.ts";
import { compileRoutes, findRoute } from "../../src/rest/routes.ts";

const routes = compileRoutes(loadDescriptors(), []);

function decode(verb: string, path: string, body?: unknown) {
  const found = findRoute(routes, verb, path);
  if (found.kind !== "route") throw new Error(found.kind);
  const { bytes, faults } = decodeRequest(found.route, found.params, body === undefined ? undefined : { value: JSON.parse(JSON.stringify(body)) });
  const message = toJson(found.route.method.input, fromBinary(found.route.method.input, bytes), { useProtoFieldName: true });
  return { message, faults };
}
const create = (body?: unknown) => decode("POST", "/integrations/credentials", body);
const good = { provider: "sftp", credential_type: "user_password", credentials: { host: "h", port: 22, nested: { list: [1, null, true, "x"] } }, name: "n" };

describe("a body", () => {
  it("fills the request by the documented names", () => {
    expect(create(good)).toEqual({ message: { ...good, provider: "PROVIDER_SFTP", credential_type: "CREDENTIAL_TYPE_USER_PASSWORD" }, faults: [] });
  });

  it("may have fields nobody knows, which are left out, camel case and internal ones among them", () => {
    const { credential_type: _, ...rest } = good;
    const { message, faults } = create({ ...rest, credentialType: "key_file", organization_id: "o", id: "i", user_id: "u", deleted_at: "t", secret_version: 9 });
    expect(Object.keys(message as object).sort()).toEqual(["credentials", "name", "provider"]);
    expect(faults).toEqual([]);
  });

  it("that is absent is one fault of the body as a whole", () => {
    expect(create().faults).toEqual([{ in: "body", path: [], type: "missing", message: "Field required" }]);
  });

  it.each([[[]], ["text"], [1], [null], [true]])("that is no object is one fault of the body as a whole: %j", (body) => {
    expect(create(body)).toMatchObject({ message: {}, faults: [{ in: "body", path: [], type: "model_attributes_type" }] });
  });

  it("leaves missing fields to the service", () => {
    expect(create({}).faults).toEqual([]);
  });

  it.each(["SFTP", "Sftp", " sftp", "PROVIDER_SFTP", "provider_sftp", "unspecified", "", "ſftp", 3, 0, 3.5, true, null, [], ["sftp"], {}, { a: 1 }])(
    "names a provider in exactly the documented spelling: not %j",
    (provider) => {
      const words = "'microsoft', 'sharepoint', 'sftp', 'aws_ses', 'google', 'postgresql' or 'internal_postgresql'";
      expect(create({ ...good, provider }).faults).toEqual([{ in: "body", path: ["provider"], type: "enum", message: `Input should be ${words}` }]);
    },
  );

  it.each([[[]], ["text"], [1], [true], [null]])("has an object for credentials: not %j", (credentials) => {
    expect(create({ ...good, credentials }).faults).toEqual([{ in: "body", path: ["credentials"], type: "dict_type", message: "Input should be a valid dictionary" }]);
  });

  it.each([[5], [true], [{}], [[]]])("has text for a name: not %j", (name) => {
    expect(create({ ...good, name }).faults).toEqual([{ in: "body", path: ["name"], type: "string_type", message: "Input should be a valid string" }]);
  });

  it("may give null for what is optional", () => {
    expect(create({ ...good, name: null })).toMatchObject({ faults: [] });
    expect(decode("PATCH", "/integrations/credentials/c1", { credential_type: "key_file", credentials: {}, name: null, etag: null }).faults).toEqual([]);
  });

  it("may have several faults, each under its own path", () => {
    expect(create({ provider: 1, credential_type: "x", credentials: "s", name: 2 }).faults.map(({ path, type }) => [...path, type])).toEqual([
      ["provider", "enum"], ["credential_type", "enum"], ["credentials", "dict_type"], ["name", "string_type"],
    ]);
  });

  it("keeps the keys of credentials as they are, even those that name methods of objects", () => {
    const credentials = { toString: "a", hasOwnProperty: { valueOf: 1 }, camelCase: 1, "": 2, "a.b": null };
    expect(create({ ...good, credentials }).message).toMatchObject({ credentials });
  });
});

describe("a path", () => {
  it("wins over the body", () => {
    const { message } = decode("PATCH", "/integrations/credentials/from-path", { credential_id: "from-body", credential_type: "key_file", credentials: {} });
    expect(message).toMatchObject({ credential_id: "from-path" });
  });

  it("is percent-decoded once", () => {
    expect(decode("GET", "/integrations/credentials/a%20%C3%A9%252e").message).toEqual({ credential_id: "a é%2e" });
  });

  it.each(["%", "%zz", "%c3", "%ff", "a%C3%28"])("that does not decode is a fault of its field: %j", (part) => {
    const { message, faults } = decode("GET", `/integrations/credentials/${part}`);
    expect(message).toEqual({});
    expect(faults).toMatchObject([{ in: "path", path: ["credential_id"] }]);
  });

  it.each(["sftp", "SFTP", "sFtP", "%73ftp"])("names a provider in any case: %j", (word) => {
    expect(decode("GET", `/integrations/credentials/provider/${word}`)).toEqual({ message: { provider: "PROVIDER_SFTP" }, faults: [] });
  });

  it.each(["unspecified", "PROVIDER_SFTP", "3", "0", "sftp%20", "%C5%BFftp", "ftp", "toString", "__proto__"])("names no other provider: %j", (word) => {
    expect(decode("GET", `/integrations/credentials/provider/${word}`)).toMatchObject({ message: {}, faults: [{ in: "path", path: ["provider"], type: "enum" }] });
  });
});
