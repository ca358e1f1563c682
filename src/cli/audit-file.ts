import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { z } from "zod";
import { type ChainFault, ChainReader, firstFault, headFault, type HeadKeys, type SignedHead } from "../domain/audit-chain.ts";
import { CliError } from "./failure.ts";

const text = z.string().nullable();
const hash = z.string().regex(/^[0-9a-f]{64}$/);
const link = z.int().min(1);

/** One line of an export: a record of the trail, or one of its signed heads. */
const Line = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("event"), organization_id: z.string(), link, position: z.int().min(1), occurred_at: z.iso.datetime({ offset: true }), request_id: z.string(),
    actor_kind: z.string(), actor_id: z.string(), action: z.string(), outcome: z.string(), reason: text, credential_id: text, flow_id: text, run_id: text,
    subject_id: text, key_id: text, uses: z.int().min(1).optional(), hash,
  }),
  z.strictObject({ type: z.literal("head"), organization_id: z.string(), link, hash, key_id: z.string(), signed_at: z.iso.datetime({ offset: true }), signature: z.base64() }),
]);

/** A line of an export as it is written. */
export type ExportLine = z.input<typeof Line>;

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
 * Checks an export: its records in the order of the chain, then its signed heads. Needs nothing but the file and the public
 * keys. Throws CliError for a file that is no export.
 */
export async function checkExport(path: string, keys: HeadKeys, expected: Expected | undefined): Promise<FileCheck> {
  const reader = new ChainReader();
  const hashes = new Map<number, string>();
  const heads: SignedHead[] = [];
  let organizationId: string | null = null;
  let fault: ChainFault | undefined;
  let at = 0;
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
    at++;
    if (line === "") continue;
    const parsed = Line.safeParse(jsonOf(line));
    if (!parsed.success) throw new CliError(`line ${at} of the file is not of an audit export`);
    organizationId ??= parsed.data.organization_id;
    if (parsed.data.organization_id !== organizationId) throw new CliError(`line ${at} of the file is of another organization`);
    if (parsed.data.type === "head") {
      const { link: of, hash: signed, key_id: keyId, signed_at, signature } = parsed.data;
      heads.push({ link: of, hash: signed, keyId, signedAtMs: Date.parse(signed_at), signature: Buffer.from(signature, "base64") });
      continue;
    }
    const { type: _, occurred_at, ...event } = parsed.data;
    hashes.set(event.link, event.hash);
    fault ??= reader.next({
      link: event.link, position: event.position, organizationId, occurredAtMs: Date.parse(occurred_at), requestId: event.request_id, actorKind: event.actor_kind, actorId: event.actor_id,
      action: event.action, outcome: event.outcome, reason: event.reason, credentialId: event.credential_id, flowId: event.flow_id, runId: event.run_id,
      subjectId: event.subject_id, keyId: event.key_id, uses: event.uses ?? null, hash: event.hash,
    });
  }
  fault ??= reader.end();
  const ofHeads = organizationId === null ? undefined : headsFault({ organizationId, heads, keys, hashes, end: reader.place.link });
  const kept: ChainFault | undefined =
    expected === undefined || hashes.get(expected.link) === expected.hash ? undefined : { link: Math.min(expected.link, reader.place.link + 1), position: 0, kind: hashes.has(expected.link) ? "altered" : "cut" };
  return { organizationId, records: reader.records, signedHeads: heads.length, ...reader.place, fault: firstFault(firstFault(fault, ofHeads), kept) };
}

function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

interface Heads {
  readonly organizationId: string;
  readonly heads: readonly SignedHead[];
  readonly keys: HeadKeys;
  readonly hashes: ReadonlyMap<number, string>;
  readonly end: number;
}

function headsFault({ organizationId, heads, keys, hashes, end }: Heads): ChainFault | undefined {
  for (const head of [...heads].sort((a, b) => a.link - b.link)) {
    const fault = headFault(organizationId, head, keys);
    if (fault) return fault;
    if (!hashes.has(head.link)) return { link: end + 1, position: 0, kind: "cut" };
    if (hashes.get(head.link) !== head.hash) return { link: head.link, position: 0, kind: "signature" };
  }
  return undefined;
}
