import type { AuditEvent } from "../domain/access.ts";
import { CredentialError } from "../domain/errors.ts";
import { createCredential } from "./creation.ts";
import { type Database, known } from "./db.ts";
import type { CredentialLimits, NewCredential } from "./store.ts";
import type { Row } from "./transaction.ts";

/** A credential that is taken over from another system. */
export interface ImportedCredential {
  readonly row: NewCredential;
  /** Which row of the other system it is. */
  readonly source: string;
  /** When the other system sealed it. */
  readonly sealedAt: Date;
}

/** What became of it: the credential that stands, and whether another call had made it before. */
export interface Imported {
  readonly credentialId: string;
  readonly alreadyImported: boolean;
}

/** Credentials that are taken over from another system, each once. */
export interface ImportStore {
  /** The credential that a source was imported as. */
  find(organizationId: string, source: string): Promise<string | undefined>;
  /** Creates a credential and remembers its source in one transaction. Throws as `CredentialStore.create`. */
  create(imported: ImportedCredential, limits: CredentialLimits, event: AuditEvent, signal: AbortSignal): Promise<Imported>;
}

/** Imports. */
export function importStore(database: Database): ImportStore {
  const find = async (organizationId: string, source: string): Promise<string | undefined> => {
    const row: Row | undefined = await database.read(organizationId, (trx) => trx("imported_credential").first("credential_id").where({ organization_id: known(organizationId), source }));
    return row?.["credential_id"] as string | undefined;
  };
  return {
    find,

    async create({ row, source, sealedAt }, limits, event, signal) {
      try {
        await database.transact([row.organizationId], async (trx) => {
          // First, so that of two calls with one source the second waits here and then fails, with nothing counted.
          await trx("imported_credential").insert({ organization_id: row.organizationId, source, credential_id: row.id, sealed_at: sealedAt });
          await createCredential(trx, row, limits, event);
        }, signal);
        return { credentialId: row.id, alreadyImported: false };
      } catch (error) {
        const standing = error instanceof CredentialError && error.reason === "INTERNAL" ? await find(row.organizationId, source) : undefined;
        if (standing === undefined) throw error;
        return { credentialId: standing, alreadyImported: true };
      }
    },
  };
}
