import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { z } from "zod";
import { type ChainFault, type ChainPlace, ChainReader, headFault, type HeadKeys } from "../domain/audit-chain.ts";
import { CliError } from "./failure.ts";

const text = z.string().nullable();
const hash = z.string().regex(/^[0-9a-f]{64}$/);
const link = z.int().min(1);
const count = z.int().min(0);
const time = z.iso.datetime({ offset: true });

/** One line of an export: a record of the trail, one of its signed heads, or its end. */
const Line = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("event"), organization_id: z.string(), link, position: z.int().min(1), occurred_at: time, request_id: z.string(),
    actor_kind: z.string(), actor_id: z.string(), action: z.string(), outcome: z.string(), reason: text, credential_id: text, flow_id: text, run_id: text,
    subject_id: text, key_id: text, calls: link.nullable(), hash,
  }),
  z.strictObject({ type: z.literal("head"), organization_id: z.string(), link, hash, key_id: z.string(), signed_at: time, signature: z.base64() }),
  z.strictObject({ type: z.literal("end"), organization_id: z.string(), link: count, records: count, signed_heads: count }),
]);
type Line = z.output<typeof Line>;
type LineOf<T extends Line["type"]> = Extract<Line, { type: T }>;

/** What was found in an export. */
export interface FileCheck {
  readonly organizationId: string | null;
  readonly records: number;
  readonly signedHeads: number;
  readonly link: number;
  readonly hash: string;
  readonly fault: ChainFault | undefined;
}

/** A link whose hash somebody has kept elsewhere. */
export interface Expected {
  readonly link: number;
  readonly hash: string;
}

/**
 * Checks an export: its records in the order of the chain, each signed head after the records of its link, and its end. Needs
 * nothing but the file and the public keys, and holds one link at a time. What comes after the first fault is not looked at.
 * Throws CliError for a file that is no export, or not a whole one.
 */
export async function checkExport(path: string, keys: HeadKeys, expected: Expected | undefined): Promise<FileCheck> {
  const check = new ExportCheck(keys, expected);
  let [at, ended] = [0, false];
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
    at++;
    if (line === "") continue;
    const parsed = Line.safeParse(jsonOf(line));
    if (!parsed.success || ended) throw new CliError(`line ${at} of the file is not of an audit export`);
    if (parsed.data.organization_id !== (check.organizationId ?? parsed.data.organization_id)) throw new CliError(`line ${at} of the file is of another organization`);
    ended = check.take(parsed.data) === "ended";
    if (check.fault) return check.result();
  }
  if (!ended) throw new CliError("the file ends before the export does");
  return check.result();
}

function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** What is known of an export line by line. */
class ExportCheck {
  readonly #keys: HeadKeys;
  #expected: Expected | undefined;
  readonly #reader = new ChainReader();
  #signedHeads = 0;
  organizationId: string | null = null;
  fault: ChainFault | undefined;

  constructor(keys: HeadKeys, expected: Expected | undefined) {
    this.#keys = keys;
    this.#expected = expected;
  }

  take(line: Line): "goes on" | "ended" {
    this.organizationId = line.organization_id;
    if (line.type === "event") this.#event(line);
    else if (line.type === "head") this.#head(line);
    else this.#end(line);
    return line.type === "end" ? "ended" : "goes on";
  }

  result(): FileCheck {
    return { organizationId: this.organizationId, records: this.#reader.records, signedHeads: this.#signedHeads, ...this.#reader.place, fault: this.fault };
  }

  #event(event: LineOf<"event">): void {
    this.fault ??= this.#reader.next({
      link: event.link, position: event.position, organizationId: event.organization_id, occurredAtMs: Date.parse(event.occurred_at), requestId: event.request_id, actorKind: event.actor_kind, actorId: event.actor_id,
      action: event.action, outcome: event.outcome, reason: event.reason, credentialId: event.credential_id, flowId: event.flow_id, runId: event.run_id,
      subjectId: event.subject_id, keyId: event.key_id, calls: event.calls, hash: event.hash,
    });
    this.fault ??= this.#unexpected(this.#reader.place);
  }

  #head({ organization_id: organizationId, link: of, hash: signed, key_id: keyId, signed_at, signature }: LineOf<"head">): void {
    this.#signedHeads++;
    const place = this.#closed();
    this.fault ??= headFault(organizationId, { link: of, hash: signed, keyId, signedAtMs: Date.parse(signed_at), signature: Buffer.from(signature, "base64") }, this.#keys);
    if (of > place.link) this.fault ??= { link: place.link + 1, position: 0, kind: "cut" };
    else if (of < place.link) this.fault ??= { link: of, position: 0, kind: "misplaced" };
    else if (signed !== place.hash) this.fault ??= { link: of, position: 0, kind: "signature" };
  }

  #end({ link: last, records, signed_heads }: LineOf<"end">): void {
    const place = this.#closed();
    if (this.#expected) this.fault ??= { link: place.link + 1, position: 0, kind: "cut" };
    if (!this.fault && (place.link !== last || this.#reader.records !== records || this.#signedHeads !== signed_heads)) throw new CliError("the file holds less, or more, than its last line says");
  }

  /** The place after the link that was being read. */
  #closed(): ChainPlace {
    this.fault ??= this.#reader.end();
    const { place } = this.#reader;
    this.fault ??= this.#unexpected(place);
    return place;
  }

  /** The fault of a link that is not as somebody has kept it. */
  #unexpected(place: ChainPlace): ChainFault | undefined {
    if (place.link !== this.#expected?.link) return undefined;
    const same = place.hash === this.#expected.hash;
    this.#expected = undefined;
    return same ? undefined : { link: place.link, position: 0, kind: "altered" };
  }
}
