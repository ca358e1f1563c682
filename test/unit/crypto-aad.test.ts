import { expect, test } from "vitest";
import { type Binding, encodeAad } from "../../src/crypto/aad.ts";

const binding: Binding = {
  purpose: "secret",
  organizationId: "00112233-4455-6677-8899-aabbccddeeff",
  credentialId: "ffeeddcc-bbaa-9988-7766-554433221100",
  provider: "sftp",
  type: "key_file",
  secretVersion: 258n,
  header: Buffer.from("c50101", "hex"),
};

test("the encoding is the documented one, byte for byte", () => {
  const hex = [
    `00000013${Buffer.from("flow-credentials/v1").toString("hex")}`,
    `00000006${Buffer.from("secret").toString("hex")}`,
    "0000001000112233445566778899aabbccddeeff",
    "00000010ffeeddccbbaa99887766554433221100",
    `00000004${Buffer.from("sftp").toString("hex")}`,
    `00000008${Buffer.from("key_file").toString("hex")}`,
    "000000080000000000000102",
    "00000003c50101",
  ].join("");
  expect(encodeAad(binding).toString("hex")).toBe(hex);
});

test("the letter case of an id does not matter", () => {
  const upper = { ...binding, organizationId: binding.organizationId.toUpperCase(), credentialId: binding.credentialId.toUpperCase() };
  expect(encodeAad(upper)).toEqual(encodeAad(binding));
});

test.each<[string, Partial<Binding>]>([
  ["purpose", { purpose: "organization-key" }],
  ["organization", { organizationId: "00112233-4455-6677-8899-aabbccddeefe" }],
  ["credential", { credentialId: "ffeeddcc-bbaa-9988-7766-554433221101" }],
  ["provider", { provider: "sftp\0" }],
  ["type", { type: "" }],
  ["secret version", { secretVersion: 0xffff_ffff_ffff_ffffn }],
  ["header", { header: Buffer.alloc(0) }],
  ["border between provider and type", { provider: "sftpk", type: "ey_file" }],
])("another %s gives other data", (_, change) => {
  expect(encodeAad({ ...binding, ...change })).not.toEqual(encodeAad(binding));
});

test.each<[string, Partial<Binding>]>([
  ["an id that is no UUID", { organizationId: "00112233445566778899aabbccddeeff" }],
  ["an id with something after it", { credentialId: `${binding.credentialId}0` }],
  ["an empty id", { credentialId: "" }],
  ["a lone surrogate", { provider: "\ud800" }],
  ["a negative version", { secretVersion: -1n }],
  ["a version beyond 64 bits", { secretVersion: 2n ** 64n }],
])("%s is refused and never encoded as something else", (_, change) => {
  expect(() => encodeAad({ ...binding, ...change })).toThrow(TypeError);
});
