import fc from "fast-check";
import { test } from "vitest";
import { type Binding, encodeAad } from "../../src/crypto/aad.ts";

const long = process.env["FLOW_TEST_LONG"] !== undefined;
const numRuns = long ? 1_000_000 : 20_000;
const timeout = long ? 1_200_000 : 60_000;

/** Short texts from few characters, so that borders between fields are often ambiguous; now and then a huge one. */
const text = fc.oneof(
  { weight: 200, arbitrary: fc.string({ unit: fc.constantFrom("a", "b", "\0", "\u0001", "é", "🔑"), maxLength: 4 }) },
  { weight: 1, arbitrary: fc.constantFrom("a", "\0").map((unit) => unit.repeat(64 * 1024)) },
);
const uuid = fc.constantFrom(
  "00000000-0000-0000-0000-000000000000",
  "00000000-0000-0000-0000-000000000001",
  "61616161-6161-6161-6161-616161616161",
  "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
);
const binding: fc.Arbitrary<Binding> = fc.record({
  purpose: fc.constantFrom("secret", "organization-key"),
  organizationId: uuid,
  credentialId: uuid,
  provider: text,
  type: text,
  secretVersion: fc.oneof(fc.bigInt({ min: 0n, max: 3n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  header: text.map((value) => Buffer.from(value)),
});

/** Reads the fields back, by the documented encoding alone. */
function decode(aad: Buffer): Buffer[] {
  const fields: Buffer[] = [];
  for (let offset = 0; offset < aad.length; ) {
    const end = offset + 4 + aad.readUInt32BE(offset);
    fields.push(aad.subarray(offset + 4, end));
    offset = end;
  }
  return fields;
}

const raw = (id: string): Buffer => Buffer.from(id.replaceAll("-", ""), "hex");

test("every binding can be read back from its encoding, so no two share one", { timeout }, () => {
  fc.assert(
    fc.property(binding, (value) => {
      const [context, purpose, organization, credential, provider, type, version, header, ...rest] = decode(encodeAad(value));
      return (
        rest.length === 0 &&
        context?.toString() === "flow-credentials/v1" &&
        purpose?.toString() === value.purpose &&
        organization?.equals(raw(value.organizationId)) === true &&
        credential?.equals(raw(value.credentialId)) === true &&
        provider?.toString() === value.provider &&
        type?.toString() === value.type &&
        version?.length === 8 &&
        version.readBigUInt64BE() === value.secretVersion &&
        header?.equals(value.header) === true
      );
    }),
    { numRuns },
  );
});

test("moving characters across the border of two fields always changes the encoding", { timeout }, () => {
  fc.assert(
    fc.property(binding, text, text, text, (value, a, b, c) => {
      const one = encodeAad({ ...value, provider: a + b, type: c });
      const two = encodeAad({ ...value, provider: a, type: b + c });
      return one.equals(two) === (b === "");
    }),
    { numRuns },
  );
});
