import { isUuid, NIL_UUID } from "../domain/credential.ts";

const CONTEXT = "flow-credentials/v1";
const FIELDS = 8;
const LENGTH_BYTES = 4;
const UUID_BYTES = 16;
const U64_BYTES = 8;
const MAX_U64 = 0xffff_ffff_ffff_ffffn;

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
  const { purpose, organizationId, credentialId, provider, type, secretVersion, header } = binding;
  const texts = Buffer.byteLength(purpose) + Buffer.byteLength(provider) + Buffer.byteLength(type);
  // In one piece: it is made for every secret that is sealed or opened.
  const encoded = Buffer.allocUnsafe(FIELDS * LENGTH_BYTES + CONTEXT.length + texts + 2 * UUID_BYTES + U64_BYTES + header.length);
  let at = putText(encoded, 0, CONTEXT);
  at = putText(encoded, at, purpose);
  at = putUuid(encoded, at, organizationId);
  at = putUuid(encoded, at, credentialId);
  at = putText(encoded, at, provider);
  at = putText(encoded, at, type);
  at = putU64(encoded, at, secretVersion);
  header.copy(encoded, encoded.writeUInt32BE(header.length, at));
  return encoded;
}

function putText(to: Buffer, at: number, text: string): number {
  // Node would write U+FFFD for every lone surrogate, and two texts would become one.
  if (!text.isWellFormed()) throw new TypeError("a bound text is not well-formed Unicode");
  const bytes = to.write(text, at + LENGTH_BYTES, "utf8");
  return to.writeUInt32BE(bytes, at) + bytes;
}

function putUuid(to: Buffer, at: number, uuid: string): number {
  if (!isUuid(uuid)) throw new TypeError("a bound id is not a UUID");
  const start = to.writeUInt32BE(UUID_BYTES, at);
  return start + to.write(uuid.replaceAll("-", ""), start, "hex");
}

function putU64(to: Buffer, at: number, value: bigint): number {
  if (value < 0n || value > MAX_U64) throw new TypeError("a bound version is not an unsigned 64-bit number");
  return to.writeBigUInt64BE(value, to.writeUInt32BE(U64_BYTES, at));
}
