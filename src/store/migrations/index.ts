import type { Knex } from "knex";
import * as credentials from "./0001-credentials.ts";
import * as keys from "./0002-keys.ts";
import * as serviceAccounts from "./0003-service-accounts.ts";
import * as audit from "./0004-audit.ts";
import * as oauth from "./0005-oauth.ts";
import * as refresh from "./0006-refresh.ts";
import * as rotation from "./0007-rotation.ts";
import * as accounts from "./0008-accounts.ts";
import * as retries from "./0009-retries.ts";
import * as previousKeys from "./0010-previous-keys.ts";
import * as trail from "./0011-trail.ts";
import * as watch from "./0012-watch.ts";
import * as renewals from "./0013-renewals.ts";
import * as previousGrants from "./0014-previous-grants.ts";
import * as keptUses from "./0015-kept-uses.ts";
import * as compatibility from "./0016-compatibility.ts";

/**
 * One step of the schema. Its name is stored, so it never changes once released; neither does what it does. It only adds, so that
 * the code before goes on; what that code has used is taken away by a later release at the earliest.
 */
export interface Migration {
  readonly name: string;
  /** Present where it takes something away: the oldest migration whose code does without. Code that does not know that one may not start any more. */
  readonly needs?: string;
  up(knex: Knex): Promise<void>;
}

/** Every migration, in order. New ones are appended. */
export const MIGRATIONS: readonly Migration[] = [credentials, keys, serviceAccounts, audit, oauth, refresh, rotation, accounts, retries, previousKeys, trail, watch, renewals, previousGrants, keptUses, compatibility];

/** Name of the table in which the applied migrations are kept. */
export const MIGRATION_TABLE = "schema_migration";
