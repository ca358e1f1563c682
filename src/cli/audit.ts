import { accessSync, constants, readFileSync } from "node:fs";
import type { Command } from "commander";
import type { AdminClient, AuditEvent } from "../client/admin.ts";
import { recordFacts } from "./audit-lines.ts";
import { addConnection, callAdmin, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { CliError, usage } from "./failure.ts";
import { time, uuid, whole } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly org?: string;
  readonly from?: string;
  readonly until?: string;
  readonly action?: string;
  readonly outcome?: string;
  readonly actor?: string;
  readonly credential?: string;
  readonly flow?: string;
  readonly run?: string;
  readonly request?: string;
  readonly most: string;
  readonly file?: string;
  readonly publicKey?: string;
  readonly expect?: string;
  readonly json?: true;
}

const EXAMPLE = `
Example:
  $ flow-credentials audit list --org 22222222-2222-4222-8222-222222222222 --action resolve_credential --from 2026-11-01T00:00:00Z
  $ flow-credentials audit export --org 22222222-2222-4222-8222-222222222222 > trail.jsonl
  $ flow-credentials audit public-key > audit.pub.pem
  $ flow-credentials audit verify --file trail.jsonl --public-key audit.pub.pem
  $ flow-credentials audit verify --org 22222222-2222-4222-8222-222222222222`;

const PAGE = 1_000;
const MAX_LISTED = 1_000_000;

const organizationOf = ({ org }: Options): { organizationId?: string } => (org === undefined ? {} : { organizationId: uuid("--org", org) });

/** Every record of a trail that fits, newest first. */
async function* eventsOf(admin: AdminClient, filter: object): AsyncGenerator<AuditEvent> {
  for (let pageToken = ""; ; ) {
    const { events, nextPageToken } = await admin.listAuditEvents({ ...filter, pageSize: PAGE, pageToken, oldestFirst: false });
    yield* events;
    if (nextPageToken === "") return;
    pageToken = nextPageToken;
  }
}

/** `audit`: lists, exports and checks audit trails. */
export function addAudit(program: Command, context: Context): void {
  const group = program.command("audit").description("audit trails: who did what with which credential").addHelpText("after", EXAMPLE);
  const command = (name: string, description: string) =>
    addConnection(group.command(name)).description(description).option("--org <uuid>", "the organization; without it, the trail of the operators' own").option("--json", "print JSON").addHelpText("after", EXAMPLE);

  command("list", "list records, newest first")
    .option("--from <time>", "not before this time, such as 2026-11-01T00:00:00Z")
    .option("--until <time>", "before this time")
    .option("--action <word>", "only this action, such as resolve_credential")
    .option("--outcome <word>", "only allowed, refused, cancelled or failed")
    .option("--actor <id>", "only this user, service account or operator")
    .option("--credential <uuid>", "only this credential")
    .option("--flow <id>", "only this flow")
    .option("--run <id>", "only this run")
    .option("--request <id>", "only this request")
    .option("--most <n>", "records at most", "100")
    .action(async (options: Options) => {
      const most = whole("--most", options.most, 1, MAX_LISTED);
      const filter = {
        ...organizationOf(options),
        ...(options.from === undefined ? {} : { from: time("--from", options.from) }),
        ...(options.until === undefined ? {} : { until: time("--until", options.until) }),
        ...(options.credential === undefined ? {} : { credentialId: uuid("--credential", options.credential) }),
        action: options.action, outcome: options.outcome, actorId: options.actor, flowId: options.flow, runId: options.run, requestId: options.request,
      };
      let listed = 0;
      await callAdmin(context, options, async (admin) => {
        for await (const event of eventsOf(admin, filter)) {
          if (listed++ === most) break;
          context.print(options.json ? JSON.stringify(recordFacts(event)) : lineOf(event));
        }
      });
    });

  command("export", "print a whole trail and its signed heads, one JSON object a line, to be checked elsewhere").action(async (options: Options) => {
    await callAdmin(context, options, async (admin) => (await import("./audit-export.ts")).exportTrail(admin, organizationOf(options), context));
  });

  addConnection(group.command("public-key"))
    .description("print the public key that signs audit heads now, PEM; keep it where the service cannot change it")
    .addHelpText("after", EXAMPLE)
    .action(async (options: Options) => context.print((await callAdmin(context, options, (admin) => admin.listSignedAuditHeads({ afterLink: 0n }))).publicKey.trim()));

  command("verify", "check a trail of the service, or an export of it, and name the first bad record")
    .option("--file <export>", "check this export, without the service")
    .option("--public-key <file>", "public keys that sign audit heads, PEM; required with --file")
    .option("--expect <link:hash>", "a link and its hash that were kept elsewhere; only with --file")
    .action((options: Options) => (options.file === undefined ? verifyOnline(context, options) : verifyFile(context, options, options.file)));
}

function lineOf(event: AuditEvent): string {
  const flow = event.flowId === undefined ? "" : ` flow ${event.flowId}${event.runId === undefined ? "" : ` run ${event.runId}`}`;
  const what = event.credentialId === undefined ? (event.subjectId ?? "-") : event.credentialId;
  return `${event.occurredAt?.toISOString() ?? "-"}  ${event.outcome}${event.reason === undefined ? "" : ` ${event.reason}`}  ${event.action} ${what}  by ${event.actorKind} ${event.actorId}${flow}  request ${event.requestId}`;
}

/** What a check says; a fault is a failure. */
function tell({ print }: Context, { json }: Options, check: { records: number; signedHeads: number; link: number; hash: string; fault: { link: number; position: number; kind: string; message: string } | null }): void {
  const { records, signedHeads, link, hash, fault } = check;
  if (json) print(JSON.stringify({ good: fault === null, records, signed_heads: signedHeads, link, hash, fault }));
  else if (fault === null) print(`good: ${records} records and ${signedHeads} signed heads, up to link ${link} (${hash || "-"})`);
  if (fault !== null) throw new CliError(`the trail is not as it was written: ${fault.message}`);
}

async function verifyOnline(context: Context, options: Options): Promise<void> {
  if (options.publicKey !== undefined || options.expect !== undefined) throw usage("--public-key and --expect go with --file");
  const of = organizationOf(options);
  let [records, signedHeads] = [0, 0];
  const last = await callAdmin(context, options, async (admin) => {
    for (let afterLink = 0n; ; ) {
      const part = await admin.verifyAudit({ ...of, afterLink });
      records += Number(part.records);
      signedHeads += Number(part.signedHeads);
      if (part.complete) return part;
      context.progress?.(`${records} records`);
      afterLink = part.link;
    }
  });
  context.progress?.(null);
  const { fault, link, hash } = last;
  tell(context, options, { records, signedHeads, link: Number(link), hash, fault: fault ? { link: Number(fault.link), position: fault.position, kind: fault.kind, message: fault.message } : null });
}

async function verifyFile(context: Context, options: Options, file: string): Promise<void> {
  if (options.publicKey === undefined) throw usage("--public-key is required with --file");
  const expected = options.expect === undefined ? undefined : /^(\d{1,15}):([0-9a-f]{64})$/.exec(options.expect);
  if (expected === null) throw usage("--expect must be a link and its hash, such as 120:9f…");
  // Loaded here alone: nobody else needs it.
  const [{ checkExport }, { chainFaultSentence, readHeadKeys }] = await Promise.all([import("./audit-file.ts"), import("../domain/audit-chain.ts")]);
  const keys = readHeadKeys(readText("--public-key", options.publicKey));
  if (!keys) throw new CliError("the file of --public-key must hold Ed25519 public keys in PEM and nothing else");
  readable("--file", () => accessSync(file, constants.R_OK));
  const { fault, ...check } = await checkExport(file, keys, expected === undefined ? undefined : { link: Number(expected[1]), hash: expected[2] as string });
  if (options.org !== undefined && check.organizationId !== null && check.organizationId !== uuid("--org", options.org)) throw new CliError("the export is of another organization");
  tell(context, options, { ...check, fault: fault ? { ...fault, message: chainFaultSentence(fault) } : null });
}

const readText = (option: string, path: string): string => readable(option, () => readFileSync(path, "utf8"));

function readable<T>(option: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new CliError(`the file of ${option} cannot be read (${error instanceof Error && "code" in error ? String(error.code) : "error"})`);
  }
}
