import { NIL_UUID } from "../domain/credential.ts";

const CONTEXT = "flow-credentials/v1";
const LENGTH_BYTES = 4;
const MAX_U64 = 0xffff_ffff_ffff_ffffn;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The UUID that stands where a binding has no credential. */
export const NO_CREDENTIAL = NIL_UUID;

/** What sealed bytes are bound to: they authenticate nowhere else. None of it is confidential. */
export interface Binding {
  /** Keeps the kinds of sealed bytes apart. */
  readonly purpose: "secret" | "organization-key" | "authorization";
  /** UUID, in any case. */
  readonly organizationId: string;
  /** UUID, in any case. */
  readonly credentialId: string;
  readonly provider: string;
  readonly type: string;
  /** From 0 to 2^64 - 1. */
  readonly secretVersion: bigint;
  /** Every byte that precedes the IV in the sealed bytes. */
  readonly header: Buffer;
}

/**
 * The additional authenticated data (NIST SP 800-38D section 5.2.1.1) for a binding. Eight fields in this order, each as
 * its length in bytes (u32, big-endian) and then its bytes, so that different bindings never give the same data:
 *
 *     "flow-credentials/v1" | purpose | organization id | credential id | provider | type | secret version | header
 *
 * Texts are UTF-8. Ids are the 16 raw bytes of the UUID (RFC 9562 section 4), so that letter case cannot matter. The
 * secret version is a u64, big-endian, always 8 bytes.
 *
 *     field            sealed secret               wrapped organization key           authorization in progress
 *     purpose          "secret"                    "organization-key"                 "authorization"
 *     organization id  the organization            the organization                   the organization
 *     credential id    the credential              16 zero bytes                      the authorization
 *     provider, type   documented spelling         empty                              documented spelling, empty
 *     secret version   version of the secret       version of the organization key    0
 *     header           bytes before the IV         bytes before the IV                bytes before the IV
 *
 * Throws TypeError for an id that is no UUID, a text that is not well-formed Unicode or a version out of range.
 */
export function encodeAad(binding: Binding): Buffer {
  return lengthPrefixed([
    utf8(CONTEXT),
    utf8(binding.purpose),
    uuidBytes(binding.organizationId),
    uuidBytes(binding.credentialId),
    utf8(binding.provider),
    utf8(binding.type),
    u64(binding.secretVersion),
    binding.header,
  ]);
}

function lengthPrefixed(fields: readonly Buffer[]): Buffer {
  const encoded = Buffer.allocUnsafe(fields.reduce((total, field) => total + LENGTH_BYTES + field.length, 0));
  let offset = 0;
  for (const field of fields) {
    offset = encoded.writeUInt32BE(field.length, offset);
    offset += field.copy(encoded, offset);
  }
  return encoded;
}

function utf8(text: string): Buffer {
  // Node would write U+FFFD for every lone surrogate, and two texts would become one.
  if (!text.isWellFormed()) throw new TypeError("a bound text is not well-formed Unicode");
  return Buffer.from(text, "utf8");
}

function uuidBytes(uuid: string): Buffer {
  if (!UUID.test(uuid)) throw new TypeError("a bound id is not a UUID");
  return Buffer.from(uuid.replaceAll("-", ""), "hex");
}

function u64(value: bigint): Buffer {
  if (value < 0n || value > MAX_U64) throw new TypeError("a bound version is not an unsigned 64-bit number");
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}
