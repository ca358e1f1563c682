import { randomUUID } from "node:crypto";
import type { Envelope } from "../crypto/envelope.ts";
import type { KeyRing } from "../crypto/ring.ts";
import type { Action, AuditEvent } from "../domain/access.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import type { Rotation } from "../domain/rotation.ts";
import type { Store } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";
import { importCredential, type ImportDeps } from "./import.ts";
import type { KeyUseCases } from "./keys-use-cases.ts";

/** What the use cases below need. */
export interface KeyDeps extends ImportDeps {
  readonly store: Pick<Store, "rotations" | "replicas" | "keyRegistry" | "organizationKeys" | "credentials" | "imports">;
  readonly envelope: Pick<Envelope, "keys" | "evict" | "seal">;
  readonly ring: Pick<KeyRing, "refresh">;
  /** Looks for work of rotations at once. */
  readonly wakeRotations: () => void;
}

/** Rotations that the status shows. */
const NEWEST = 20;

/** How often a new organization key is offered, where another change of keys comes first each time. */
const TRIES = 3;

/** The record of a call about a rotation: it names the rotation as its flow. */
function event<A extends Action>(grant: Grant<A>, rotationId: string, organizationId?: string | null): AuditEvent {
  const facts = organizationId === null || organizationId === undefined ? {} : { organizationId };
  return { ...auditEvent(grant.call, grant.action, facts), flowId: rotationId };
}

async function found(deps: KeyDeps, id: string): Promise<Rotation> {
  const rotation = await deps.store.rotations.get(id);
  if (!rotation) throw fail("ROTATION_NOT_FOUND");
  return rotation;
}

/** Begins a rotation and wakes whoever works on it. */
async function begun(deps: KeyDeps, id: string, begin: Promise<void>): Promise<Rotation> {
  await begin;
  deps.wakeRotations();
  return found(deps, id);
}

/** Tries again where another change of keys came first. */
async function again<T>(deps: KeyDeps, work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (tries === TRIES || !(error instanceof CredentialError) || error.reason !== "KEY_MOVED") throw error;
      await deps.ring.refresh();
    }
  }
}

async function rotateOrganizationKey(deps: KeyDeps, grant: Grant<"rotate_organization_key">, organizationId: string, rowsPerSecond: number | null): Promise<Rotation> {
  const id = randomUUID();
  const beginning = { id, rowsPerSecond, startedBy: grant.caller.id, rollsBack: null };
  const { organizationKeys, rotations } = deps.store;
  await again(deps, async () => {
    const newest = await organizationKeys.newestVersion(organizationId);
    if (newest === undefined) throw fail("ORGANIZATION_NOT_FOUND");
    const key = await deps.envelope.keys.draw({ organizationId, version: newest + 1 });
    await rotations.begin.organizationKey({ ...beginning, key }, event(grant, id, organizationId));
  });
  deps.envelope.evict(organizationId);
  return begun(deps, id, Promise.resolve());
}

async function rollBack(deps: KeyDeps, grant: Grant<"roll_back_rotation">, rotationId: string): Promise<Rotation> {
  const { kind, organizationId, fromMasterKeyId, fromVersion } = await found(deps, rotationId);
  const { begin } = deps.store.rotations;
  const id = randomUUID();
  const beginning = { id, rowsPerSecond: null, startedBy: grant.caller.id, rollsBack: rotationId };
  if (kind === "master_key" && fromMasterKeyId !== null) {
    return begun(deps, id, begin.masterKey({ ...beginning, masterKeyId: fromMasterKeyId }, event(grant, id)));
  }
  if (kind === "organization_key" && organizationId !== null && fromVersion !== null) {
    const rotation = await begun(deps, id, begin.organizationKeyBack({ ...beginning, organizationId, version: fromVersion }, event(grant, id, organizationId)));
    deps.envelope.evict(organizationId);
    return rotation;
  }
  throw fail("ROTATION_STATE");
}

/** What operators do with keys, bound to what it stands on. */
export function keyUseCases(deps: KeyDeps): KeyUseCases {
  const { rotations, replicas, keyRegistry, organizationKeys } = deps.store;
  return {
    async status() {
      const [keys, primary, alive, newest] = await Promise.all([keyRegistry.list(), keyRegistry.primary(), replicas.list(), rotations.list(NEWEST)]);
      const masterKeys = keys.map(({ id, inUse, firstSeen, retiredAt }) => ({ id, primary: id === primary, organizationKeys: inUse, firstSeen, retiredAt }));
      return { masterKeys, replicas: alive, rotations: newest };
    },

    async rotateMasterKey(grant, { masterKeyId, rowsPerSecond }) {
      const id = randomUUID();
      const beginning = { id, rowsPerSecond, startedBy: grant.caller.id, rollsBack: null, masterKeyId };
      const rotation = await begun(deps, id, rotations.begin.masterKey(beginning, event(grant, id)));
      await deps.ring.refresh();
      return rotation;
    },

    rotateOrganizationKey: (grant, { organizationId, rowsPerSecond }) => rotateOrganizationKey(deps, grant, organizationId, rowsPerSecond),

    verify(grant, { organizationId, rowsPerSecond }) {
      const id = randomUUID();
      const beginning = { id, rowsPerSecond, startedBy: grant.caller.id, rollsBack: null, organizationId };
      return begun(deps, id, rotations.begin.verification(beginning, event(grant, id, organizationId)));
    },

    rotation: (_grant, rotationId) => found(deps, rotationId),

    async control(grant, { rotationId, paused, rowsPerSecond }) {
      const { organizationId } = await found(deps, rotationId);
      await rotations.control(rotationId, { paused, rowsPerSecond }, event(grant, rotationId, organizationId));
      deps.wakeRotations();
      return found(deps, rotationId);
    },

    rollBack: (grant, rotationId) => rollBack(deps, grant, rotationId),

    async retire(grant, rotationId) {
      const rotation = await found(deps, rotationId);
      await rotations.retire(rotation, event(grant, rotationId, rotation.organizationId));
      await deps.ring.refresh();
      if (rotation.organizationId !== null) deps.envelope.evict(rotation.organizationId);
      return found(deps, rotationId);
    },

    async destroyOrganization(grant, organizationId) {
      const destroyed = await organizationKeys.destroy(organizationId, auditEvent(grant.call, grant.action, { organizationId }));
      deps.envelope.evict(organizationId);
      return destroyed;
    },

    importCredential: (grant, input) => importCredential(deps, grant, input),
  };
}
