import type { KeyObject } from "node:crypto";
import type { AuditSigner } from "../crypto/audit-signer.ts";
import { CHAIN_BEGINNING, type ChainFault, type ChainPlace, ChainReader, type ChainRecord, firstFault, headFault, type HeadKeys, type SignedHead } from "../domain/audit-chain.ts";
import type { Log } from "../log.ts";
import type { Store, TrailFilter, TrailOrder, TrailPlace } from "../store/store.ts";
import { type Grant, OPERATOR_TRAIL } from "./gate.ts";

/** What reading and checking audit trails needs. */
export interface TrailDeps {
  readonly store: Pick<Store, "trail">;
  readonly signer: Pick<AuditSigner, "publicKey">;
  /** Every public key whose signatures are believed, the signer's own among them. */
  readonly headKeys: HeadKeys;
}

/** Which trail is meant; null for the one of the operators' own. */
export interface TrailOf {
  readonly organizationId: string | null;
}

/** A page of a trail. */
export interface TrailPage extends TrailOf {
  readonly filter: TrailFilter;
  readonly order: TrailOrder;
  readonly beyond: TrailPlace | null;
  readonly most: number;
}

/** What was found in one part of a chain. */
export interface TrailCheck {
  readonly fault: ChainFault | undefined;
  readonly place: ChainPlace;
  readonly records: number;
  readonly signedHeads: number;
  readonly complete: boolean;
}

/** Records that one call checks, at least: the link in which this is reached is checked to its end. */
const CHECKED_AT_ONCE = 20_000;

/** Records that are read at a time. */
const READ_AT_ONCE = 2_000;

/** Signed heads that are read at a time. */
const HEADS_AT_ONCE = 1_000;

const trailOf = ({ organizationId }: TrailOf): string => organizationId ?? OPERATOR_TRAIL;

/** Records of a trail, and where the next page begins. */
export async function listAuditEvents({ store }: TrailDeps, grant: Grant<"list_audit_events">, page: TrailPage): Promise<{ events: ChainRecord[]; next: TrailPlace | null }> {
  const events = await store.trail.list(trailOf(page), page.filter, page.order, page.beyond, page.most + 1, grant.call.signal);
  const more = events.length > page.most;
  const shown = events.slice(0, page.most);
  return { events: shown, next: more ? (shown.at(-1) ?? null) : null };
}

/** Signed heads of a trail, oldest first, and the key that signs now. */
export async function listSignedAuditHeads({ store, signer }: TrailDeps, grant: Grant<"list_signed_audit_heads">, { afterLink, ...trail }: TrailOf & { readonly afterLink: number }): Promise<{ heads: SignedHead[]; publicKey: KeyObject }> {
  return { heads: await store.trail.signedHeads(trailOf(trail), afterLink, HEADS_AT_ONCE, grant.call.signal), publicKey: signer.publicKey };
}

/** Checks one part of a chain: its records, the signed heads among them and, at its end, its head. */
export async function verifyAudit({ store, headKeys }: TrailDeps, grant: Grant<"verify_audit">, { afterLink, ...trail }: TrailOf & { readonly afterLink: number }): Promise<TrailCheck> {
  const organizationId = trailOf(trail);
  const { signal } = grant.call;
  const from = await placeAt(store, organizationId, afterLink, signal);
  if (!from) return { fault: { link: afterLink, position: 0, kind: "missing" }, place: CHAIN_BEGINNING, records: 0, signedHeads: 0, complete: true };
  // Read first: what is written meanwhile makes the trail longer than this head, never shorter.
  const head = await store.trail.head(organizationId, signal);
  const hashes = new Map<number, string>([[from.link, from.hash]]);
  const reader = new ChainReader(from);
  let fault: ChainFault | undefined;
  let complete = false;
  let after = from.link;
  while (!fault && !complete && reader.records < CHECKED_AT_ONCE) {
    const rows = await store.trail.records(organizationId, after, READ_AT_ONCE, signal);
    complete = rows.length < READ_AT_ONCE;
    // A page may end inside a link: its last link is read again with the next page, unless it is the only one.
    const last = rows.at(-1)?.link ?? after;
    const whole = complete || rows[0]?.link === last ? rows : rows.filter(({ link }) => link < last);
    for (const row of whole) {
      fault ??= reader.next(row);
      hashes.set(row.link, row.hash);
    }
    fault ??= reader.end();
    after = whole.at(-1)?.link ?? after;
  }
  const place = reader.place;
  if (!fault && complete && (head?.link ?? 0) > place.link) fault = { link: place.link + 1, position: 0, kind: "cut" };
  if (!fault && head && hashes.has(head.link) && hashes.get(head.link) !== head.hash) fault = { link: head.link, position: 0, kind: "head" };
  const signed = await checkHeads(store, { organizationId, headKeys, from: from.link, until: complete ? Infinity : place.link, hashes, end: place.link }, signal);
  return { fault: firstFault(fault, signed.fault), place, records: reader.records, signedHeads: signed.checked, complete: complete || fault !== undefined };
}

async function placeAt(store: TrailDeps["store"], organizationId: string, link: number, signal: AbortSignal): Promise<ChainPlace | undefined> {
  if (link === 0) return CHAIN_BEGINNING;
  const hash = await store.trail.linkHash(organizationId, link, signal);
  return hash === undefined ? undefined : { link, hash };
}

interface HeadCheck {
  readonly organizationId: string;
  readonly headKeys: HeadKeys;
  readonly from: number;
  readonly until: number;
  readonly hashes: ReadonlyMap<number, string>;
  /** The last link of the chain that is good. */
  readonly end: number;
}

/** The first signed head after a link that is not good, or not of the chain that was read. */
async function checkHeads(store: TrailDeps["store"], { organizationId, headKeys, from, until, hashes, end }: HeadCheck, signal: AbortSignal): Promise<{ fault: ChainFault | undefined; checked: number }> {
  let checked = 0;
  for (let after = from; ; ) {
    const heads = await store.trail.signedHeads(organizationId, after, HEADS_AT_ONCE, signal);
    for (const head of heads) {
      if (head.link > until) return { fault: undefined, checked };
      const known = hashes.get(head.link);
      // A link that was written after the records were read is not cut: it is newer than the chain's head was.
      const fault = headFault(organizationId, head, headKeys) ?? (known === undefined ? await cutFault(store, organizationId, head, end, signal) : known === head.hash ? undefined : ({ link: head.link, position: 0, kind: "signature" } as const));
      if (fault) return { fault, checked };
      checked++;
    }
    if (heads.length < HEADS_AT_ONCE) return { fault: undefined, checked };
    after = heads.at(-1)?.link ?? after;
  }
}

async function cutFault(store: TrailDeps["store"], organizationId: string, head: SignedHead, end: number, signal: AbortSignal): Promise<ChainFault | undefined> {
  const hash = await store.trail.linkHash(organizationId, head.link, signal);
  return hash === head.hash ? undefined : { link: end + 1, position: 0, kind: "cut" };
}

/** What signing needs. */
export interface SigningDeps {
  readonly store: Pick<Store, "trail">;
  readonly signer: AuditSigner;
  readonly log: Log;
  readonly now: () => Date;
}

/** Organizations whose heads are looked at together. */
const ORGANIZATIONS_AT_ONCE = 500;

/** Signs every head that has moved since it was last signed; gives how many. Any number of replicas may do so at once. */
export async function signHeads({ store, signer, log, now }: SigningDeps): Promise<number> {
  let signed = 0;
  for (let after: string | null = null; ; ) {
    const organizations: string[] = await store.trail.organizations(after, ORGANIZATIONS_AT_ONCE);
    if (organizations.length === 0) return signed;
    for (const { organizationId, link, hash } of await store.trail.unsigned(organizations)) {
      await store.trail.keep(organizationId, signer.sign(organizationId, { link, hash }, now().getTime()));
      // Whoever keeps these lines elsewhere can tell a trail that was cut together with its signatures.
      log.info({ organization_id: organizationId, link, hash, key_id: signer.keyId }, "audit head signed");
      signed++;
    }
    after = organizations.at(-1) ?? null;
  }
}
