import type { Command } from "commander";
import type { AdminClient, GetKeyStatusResponse, Rotation } from "../client/admin.ts";
import { addConnection, callAdmin, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { usage } from "./failure.ts";
import { conclude, given, rotationJson, rotationLine, watch } from "./rotation.ts";
import { uuid, whole } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly json?: true;
  readonly masterKey?: string;
  readonly org?: string;
  readonly rowsPerSecond?: string;
  readonly detach?: true;
}

const EXAMPLE = `
Example:
  $ flow-credentials keys status
  $ flow-credentials keys rotate --master-key 2030-01
  $ flow-credentials keys rotate --org 22222222-2222-4222-8222-222222222222 --rows-per-second 500
  $ flow-credentials keys retire 7d1f0d6e-5c6b-4f5e-9a43-0c3f7b1d2a10`;

const MAX_RATE = 1_000_000;

const rate = ({ rowsPerSecond }: Options, minimum: number): number | undefined => (rowsPerSecond === undefined ? undefined : whole("--rows-per-second", rowsPerSecond, minimum, MAX_RATE));

function printStatus(context: Context, { masterKeys, replicas, rotations }: GetKeyStatusResponse, json: boolean): void {
  const silent = (at: GetKeyStatusResponse["replicas"][number]) => Number(at.silentFor?.seconds ?? 0n);
  if (json) {
    const keys = masterKeys.map(({ id, primary, organizationKeys, firstSeen = null, retiredAt = null }) => ({ id, primary, organization_keys: Number(organizationKeys), first_seen: firstSeen, retired_at: retiredAt }));
    const alive = replicas.map((at) => ({ id: at.id, master_keys: at.masterKeyIds, silent_seconds: silent(at), key_cache_seconds: at.keyCacheSeconds }));
    return context.print(JSON.stringify({ master_keys: keys, replicas: alive, rotations: rotations.map(rotationJson) }));
  }
  for (const { id, primary, organizationKeys, retiredAt } of masterKeys) {
    const loaded = replicas.filter(({ masterKeyIds }) => masterKeyIds.includes(id)).length;
    context.print(`master key ${id}: ${primary ? "primary, " : retiredAt ? "retired, " : ""}wraps ${organizationKeys}, loaded by ${loaded} of ${replicas.length} replica(s)`);
  }
  for (const at of replicas) context.print(`replica ${at.id}: ${at.masterKeyIds.join(", ")}; reported ${silent(at)} s ago`);
  for (const rotation of rotations) context.print(`rotation ${rotationLine(rotation)}`);
}

/** A command that begins something and waits for its end. */
function beginning(context: Context, command: Command, begin: (admin: AdminClient, options: Options) => Promise<Rotation>): void {
  addConnection(command)
    .option("--rows-per-second <number>", "most rows in a second; no limit without it")
    .option("--detach", "do not wait for its end; the service goes on either way")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action((options: Options) =>
      callAdmin(context, options, async (admin) => {
        const begun = await begin(admin, options);
        if (options.detach) return context.print(options.json ? JSON.stringify(rotationJson(begun)) : begun.id);
        conclude(context, await watch(context, admin, begun.id), options.json === true);
      }),
    );
}

/** A command about one rotation; with `wait` it waits for its end afterwards. */
function about(context: Context, command: Command, wait: boolean, act: (admin: AdminClient, rotationId: string, options: Options) => Promise<Rotation>): void {
  addConnection(command.argument("<rotation>", "id of the rotation"))
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action((id: string, options: Options) =>
      callAdmin(context, options, async (admin) => {
        const rotation = await act(admin, uuid("the rotation", id), options);
        if (wait) return conclude(context, await watch(context, admin, rotation.id), options.json === true);
        context.print(options.json ? JSON.stringify(rotationJson(rotation)) : rotationLine(rotation));
      }),
    );
}

/** `keys status|rotate|verify|watch|pause|resume|throttle|roll-back|retire`. */
export function addKeys(program: Command, context: Context): void {
  const group = program.command("keys").description("master keys, organization keys and their rotation").addHelpText("after", EXAMPLE);
  addConnection(group.command("status").description("show which master keys there are, which replica has loaded which, and the newest rotations"))
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action((options: Options) => callAdmin(context, options, async (admin) => printStatus(context, await admin.getKeyStatus({}), options.json === true)));
  beginning(
    context,
    group.command("rotate").description("move everything to another master key, or one organization to a new key of its own, and wait for the proof")
      .option("--master-key <id>", "the master key that is to be the primary one; every replica must have loaded it")
      .option("--org <uuid>", "the organization that is to get a new key"),
    async (admin, options) => {
      const rowsPerSecond = rate(options, 1);
      if ((options.masterKey === undefined) === (options.org === undefined)) throw usage("give exactly one of --master-key and --org");
      if (options.masterKey !== undefined) return given(await admin.rotateMasterKey({ masterKeyId: options.masterKey, rowsPerSecond }));
      return given(await admin.rotateOrganizationKey({ organizationId: uuid("--org", options.org ?? ""), rowsPerSecond }));
    },
  );
  beginning(
    context,
    group.command("verify").description("read back every organization key and every secret, and change nothing").option("--org <uuid>", "only of this organization"),
    async (admin, options) => {
      const organizationId = options.org === undefined ? undefined : uuid("--org", options.org);
      return given(await admin.verifyKeys({ organizationId, rowsPerSecond: rate(options, 1) }));
    },
  );
  about(context, group.command("watch").description("wait for the end of a rotation"), true, async (admin, rotationId) => given(await admin.getRotation({ rotationId })));
  about(context, group.command("pause").description("halt a rotation"), false, async (admin, rotationId) => given(await admin.controlRotation({ rotationId, paused: true })));
  about(context, group.command("resume").description("go on with a rotation that was halted, or try again what did not open"), true, async (admin, rotationId) =>
    given(await admin.controlRotation({ rotationId, paused: false })),
  );
  about(
    context,
    group.command("throttle").description("change how fast a rotation goes").requiredOption("--rows-per-second <number>", "most rows in a second; 0 for no limit"),
    false,
    async (admin, rotationId, options) => given(await admin.controlRotation({ rotationId, rowsPerSecond: rate(options, 0) })),
  );
  about(context, group.command("roll-back").description("go back to the key before a rotation"), true, async (admin, rotationId) => given(await admin.rollBackRotation({ rotationId })));
  about(context, group.command("retire").description("retire the keys that a proven rotation has emptied; cannot be undone"), false, async (admin, rotationId) =>
    given(await admin.retireRotatedKeys({ rotationId })),
  );
}
