import { randomBytes } from "node:crypto";
import { type AdminClient, createAdminClient } from "../../src/client/admin.ts";
import { signDevelopmentToken } from "../../src/auth/development.ts";
import { secret } from "../../src/domain/secret.ts";
import type { Rotation } from "../../gen/flow/credentials/v1/admin_service.ts";
import { JWT_SECRET, type Service } from "./service.ts";

/** An operator's token as the platform's issuer would make it. */
export const operatorToken = (subject = "ops"): Promise<string> =>
  signDevelopmentToken({
    secret: secret(JWT_SECRET),
    issuer: "flow-credentials-dev",
    audience: "flow-credentials-operator",
    subject,
    organizationId: null,
    kind: "operator",
    claims: { organization: "organization_id", kind: "account_type" },
    expiresInSeconds: 3_600,
  });

/** AdminService of a running service, called by an operator. */
export const adminOf = async (service: Pick<Service, "grpc">): Promise<AdminClient> => createAdminClient({ target: service.grpc, token: await operatorToken(), tls: undefined, deadlineMs: 20_000 });

/** Master keys as they are configured: those that are loaded, and the one that a new database begins with. */
export function keySettings(keys: Readonly<Record<string, string>>, primary: string, ids: readonly string[] = Object.keys(keys)): Record<string, string> {
  return { CREDENTIALS_MASTER_KEYS: ids.map((id) => `${id}:${keys[id]}`).join(","), CREDENTIALS_PRIMARY_KEY_ID: primary };
}

/** New master keys under these ids. */
export const newMasterKeys = <N extends string>(...ids: N[]): Record<N, string> => Object.fromEntries(ids.map((id) => [id, randomBytes(32).toString("base64")])) as Record<N, string>;

/** Settings under which rotations go quickly in a test: short caches, reports and leases. */
export const QUICK = { CREDENTIALS_KEY_CACHE_SECONDS: "1", CREDENTIALS_REPLICA_HEARTBEAT_MS: "500", CREDENTIALS_ROTATION_LEASE_MS: "1500" } as const;

/** Waits until a rotation is in one of these states (numbers of `RotationState`), and gives it; throws what it is where it ends in another one. */
export async function reaches(admin: Pick<AdminClient, "getRotation">, rotationId: string, ...states: number[]): Promise<Rotation> {
  for (;;) {
    const { rotation } = await admin.getRotation({ rotationId });
    if (rotation === undefined) throw new Error("no rotation");
    if (states.includes(rotation.state)) return rotation;
    // Running, paused and proving go on; everything else is an end.
    if (![1, 2, 3].includes(rotation.state)) throw new Error(`the rotation ended in state ${rotation.state}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
