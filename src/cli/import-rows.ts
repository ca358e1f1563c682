import { readFileSync } from "node:fs";
import { type AdminClient, CREDENTIAL_TYPE_NUMBERS, PROVIDER_NUMBERS } from "../client/admin.ts";
import { CredentialClientError } from "../client/error.ts";
import { FernetError, type FernetKey, openFernet, readFernetKeys } from "../crypto/fernet.ts";
import type { Context } from "./context.ts";
import { CliError } from "./failure.ts";
import { objectOf, RowFault, type RowSource, type SourceRow } from "./import-source.ts";
import { ProgressBar } from "./progress.ts";

/** How often a row is tried in all where the service cannot take it now. */
const TRIES = 5;
const PAUSE_MS = 250;

/** Refusals that are not about one row, besides those of who is not known: every other row would meet them as well. */
const FOR_ALL: readonly string[] = ["KEY_IS_FOREIGN", "OPERATOR_REQUIRED"];

/** What became of all rows. */
export interface Counts {
  imported: number;
  already: number;
  failed: number;
}

/** Reads the keys of a file. Throws CliError. */
export function keysOf(file: string): FernetKey[] {
  try {
    return readFernetKeys(readFileSync(file, "utf8"));
  } catch (error) {
    if (error instanceof FernetError) throw new CliError(`--keys-file: ${error.message}`);
    throw new CliError(`the file of --keys-file cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}

/** Takes rows one by one and keeps a number of them under way. */
export async function importAll(context: Context, admin: AdminClient, keys: readonly FernetKey[], source: RowSource, lanes: number): Promise<Counts> {
  const bar = new ProgressBar();
  const counts: Counts = { imported: 0, already: 0, failed: 0 };
  let shownAt = 0;
  const lane = async () => {
    for (let row: SourceRow | undefined; (row = await source.next()) !== undefined; ) {
      await importOne(context, admin, keys, row, counts);
      if (performance.now() - shownAt < 200) continue;
      shownAt = performance.now();
      const { unit, done, total } = source.progress();
      context.progress?.(bar.line(`importing, ${counts.failed} failed, ${unit}`, done, total));
    }
  };
  try {
    await Promise.all(Array.from({ length: lanes }, lane));
  } finally {
    context.progress?.(null);
  }
  return counts;
}

async function importOne(context: Context, admin: AdminClient, keys: readonly FernetKey[], row: SourceRow, counts: Counts): Promise<void> {
  try {
    const request = requestOf(keys, row.read());
    const { alreadyImported } = await patiently(() => admin.importCredential(request));
    if (alreadyImported) counts.already++;
    else counts.imported++;
  } catch (error) {
    const refused = error instanceof CredentialClientError && error.reason !== undefined && !error.retryable && error.code !== "UNAUTHENTICATED" && !FOR_ALL.includes(error.reason);
    if (!(error instanceof RowFault) && !refused) throw error;
    counts.failed++;
    context.note(`${row.label}: ${(error as Error).message}`);
  }
}

/** Tries again for a while what the service cannot take now. */
async function patiently<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await call();
    } catch (error) {
      if (tries === TRIES || !(error instanceof CredentialClientError) || !error.retryable) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * 2 ** tries * (0.5 + Math.random() / 2)));
    }
  }
}

type Request = Parameters<AdminClient["importCredential"]>[0];

/** The request of a row. Throws RowFault, whose message names the field and never the value. */
function requestOf(keys: readonly FernetKey[], row: Readonly<Record<string, unknown>>): Request {
  const text = (field: string): string => {
    const value = row[field];
    if (typeof value !== "string" || value === "") throw new RowFault(`${field} is missing or no text`);
    return value;
  };
  const [provider, credentialType] = [PROVIDER_NUMBERS[text("provider")], CREDENTIAL_TYPE_NUMBERS[text("credential_type")]];
  if (provider === undefined) throw new RowFault("provider is not known");
  if (credentialType === undefined) throw new RowFault("credential_type is not known");
  const { credentials, sealedAt } = opened(keys, text("token"));
  return {
    organizationId: text("organization_id"),
    userId: text("user_id"),
    provider,
    credentialType,
    name: row["name"] === undefined || row["name"] === null ? undefined : text("name"),
    source: text("source"),
    credentials,
    sealedAt,
    keyCheckValues: keys.map(({ checkValue }) => checkValue),
  };
}

function opened(keys: readonly FernetKey[], token: string): { credentials: Record<string, unknown>; sealedAt: Date } {
  try {
    const { plaintext, sealedAt } = openFernet(keys, token);
    const text = new TextDecoder("utf-8", { fatal: true }).decode(plaintext);
    plaintext.fill(0);
    return { credentials: objectOf(text, "what the token holds is not a JSON object"), sealedAt };
  } catch (error) {
    if (error instanceof RowFault) throw error;
    throw new RowFault(error instanceof FernetError ? error.message : "what the token holds is not a JSON object");
  }
}
