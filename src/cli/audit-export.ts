import type { AdminClient, SignedAuditHead } from "../client/admin.ts";
import { headFacts, recordFacts } from "./audit-lines.ts";
import type { Context } from "./context.ts";

/** Records that are asked for at a time. */
const PAGE = 1_000;

/** The organization that an export without one names. */
const OPERATORS = "00000000-0000-0000-0000-000000000000";

/** Further than any link. */
const END = 2n ** 53n;

/** The trail to export; without an organization the one of the operators' own. */
export interface ExportOf {
  readonly organizationId?: string;
}

/** Signed heads of a trail in their order, read a page at a time. */
class Heads {
  readonly #admin: AdminClient;
  readonly #of: ExportOf;
  #page: SignedAuditHead[] = [];
  #after = 0n;
  #all = false;

  constructor(admin: AdminClient, of: ExportOf) {
    this.#admin = admin;
    this.#of = of;
  }

  /** Takes the next head, if it is of a link up to this one. */
  async take(upTo: bigint): Promise<SignedAuditHead | undefined> {
    if (this.#page.length === 0 && !this.#all) {
      ({ heads: this.#page } = await this.#admin.listSignedAuditHeads({ ...this.#of, afterLink: this.#after }));
      this.#all = this.#page.length === 0;
    }
    const [head] = this.#page;
    if (head === undefined || head.link > upTo) return undefined;
    this.#page.shift();
    this.#after = head.link;
    return head;
  }

  /** Looks again for heads after the last one that was taken. */
  again(): void {
    [this.#page, this.#all] = [[], false];
  }
}

/**
 * Prints a trail as lines of JSON: its records in the order of the chain, each signed head after the records of its link,
 * and a last line that says how much there was. Holds a page at a time, and goes on only as fast as what it prints is taken.
 */
export async function exportTrail(admin: AdminClient, of: ExportOf, { print, taken, progress }: Context): Promise<void> {
  const organization_id = of.organizationId ?? OPERATORS;
  const heads = new Heads(admin, of);
  let [link, records, signedHeads] = [0n, 0, 0];
  const printHead = (head: SignedAuditHead) => {
    signedHeads++;
    print(JSON.stringify({ type: "head", organization_id, ...headFacts(head) }));
  };
  for (let pageToken: string | undefined = ""; pageToken !== undefined; ) {
    const { events, nextPageToken } = await admin.listAuditEvents({ ...of, pageSize: PAGE, pageToken, oldestFirst: true });
    for (const event of events) {
      if (event.link !== link) for (let head; (head = await heads.take(link)); ) printHead(head);
      link = event.link;
      records++;
      print(JSON.stringify({ type: "event", organization_id, ...recordFacts(event) }));
    }
    await taken?.();
    progress?.(`${records} records`);
    pageToken = nextPageToken === "" ? undefined : nextPageToken;
  }
  progress?.(null);
  const beyond: SignedAuditHead[] = [];
  heads.again();
  for (let head; (head = await heads.take(END)); ) {
    if (head.link === link) printHead(head);
    else if (head.link > link) beyond.push(head);
  }
  const { events: [newest] } = await admin.listAuditEvents({ ...of, pageSize: 1, pageToken: "", oldestFirst: false });
  // A trail that went on meanwhile has signed heads of records that came too late for this export. Where there are no such
  // records they were cut off, and whoever checks the export is to see it.
  for (const head of beyond) if (head.link > (newest?.link ?? 0n)) printHead(head);
  print(JSON.stringify({ type: "end", organization_id, link: Number(link), records, signed_heads: signedHeads }));
}
