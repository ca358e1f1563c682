import { createHash, createPublicKey, type KeyObject, verify } from "node:crypto";

/** One record of an audit trail, as it is chained: times in ms since 1970, absent values null. */
export interface ChainRecord {
  readonly link: number;
  readonly position: number;
  readonly organizationId: string;
  readonly occurredAtMs: number;
  readonly requestId: string;
  readonly actorKind: string;
  readonly actorId: string;
  readonly action: string;
  readonly outcome: string;
  readonly reason: string | null;
  readonly credentialId: string | null;
  readonly flowId: string | null;
  readonly runId: string | null;
  readonly subjectId: string | null;
  readonly keyId: string | null;
  /** Calls that it stands for; null for the one that it names. */
  readonly calls: number | null;
  /** Hash of the link, hexadecimal. */
  readonly hash: string;
}

/** A signed head of a chain. */
export interface SignedHead {
  readonly link: number;
  /** Hexadecimal. */
  readonly hash: string;
  readonly keyId: string;
  readonly signedAtMs: number;
  readonly signature: Buffer;
}

/** What can be wrong with a chain. */
export type ChainFaultKind = "missing" | "misplaced" | "altered" | "cut" | "head" | "signature" | "unknown_key";

/** The first thing that is wrong with a chain. */
export interface ChainFault {
  readonly link: number;
  /** 0 where any record of the link may be at fault. */
  readonly position: number;
  readonly kind: ChainFaultKind;
}

const SENTENCES: Readonly<Record<ChainFaultKind, string>> = {
  missing: "a record is missing here",
  misplaced: "a record is not where it belongs",
  altered: "a record is not what was written, or one was removed or put in",
  cut: "the trail ends before a head that was signed",
  head: "the trail does not end where its head says",
  signature: "a signed head was not signed by its key, or is not of this chain",
  unknown_key: "a head was signed by a key that is not known here",
};

/** A fault as one sentence. */
export const chainFaultSentence = ({ link, position, kind }: ChainFault): string => `link ${link}${position === 0 ? "" : `, record ${position}`}: ${SENTENCES[kind]}`;

const sha256 = (...parts: readonly (Buffer | string)[]): Buffer => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();

/** Bytes before link 1, in the place of a hash. */
const BEGINNING = "00".repeat(32);

/**
 * Digest of a record: SHA-256 of the UTF-8 text of a JSON array of its fields, with a space after each comma. The number of
 * calls is part of it where it is there, and the two fields before it where any of the three is.
 */
export function recordDigest(record: ChainRecord): Buffer {
  const { organizationId, occurredAtMs, requestId, actorKind, actorId, action, outcome, reason, credentialId, flowId, runId, subjectId, keyId, calls } = record;
  const fields = [organizationId, occurredAtMs, requestId, actorKind, actorId, action, outcome, reason, credentialId, flowId, runId];
  const named = subjectId === null && keyId === null && calls === null ? fields : [...fields, subjectId, keyId];
  const all = calls === null ? named : [...named, calls];
  return sha256(`[${all.map((field) => JSON.stringify(field)).join(", ")}]`);
}

/** How far a chain has been read. */
export interface ChainPlace {
  readonly link: number;
  /** Hash of that link, hexadecimal; zeros at the beginning. */
  readonly hash: string;
}

/** Where every chain begins. */
export const CHAIN_BEGINNING: ChainPlace = { link: 0, hash: BEGINNING };

/**
 * Reads a chain in order and finds the first record that is not as it was written:
 * hash of a link = sha256(hash of the link before ‖ sha256(digests of the link's records, in order)).
 */
export class ChainReader {
  #place: ChainPlace;
  #open: ChainRecord[] = [];
  #fault: ChainFault | undefined;
  /** Records of whole links that were read. */
  records = 0;

  constructor(from: ChainPlace = CHAIN_BEGINNING) {
    this.#place = from;
  }

  /** The last link that is whole and good. */
  get place(): ChainPlace {
    return this.#place;
  }

  /** Takes the next record; gives the fault that it shows, if any. */
  next(record: ChainRecord): ChainFault | undefined {
    if (this.#fault) return this.#fault;
    const before = this.#open[0];
    if (before && record.link !== before.link) this.#close();
    const expected = this.#place.link + 1;
    if (this.#fault) return this.#fault;
    if (record.link !== expected) return this.#wrong(record.link > expected ? { link: expected, position: 0, kind: "missing" } : { link: record.link, position: record.position, kind: "misplaced" });
    if (record.position !== this.#open.length + 1) {
      const missing = record.position > this.#open.length + 1;
      return this.#wrong({ link: expected, position: missing ? this.#open.length + 1 : record.position, kind: missing ? "missing" : "misplaced" });
    }
    this.#open.push(record);
    return undefined;
  }

  /** Ends after the last record that was taken; gives the fault of its link, if any. */
  end(): ChainFault | undefined {
    if (!this.#fault && this.#open.length > 0) this.#close();
    return this.#fault;
  }

  #close(): void {
    const [first, ...more] = this.#open as [ChainRecord, ...ChainRecord[]];
    const hash = sha256(Buffer.from(this.#place.hash, "hex"), sha256(...this.#open.map(recordDigest))).toString("hex");
    const odd = this.#open.find((record) => record.hash !== hash);
    if (odd) this.#wrong({ link: first.link, position: more.length === 0 ? 1 : 0, kind: "altered" });
    else {
      this.#place = { link: first.link, hash };
      this.records += this.#open.length;
    }
    this.#open = [];
  }

  #wrong(fault: ChainFault): ChainFault {
    this.#fault = fault;
    return fault;
  }
}

/** What is signed of a head: a label, the organization, the link, its hash, and the time. */
export function headStatement(organizationId: string, { link, hash, signedAtMs }: Pick<SignedHead, "link" | "hash" | "signedAtMs">): Buffer {
  const numbers = Buffer.alloc(16);
  numbers.writeBigUInt64BE(BigInt(link), 0);
  numbers.writeBigUInt64BE(BigInt(signedAtMs), 8);
  return Buffer.concat([Buffer.from("flow-credentials/v1/audit-head\0"), Buffer.from(organizationId.replaceAll("-", ""), "hex"), numbers, Buffer.from(hash, "hex")]);
}

/** Public keys by their ids. */
export type HeadKeys = ReadonlyMap<string, KeyObject>;

/** The id of a public key: the beginning of the SHA-256 of its DER form. */
export const headKeyId = (key: KeyObject): string => sha256(key.export({ format: "der", type: "spki" })).toString("hex").slice(0, 16);

/** Reads Ed25519 public keys from PEM, one or several; undefined where anything else is in it. */
export function readHeadKeys(pem: string): HeadKeys | undefined {
  const parts = pem.match(/-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----/g) ?? [];
  try {
    const keys = parts.map((part) => createPublicKey(part));
    if (keys.length === 0 || keys.some((key) => key.asymmetricKeyType !== "ed25519")) return undefined;
    return new Map(keys.map((key) => [headKeyId(key), key]));
  } catch {
    return undefined;
  }
}

/** What is wrong with the signature of a head; undefined where it is good. Whether it is of this chain is another question. */
export function headFault(organizationId: string, head: SignedHead, keys: HeadKeys): ChainFault | undefined {
  const key = keys.get(head.keyId);
  if (!key) return { link: head.link, position: 0, kind: "unknown_key" };
  const good = verify(null, headStatement(organizationId, head), key, head.signature);
  return good ? undefined : { link: head.link, position: 0, kind: "signature" };
}

/** The earlier of two faults; at the same link the first one given. */
export const firstFault = (a: ChainFault | undefined, b: ChainFault | undefined): ChainFault | undefined => (!a || (b && b.link < a.link) ? b : a);
