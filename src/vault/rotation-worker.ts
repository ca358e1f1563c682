import { ProofDigest } from "../crypto/move.ts";
import type { AuditEvent } from "../domain/access.ts";
import { CredentialError } from "../domain/errors.ts";
import type { Rotation } from "../domain/rotation.ts";
import { errorFields, identified, type Log, newRequestId } from "../log.ts";
import type { ReplicaStore } from "../store/replicas.ts";
import type { RotationStore } from "../store/rotations.ts";
import { OPERATOR_TRAIL } from "./gate.ts";
import { Hold, HoldLost } from "./rotation-hold.ts";
import { countEverything, moveKeys, moveSecrets, type PassDeps, readEverything, readKeys, readSecrets } from "./rotation-pass.ts";

/** What the worker needs. */
export interface WorkerDeps extends PassDeps {
  readonly rotations: RotationStore;
  readonly replicas: ReplicaStore;
  readonly log: Log;
  /** UUID of this process. */
  readonly id: string;
  /** Time between two looks for work, ms. */
  readonly pollMs: number;
  /** How much longer than their caches last replicas are given to notice a new organization key, ms. */
  readonly settleMs: number;
  /** How long a rotation stays with a replica that does not report, ms. */
  readonly leaseMs: number;
}

/** Rotations that one replica works on at a time. */
const AT_ONCE = 4;

/** Pause where every row that is left is locked by somebody, and between two looks at transactions that have to end, ms. */
const PAUSE_MS = 100;

/**
 * Works on rotations in the background of every replica that has the keys. Not in a command: a terminal that closes, or one
 * that never had the keys, must not decide whether a rotation ends. Operators begin and steer rotations by calls, which
 * change a row; whichever replica is free takes it, holds it by a lease, and reports with every batch. How far it is is read
 * from the rows themselves, so that a replica which dies at any moment leaves nothing behind but its lease.
 */
export class RotationWorker {
  readonly #deps: WorkerDeps;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;

  constructor(deps: WorkerDeps) {
    this.#deps = deps;
  }

  /** Looks for work from now on. */
  start(): void {
    this.#timer = setInterval(() => this.wake(), this.#deps.pollMs);
    this.#timer.unref();
    this.wake();
  }

  /** Looks for work now. */
  wake(): void {
    if (this.#stop.signal.aborted) return;
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined));
  }

  async #look(): Promise<void> {
    const { rotations, id, leaseMs, log } = this.#deps;
    try {
      while (this.#running.size < AT_ONCE && !this.#stop.signal.aborted) {
        const rotation = await rotations.claim(id, leaseMs);
        if (rotation === undefined) return;
        const work = this.#work(rotation).finally(() => this.#running.delete(work));
        this.#running.add(work);
      }
    } catch (error) {
      identified(log).warn(errorFields(error), "rotations could not be looked for");
    }
  }

  async #work(rotation: Rotation): Promise<void> {
    const { rotations, id: holder, leaseMs } = this.#deps;
    const log = identified(this.#deps.log);
    const hold = new Hold(rotations, rotation, { holder, leaseMs, stop: this.#stop.signal });
    try {
      await this.#run(hold, log);
    } catch (error) {
      if (!(error instanceof HoldLost)) log.warn({ ...errorFields((error as Error).cause ?? error), reason: error instanceof CredentialError ? error.reason : undefined }, "a rotation was interrupted; it goes on by itself");
      await hold.release().catch(() => {});
    }
  }

  async #run(hold: Hold, log: Log): Promise<void> {
    const { rotation } = hold;
    const { ring } = this.#deps;
    if (rotation.kind === "master_key") {
      await ring.refresh();
      // Taken back, or a replica without the key: whoever has it goes on.
      if (ring.primaryId !== rotation.toMasterKeyId || !ring.complete) throw new HoldLost();
    }
    if (rotation.state === "running") {
      if (rotation.kind === "verification") await this.#deps.rotations.measure(rotation.id, hold.holder, await countEverything(this.#deps, hold, rotation.organizationId));
      else if (!(await this.#moveAll(hold))) return;
      hold.beginPass();
      await hold.conclude("proving");
    }
    await this.#prove(hold);
    log.info({ key_id: rotation.toMasterKeyId, organization_id: rotation.organizationId, count: hold.verified }, "a rotation was read back");
  }

  /** Moves every row. False where rows are left that do not open. */
  async #moveAll(hold: Hold): Promise<boolean> {
    if (hold.rotation.kind === "master_key") return this.#drain(hold);
    const deadline = performance.now() + (await this.#settleMs());
    const { rotations } = this.#deps;
    if (!(await this.#drain(hold))) return false;
    while (performance.now() < deadline) await hold.wait(PAUSE_MS);
    if (!(await this.#drain(hold))) return false;
    await rotations.close(hold.rotation);
    // At once: who changes a secret that is still under the closed key, and has the old one kept, is told to try again.
    if (!(await this.#drain(hold))) return false;
    while (!(await rotations.closedForAll(hold.rotation.id))) await hold.wait(PAUSE_MS);
    return this.#drain(hold);
  }

  /** How long replicas may still write what they sealed with the key before: as long as their caches last, and a write takes. */
  async #settleMs(): Promise<number> {
    const caches = (await this.#deps.replicas.list()).map(({ keyCacheSeconds }) => keyCacheSeconds);
    return Math.max(0, ...caches) * 1000 + this.#deps.settleMs;
  }

  /** Passes over what is left until nothing is. False where all that is left does not open. */
  async #drain(hold: Hold): Promise<boolean> {
    const { rotation } = hold;
    for (;;) {
      const left = (await this.#deps.rotations.get(rotation.id))?.rowsLeft ?? 0;
      if (left === 0) return true;
      const moved = await this.#pass(hold);
      if (moved > 0) continue;
      if (hold.failures.length >= left) {
        await hold.conclude("incomplete");
        return false;
      }
      await hold.wait(PAUSE_MS);
    }
  }

  #pass(hold: Hold): Promise<number> {
    const { organizationId, toVersion, toMasterKeyId } = hold.rotation;
    if (toMasterKeyId !== null) return moveKeys(this.#deps, hold, toMasterKeyId);
    return moveSecrets(this.#deps, hold, organizationId as string, toVersion as number);
  }

  async #prove(hold: Hold): Promise<void> {
    const { rotation } = hold;
    const digest = new ProofDigest();
    hold.beginPass();
    const strays = await this.#readAll(hold, digest);
    if (strays > 0) return hold.conclude("running");
    if (hold.failures.length > 0) return hold.conclude("incomplete");
    const { id, kind, organizationId, toMasterKeyId, toVersion } = rotation;
    const proof = digest.end({ id, kind, organizationId, toMasterKeyId, toVersion, rows: hold.verified });
    await hold.conclude("proven", { digest: proof, event: proofEvent(rotation, proof) });
  }

  async #readAll(hold: Hold, digest: ProofDigest): Promise<number> {
    const { kind, organizationId, toVersion, toMasterKeyId } = hold.rotation;
    if (kind === "master_key") return readKeys(this.#deps, hold, digest, toMasterKeyId as string);
    if (kind === "organization_key") return readSecrets(this.#deps, hold, digest, organizationId as string, toVersion);
    await readEverything(this.#deps, hold, digest, organizationId);
    return 0;
  }

  /** Stops after the batches under way, and lets go of what it holds. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    clearInterval(this.#timer);
    await this.#looking;
    await Promise.all(this.#running);
  }
}

/** The record that a rotation is proven, in the name of the operator who began it. It names the rotation as its flow and the proof as its run. */
function proofEvent(rotation: Rotation, proof: Buffer): AuditEvent {
  return {
    organizationId: rotation.organizationId ?? OPERATOR_TRAIL,
    requestId: newRequestId(),
    actorKind: "operator",
    actorId: rotation.startedBy,
    action: "prove_rotation",
    outcome: "allowed",
    reason: null,
    credentialId: null,
    flowId: rotation.id,
    runId: proof.toString("hex"),
  };
}
