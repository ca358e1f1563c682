import type { Call } from "../domain/access.ts";
import type { SecretPlace } from "../domain/credential.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import { errorFields, type Log, newRequestId } from "../log.ts";

/**
 * What is thrown where sealing or opening has failed. Where something stored does not open, the caller gets an opaque
 * incident id, and the log says under that id what was wrong and where.
 */
export function incidentOf(log: Log, call: Call, place: Pick<SecretPlace, "organizationId" | "credentialId">, error: unknown): unknown {
  if (!(error instanceof CredentialError) || error.reason !== "SECRET_UNREADABLE") return error;
  const incident = newRequestId();
  const { organizationId: organization_id, credentialId: credential_id } = place;
  log.error({ incident, request_id: call.requestId, organization_id, credential_id, ...errorFields(error.cause) }, "a stored secret or its key does not open");
  return fail("SECRET_UNREADABLE", { incident, cause: error.cause });
}

/** Runs a piece of work that seals or opens, and throws as {@link incidentOf} says. */
export async function withIncident<T>(log: Log, call: Call, place: Pick<SecretPlace, "organizationId" | "credentialId">, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw incidentOf(log, call, place, error);
  }
}
