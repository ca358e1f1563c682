import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/admin_service.ts";
import { ROTATION_KINDS, ROTATION_STATES, type KeyStatus, type Rotation } from "../domain/rotation.ts";
import type { UseCases } from "../vault/use-cases.ts";
import type { Records } from "./admin-records.ts";
import { table } from "./convert.ts";
import * as parse from "./parse.ts";
import { unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";

const service = api.AdminServiceService;

const kinds = table(ROTATION_KINDS, "ROTATION_KIND_", api.RotationKind);
const states = table(ROTATION_STATES, "ROTATION_STATE_", api.RotationState);

const toRotation = (rotation: Rotation): api.Rotation => ({
  id: rotation.id,
  kind: kinds.number(rotation.kind),
  state: states.number(rotation.state),
  organizationId: rotation.organizationId ?? undefined,
  fromMasterKeyId: rotation.fromMasterKeyId ?? undefined,
  toMasterKeyId: rotation.toMasterKeyId ?? undefined,
  fromVersion: rotation.fromVersion ?? undefined,
  toVersion: rotation.toVersion ?? undefined,
  rowsTotal: BigInt(rotation.rowsTotal),
  rowsLeft: BigInt(rotation.rowsLeft),
  rowsMoved: BigInt(rotation.rowsMoved),
  rowsVerified: BigInt(rotation.rowsVerified),
  rowsFailed: BigInt(rotation.rowsFailed),
  failures: rotation.failures.map((row) => ({ ...row, credentialId: row.credentialId ?? undefined })),
  rowsPerSecond: rotation.rowsPerSecond ?? undefined,
  startedAt: rotation.startedAt,
  finishedAt: rotation.finishedAt ?? undefined,
  proof: rotation.proof?.toString("hex"),
  startedBy: rotation.startedBy,
  rollsBack: rotation.rollsBack ?? undefined,
});

const toStatus = ({ masterKeys, replicas, rotations }: KeyStatus): api.GetKeyStatusResponse => ({
  masterKeys: masterKeys.map((key) => ({
    id: key.id,
    primary: key.primary,
    organizationKeys: BigInt(key.organizationKeys),
    firstSeen: key.firstSeen ?? undefined,
    retiredAt: key.retiredAt ?? undefined,
  })),
  replicas: replicas.map(({ id, masterKeyIds, silentMs, keyCacheSeconds }) => ({
    id,
    masterKeyIds: [...masterKeyIds],
    silentFor: { seconds: BigInt(Math.floor(silentMs / 1000)), nanos: (silentMs % 1000) * 1_000_000 },
    keyCacheSeconds,
  })),
  rotations: rotations.map(toRotation),
});

/** The RPCs about keys and about the end of an organization. */
export function keyAdministration(deps: UnaryDeps, { keys }: UseCases): Record<Exclude<keyof typeof service, "importCredential" | Records>, UnaryRpc> {
  return {
    getKeyStatus: unary(deps, {
      action: "get_key_status",
      method: service.getKeyStatus,
      request: api.GetKeyStatusRequest,
      input: z.unknown(),
      run: async (grant) => toStatus(await keys.status(grant)),
    }),
    rotateMasterKey: unary(deps, {
      action: "rotate_master_key",
      method: service.rotateMasterKey,
      request: api.RotateMasterKeyRequest,
      input: z.object({ masterKeyId: parse.masterKeyId, rowsPerSecond: parse.optionalRate }),
      run: async (grant, input) => ({ rotation: toRotation(await keys.rotateMasterKey(grant, input)) }),
    }),
    rotateOrganizationKey: unary(deps, {
      action: "rotate_organization_key",
      method: service.rotateOrganizationKey,
      request: api.RotateOrganizationKeyRequest,
      input: z.object({ organizationId: parse.bodyUuid, rowsPerSecond: parse.optionalRate }),
      run: async (grant, input) => ({ rotation: toRotation(await keys.rotateOrganizationKey(grant, input)) }),
    }),
    verifyKeys: unary(deps, {
      action: "verify_keys",
      method: service.verifyKeys,
      request: api.VerifyKeysRequest,
      input: z.object({ organizationId: parse.optionalBodyUuid, rowsPerSecond: parse.optionalRate }),
      run: async (grant, input) => ({ rotation: toRotation(await keys.verify(grant, input)) }),
    }),
    getRotation: unary(deps, {
      action: "get_rotation",
      method: service.getRotation,
      request: api.GetRotationRequest,
      input: z.object({ rotationId: parse.bodyUuid }),
      run: async (grant, { rotationId }) => ({ rotation: toRotation(await keys.rotation(grant, rotationId)) }),
    }),
    controlRotation: unary(deps, {
      action: "control_rotation",
      method: service.controlRotation,
      request: api.ControlRotationRequest,
      input: z.object({ rotationId: parse.bodyUuid, paused: z.boolean().optional(), rowsPerSecond: z.number().optional() }),
      async run(grant, { rotationId, paused = null, rowsPerSecond = null }) {
        return { rotation: toRotation(await keys.control(grant, { rotationId, paused, rowsPerSecond })) };
      },
    }),
    rollBackRotation: unary(deps, {
      action: "roll_back_rotation",
      method: service.rollBackRotation,
      request: api.RollBackRotationRequest,
      input: z.object({ rotationId: parse.bodyUuid }),
      run: async (grant, { rotationId }) => ({ rotation: toRotation(await keys.rollBack(grant, rotationId)) }),
    }),
    retireRotatedKeys: unary(deps, {
      action: "retire_rotated_keys",
      method: service.retireRotatedKeys,
      request: api.RetireRotatedKeysRequest,
      input: z.object({ rotationId: parse.bodyUuid }),
      run: async (grant, { rotationId }) => ({ rotation: toRotation(await keys.retire(grant, rotationId)) }),
    }),
    destroyOrganization: unary(deps, {
      action: "destroy_organization",
      method: service.destroyOrganization,
      request: api.DestroyOrganizationRequest,
      input: z.object({ organizationId: parse.bodyUuid }),
      run: async (grant, { organizationId }) => ({ destroyedKeys: await keys.destroyOrganization(grant, organizationId) }),
    }),
  };
}
