import { createReadStream, readFileSync, statSync } from "node:fs";
import { createInterface } from "node:readline";
import { type AdminClient, CREDENTIAL_TYPE_NUMBERS, PROVIDER_NUMBERS } from "../client/admin.ts";
import { CredentialClientError } from "../client/error.ts";
import { FernetError, type FernetKey, openFernet, readFernetKeys } from "../crypto/fernet.ts";
import type { Context } from "./context.ts";
import { CliError } from "./failure.ts";
import { ProgressBar } from "./progress.ts";

/** How often a row is tried in all where the service cannot take it now. */
const TRIES = 5;
const PAUSE_MS = 250;

/** A row that is not imported, and why; never a value of it. */
class RowFault extends Error {
  override readonly name = "RowFault";
}

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

/** Reads lines one by one, so that the size of the input does not matter, and keeps a number of rows under way. */
export async function importAll(context: Context, admin: AdminClient, keys: readonly FernetKey[], input: string, lanes: number): Promise<Counts> {
  const [stream, size] = open(input);
  const lines = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })[Symbol.asyncIterator]();
  const bar = new ProgressBar();
  const counts: Counts = { imported: 0, already: 0, failed: 0 };
  let [number, read, shownAt] = [0, 0, 0];
  const lane = async () => {
    for (;;) {
      const { value: line, done } = await lines.next();
      if (done) return;
      const at = ++number;
      read += Buffer.byteLength(line) + 1;
      if (line.trim() !== "") await importOne(context, admin, keys, line, at, counts);
      if (performance.now() - shownAt < 200) continue;
      shownAt = performance.now();
      context.progress?.(bar.line(`importing, ${counts.failed} failed, bytes`, read, Math.max(size, read)));
    }
  };
  try {
    await Promise.all(Array.from({ length: lanes }, lane));
  } catch (error) {
    if (error instanceof CliError || error instanceof CredentialClientError) throw error;
    throw new CliError(`the file of --input cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  } finally {
    context.progress?.(null);
    stream.destroy();
  }
  return counts;
}

function open(input: string): [NodeJS.ReadableStream & { destroy(): void }, number] {
  if (input === "-") return [process.stdin, 0];
  try {
    return [createReadStream(input), statSync(input).size];
  } catch (error) {
    throw new CliError(`the file of --input cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}

async function importOne(context: Context, admin: AdminClient, keys: readonly FernetKey[], line: string, at: number, counts: Counts): Promise<void> {
  try {
    const request = requestOf(keys, line);
    const { alreadyImported } = await patiently(() => admin.importCredential(request));
    if (alreadyImported) counts.already++;
    else counts.imported++;
  } catch (error) {
    const refused = error instanceof CredentialClientError && error.reason !== undefined && !error.retryable && error.reason !== "KEY_IS_FOREIGN" && error.reason !== "OPERATOR_REQUIRED";
    if (!(error instanceof RowFault) && !refused) throw error;
    counts.failed++;
    context.note(`line ${at}: ${(error as Error).message}`);
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

/** The request of a line. Throws RowFault, whose message names the field and never the value. */
function requestOf(keys: readonly FernetKey[], line: string): Request {
  const row = objectOf(line, "the line is not a JSON object");
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

/** The parser's own message quotes the text. */
function objectOf(text: string, fault: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RowFault(fault);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new RowFault(fault);
  return value as Record<string, unknown>;
}
