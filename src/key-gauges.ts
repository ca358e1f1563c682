import type { Metrics, Sample } from "./metrics.ts";
import { ROTATION_KINDS } from "./domain/rotation.ts";
import type { KeyTally } from "./vault/key-tally.ts";

/** States of a rotation that is not over. */
const STATES = ["running", "paused", "proving", "incomplete", "proven"] as const;

/** Where keys and their rotations stand. Labels are words of ours: no id of a key or an organization. Nothing is told where nothing is known. */
export function watchKeys(metrics: Pick<Metrics, "watch">, tally: () => Promise<KeyTally | undefined>): void {
  const gauge = (name: string, help: string, labelNames: readonly string[], samples: (known: KeyTally) => readonly Sample[]) =>
    metrics.watch({
      name,
      help,
      labelNames,
      read: async () => {
        const known = await tally();
        return known === undefined ? [] : samples(known);
      },
    });
  gauge("credentials_master_keys", "Master keys: loaded by this process, used by organization keys, and missing: used and not loaded here.", ["which"], ({ masterKeys: { loaded, used, missing } }) => [
    [{ which: "loaded" }, loaded], [{ which: "used" }, used], [{ which: "missing" }, missing],
  ]);
  gauge("credentials_organization_keys", "Versions of organization keys, by whether the primary master key wraps them; the others are left to be moved.", ["master_key"], ({ organizationKeys: { underPrimary, underOthers } }) => [
    [{ master_key: "primary" }, underPrimary], [{ master_key: "other" }, underOthers],
  ]);
  const of = (known: KeyTally, kind: string) => known.rotations.filter((rotation) => rotation.kind === kind);
  gauge("credentials_rotations", "Rotations that are not over; a proven one is over once its old keys are retired.", ["kind", "state"], (known) =>
    ROTATION_KINDS.flatMap((kind) => STATES.map((state): Sample => [{ kind, state }, of(known, kind).find((rotation) => rotation.state === state)?.rotations ?? 0])),
  );
  gauge("credentials_rotation_rows_left", "Rows that rotations still have to move to a new key, or to read back for a verification; of a hundred rotations at most.", ["kind"], (known) =>
    ROTATION_KINDS.map((kind): Sample => [{ kind }, of(known, kind).reduce((sum, { rowsLeft }) => sum + rowsLeft, 0)]),
  );
}
