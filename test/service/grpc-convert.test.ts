import { readFileSync } from "node:fs";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { expect, it, test } from "vitest";
import { UpdateCredentialRequest } from "../../gen/flow/credentials/v1/credential_service.ts";
import { CredentialStatus, CredentialType, Provider } from "../../gen/flow/credentials/v1/resources.ts";
import { CREDENTIAL_STATUSES, CREDENTIAL_TYPES, PROVIDERS } from "../../src/domain/credential.ts";
import * as convert from "../../src/grpc/convert.ts";
import { decodeRequest } from "../../src/grpc/decode.ts";
import { createReflection } from "../../src/grpc/reflection.ts";
import { record, RPCS } from "../support/grpc.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;

const TABLES: [string, readonly string[], convert.EnumTable<string>, Record<string, number>][] = [
  ["PROVIDER_", PROVIDERS, convert.providers, Provider],
  ["CREDENTIAL_TYPE_", CREDENTIAL_TYPES, convert.credentialTypes, CredentialType],
  ["CREDENTIAL_STATUS_", CREDENTIAL_STATUSES, convert.credentialStatuses, CredentialStatus],
];

test.each(TABLES)("%s: words and enum values are one to one, and only UNSPECIFIED has no word", (prefix, words, table, values) => {
  const named = words.map((word) => [`${prefix}${word.toUpperCase()}`, table.number(word)]);
  expect(Object.fromEntries([[`${prefix}UNSPECIFIED`, 0], ...named])).toEqual(values);
  for (const word of words) expect(table.word(table.number(word))).toBe(word);
  for (const number of [0, -1, 99, 2 ** 31]) expect(table.word(number)).toBeUndefined();
});

it("shows an account e-mail for Google credentials and for no other", () => {
  const accountEmail = "someone@example.com";
  expect(convert.toCredential(record({ provider: "google", accountEmail })).googleEmail).toBe(accountEmail);
  expect(convert.toCredential(record({ provider: "microsoft", accountEmail })).googleEmail).toBeUndefined();
});

it("leaves out what is null, and says in the detail what it knows", () => {
  const bare = convert.toCredentialDetail(record({ userId: null }), "r1");
  expect([bare.userId, bare.googleEmail, bare.statusReason, bare.tokenExpiresAt, bare.name]).toEqual(Array(5).fill(undefined));
  const tokenExpiresAt = new Date(0);
  const full = convert.toCredentialDetail(record({ status: "reauth_required", statusReason: "invalid_grant", tokenExpiresAt, name: "n" }), "r2");
  expect(full).toMatchObject({ status: CredentialStatus.CREDENTIAL_STATUS_REAUTH_REQUIRED, statusReason: "invalid_grant", tokenExpiresAt, name: "n", etag: "r2" });
});

it("reads any bytes as a request or as none, and never throws", () => {
  const credentials = { a: [{ b: "__proto__" }, null, 1] };
  const sound = RPCS.updateCredential.requestSerialize({ credentialId: "x", credentialType: 5, credentials, name: "n", etag: "e" });
  const mutated = fc
    .array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 })
    .map((changes) => changes.reduce((bytes, [at, value]) => (bytes.writeUInt8(value, at), bytes), Buffer.from(sound)));
  const property = fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes))), (bytes) => {
    const decoded = decodeRequest(UpdateCredentialRequest, bytes);
    expect(decoded === undefined || typeof decoded.message.credentialId === "string").toBe(true);
  });
  fc.assert(property, { numRuns: LONG ? 1_000_000 : 5_000 });
}, LONG ? 600_000 : 30_000);

/** Asks a reflection service one question after another, without a network. */
async function reflect(questions: object[]): Promise<{ $case: string; value: never }[]> {
  const answers: { $case: string; value: never }[] = [];
  const ended = new Promise<void>((end) => {
    const stream = {
      cancelled: false,
      writableEnded: false,
      getPeer: () => "peer",
      once: () => {},
      write: ({ messageResponse }: { messageResponse: { $case: string; value: never } }) => answers.push(messageResponse),
      end,
      emit: () => end(),
      async *[Symbol.asyncIterator]() {
        for (const messageRequest of questions) yield { host: "", messageRequest };
      },
    };
    createReflection(["a.B"]).implementation.serverReflectionInfo(stream as never);
  });
  await ended;
  return answers;
}

it("reflects every file byte for byte as it was built, with what it imports", async () => {
  const set = readFileSync(new URL("../../gen/descriptors.binpb", import.meta.url));
  const exact = new Map<string, Buffer>();
  const { file } = fromBinary(FileDescriptorSetSchema, set);
  const reader = new BinaryReader(set);
  for (const { name } of file) {
    reader.tag();
    exact.set(name, Buffer.from(reader.bytes()));
  }
  const symbols = [...Object.values(RPCS).map(({ path }) => path.slice(1).replace("/", ".")), "flow.credentials.v1.Provider", "flow.credentials.v1.Credential.id"];
  for (const { $case, value } of await reflect(symbols.map((symbol) => ({ $case: "fileContainingSymbol", value: symbol })))) {
    expect($case).toBe("fileDescriptorResponse");
    const [own, ...imports] = (value as { fileDescriptorProto: Buffer[] }).fileDescriptorProto;
    expect([...exact.values()].some((bytes) => bytes.equals(own ?? Buffer.alloc(0)))).toBe(true);
    expect(imports.length).toBeGreaterThan(0);
  }
  const [named] = await reflect([{ $case: "fileByFilename", value: "google/protobuf/struct.proto" }]);
  expect(named?.value).toEqual({ fileDescriptorProto: [exact.get("google/protobuf/struct.proto")] });
});

it("answers questions about what it does not have, and goes on", async () => {
  const http = { containingType: "google.protobuf.MethodOptions", extensionNumber: 72_295_728 };
  const answers = await reflect([
    { $case: "fileByFilename", value: "../../etc/passwd" },
    { $case: "fileContainingSymbol", value: "flow.none.Thing" },
    { $case: "fileContainingSymbol", value: "" },
    { $case: "fileContainingExtension", value: { containingType: "flow.none", extensionNumber: 1 } },
    { $case: "fileContainingExtension", value: http },
    { $case: "allExtensionNumbersOfType", value: http.containingType },
    { $case: "allExtensionNumbersOfType", value: "flow.none" },
    { $case: "nothing of the kind" },
    { $case: "listServices", value: "" },
  ]);
  expect(answers.map(({ $case }) => $case.replace("Response", ""))).toEqual([
    "error", "error", "error", "error", "fileDescriptor", "allExtensionNumbers", "error", "error", "listServices",
  ]);
  expect(answers[5]?.value).toEqual({ baseTypeName: http.containingType, extensionNumber: [http.extensionNumber] });
});
