import type pg from "pg";
import type { CheckIo, CheckResult } from "../../domain/check.ts";
import type { Demands } from "../connection-string.ts";
import { isCertificates, type SSL_MODES } from "../fields.ts";
import { failed } from "./doctor.ts";
import type { Pass } from "./passes.ts";
import { queryReason } from "./pg-refusals.ts";
import { openSession } from "./pg-session.ts";
import { CheckFailure, conduct, farewell, type Trial } from "./trial.ts";

/** A database and how to log in. */
export interface PostgresqlTarget {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  readonly database: string;
  /** libpq's name. `allow` is treated as `prefer`: TLS is used where the server has it. */
  readonly sslmode: (typeof SSL_MODES)[number];
  /** Certificates of the authorities to trust, in PEM; empty for those that Node ships with. */
  readonly caCertificate: string;
  /** What the session must hold beyond its sslmode. */
  readonly demands: Demands;
}

/** Tests a PostgreSQL database: negotiates TLS, logs in, and runs a trivial query. Never throws. */
export async function checkPostgresql(target: PostgresqlTarget, io: CheckIo): Promise<CheckResult> {
  // The driver looks for an empty part in the environment and in files.
  if (target.password === "") return failed("pg_password_missing");
  if ([target.host, target.username, target.database].includes("")) return failed("check_failed");
  if (target.caCertificate !== "" && !isCertificates(target.caCertificate)) return failed("tls_ca_unreadable");
  return conduct(io, target, target.sslmode === "disable" ? "pg_startup" : "pg_tls_reply", async (connection, trial) => {
    const client = await openSession(connection, target, trial);
    trial.details["can_connect"] = true;
    await select(client, trial);
    trial.details["can_select"] = true;
    await describe(client, trial);
    trial.succeed();
    await farewell(client.end());
    return passOf(trial);
  });
}

async function select(client: pg.Client, trial: Trial): Promise<void> {
  trial.details["can_select"] = false;
  const rows = await ask(client, "select 1 as one", trial);
  if (rows === null || rows.length !== 1 || rows[0]?.["one"] !== 1) throw new CheckFailure("pg_answer_wrong");
}

/** Versions and state, as far as the server tells them; servers that only resemble PostgreSQL may not. */
async function describe(client: pg.Client, trial: Trial): Promise<void> {
  const text = "select current_setting('server_version_num')::int as version, pg_is_in_recovery() as standby, current_setting('transaction_read_only') as read_only";
  const row = await ask(client, text, trial).then(
    (rows) => rows?.[0],
    (error: unknown) => {
      if (error instanceof CheckFailure && error.reason === "pg_query_failed") return undefined;
      throw error;
    },
  );
  const version = row?.["version"];
  if (Number.isInteger(version)) trial.details["server_version"] = Number(version);
  if (typeof row?.["standby"] === "boolean") trial.details["standby"] = row["standby"];
  if (row?.["read_only"] === "on" || row?.["read_only"] === "off") trial.details["read_only"] = row["read_only"] === "on";
}

/** The rows of an answer; null where it is not one answer. */
async function ask(client: pg.Client, text: string, trial: Trial): Promise<readonly Readonly<Record<string, unknown>>[] | null> {
  try {
    const { rows } = await client.query<Record<string, unknown>>(text);
    return Array.isArray(rows) ? rows : null;
  } catch (error) {
    throw trial.failure ?? new CheckFailure(queryReason(error));
  }
}

/** The server was reached; whether that is to be relied on depends on how. */
function passOf({ details }: Trial): Pass {
  if (details["password_checked"] === false) return "pg_open_to_anyone";
  if (details["tls"] === "none") return "pg_not_encrypted";
  if (details["tls"] === "unverified") return "pg_not_verified";
  return details["tls"] === "verified-ca" ? "pg_name_not_verified" : "pg_works";
}
