import { setTimeout as sleep } from "node:timers/promises";
import type { AdminClient, Rotation } from "../client/admin.ts";
import type { Context } from "./context.ts";
import { CliError } from "./failure.ts";
import { ProgressBar } from "./progress.ts";

/** Names of the states and kinds, by their numbers on the wire. */
const STATES = ["unspecified", "running", "paused", "proving", "proven", "incomplete", "retired", "rolled_back"];
const KINDS = ["unspecified", "master_key", "organization_key", "verification"];

/** States in which a rotation goes on by itself. */
const UNDER_WAY = ["running", "proving"];

/** Pause between two looks, ms. */
const LOOK_MS = 500;

/** The state of a rotation, as a word. */
export const stateOf = ({ state }: Rotation): string => STATES[state] ?? "unknown";

/** A rotation as JSON. */
export function rotationJson(rotation: Rotation): Record<string, unknown> {
  return {
    id: rotation.id,
    kind: KINDS[rotation.kind] ?? "unknown",
    state: stateOf(rotation),
    organization_id: rotation.organizationId ?? null,
    from: rotation.fromMasterKeyId ?? rotation.fromVersion ?? null,
    to: rotation.toMasterKeyId ?? rotation.toVersion ?? null,
    rows_total: Number(rotation.rowsTotal),
    rows_left: Number(rotation.rowsLeft),
    rows_moved: Number(rotation.rowsMoved),
    rows_verified: Number(rotation.rowsVerified),
    rows_failed: Number(rotation.rowsFailed),
    failures: rotation.failures.map(({ organizationId, credentialId = null, keyVersion, kind }) => ({ organization_id: organizationId, credential_id: credentialId, key_version: keyVersion, kind })),
    rows_per_second: rotation.rowsPerSecond ?? null,
    started_at: rotation.startedAt ?? null,
    finished_at: rotation.finishedAt ?? null,
    started_by: rotation.startedBy,
    proof: rotation.proof ?? null,
    rolls_back: rotation.rollsBack ?? null,
  };
}

/** A rotation in one line. */
export function rotationLine(rotation: Rotation): string {
  const { kind, organization_id, from, to } = rotationJson(rotation);
  const move = to === null ? "" : ` ${String(from ?? "-")} -> ${String(to)}`;
  const where = organization_id === null ? "" : ` of ${String(organization_id)}`;
  const counts = `${rotation.rowsLeft} left, ${rotation.rowsMoved} moved, ${rotation.rowsVerified} read back, ${rotation.rowsFailed} failed`;
  return `${rotation.id} ${String(kind)}${move}${where}: ${stateOf(rotation)}; ${counts}`;
}

/** The rotation of an answer. */
export function given({ rotation }: { readonly rotation?: Rotation | undefined }): Rotation {
  if (!rotation) throw new CliError("the service answered without a rotation");
  return rotation;
}

/**
 * Waits for the end of a rotation and shows how far it is. Gives it as it is then. Interrupting it interrupts nothing but
 * the waiting.
 */
export async function watch(context: Context, admin: AdminClient, rotationId: string): Promise<Rotation> {
  const moving = new ProgressBar();
  const proving = new ProgressBar();
  for (;;) {
    const rotation = given(await admin.getRotation({ rotationId }));
    const [total, left, verified] = [Number(rotation.rowsTotal), Number(rotation.rowsLeft), Number(rotation.rowsVerified)];
    if (!UNDER_WAY.includes(stateOf(rotation))) {
      context.progress?.(null);
      return rotation;
    }
    if (stateOf(rotation) === "proving") context.progress?.(proving.line("reading back", verified, Math.max(total, verified)));
    else if (left === 0 && total > 0) context.progress?.("everything is moved; waiting until no replica and no transaction uses the old key any more");
    else context.progress?.(moving.line("moving", Math.max(0, total - left), total));
    await sleep(LOOK_MS);
  }
}

/** Prints the end of a rotation. Throws CliError where it has not ended well. */
export function conclude(context: Context, rotation: Rotation, json: boolean): void {
  if (json) context.print(JSON.stringify(rotationJson(rotation)));
  else context.print(rotationLine(rotation));
  for (const { organizationId, credentialId, kind } of json ? [] : rotation.failures) context.note(`does not open (${kind}): organization ${organizationId}${credentialId === undefined ? "" : `, credential ${credentialId}`}`);
  const state = stateOf(rotation);
  if (state === "incomplete") throw new CliError(`${rotation.rowsFailed} row(s) do not open; mend or replace them, then: flow-credentials keys resume ${rotation.id}`);
  if (state === "paused") throw new CliError(`the rotation is paused; go on with: flow-credentials keys resume ${rotation.id}`);
  if (state === "rolled_back") throw new CliError("the rotation was taken back meanwhile");
}
