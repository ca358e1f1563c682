import { setTimeout as sleep } from "node:timers/promises";
import pg, { type Client } from "pg";
import { CredentialError, fail } from "../domain/errors.ts";
import type { ConnectionFields } from "./connection.ts";

/** Pause until a request to cancel is repeated, ms. */
const REPEAT_MS = 100;

/** Longest time that one request may take, ms. */
const REQUEST_MS = 1_000;

/** What an aborted signal says to its caller. */
export const abortReason = (signal: AbortSignal): CredentialError => (signal.reason instanceof CredentialError ? signal.reason : fail("CANCELLED"));

/** What the driver knows of its server process, and its own connections; its types leave them out. */
interface ServerProcess {
  readonly processID: number;
  readonly secretKey: number;
}
interface RawConnection extends InstanceType<typeof pg.Connection> {
  connect(port: number, host: string): void;
  requestSsl(): void;
  cancel(processId: number, secretKey: number): void;
}

/**
 * Asks PostgreSQL to cancel whatever runs on a connection, until `done` is aborted: a request is forgotten where the server
 * happens to be between two statements of a transaction. The protocol's own request (PostgreSQL documentation 54.2.9) goes
 * through poolers, which `pg_cancel_backend` does not: they show process ids of their own.
 */
export async function cancelUntil(done: AbortSignal, fields: ConnectionFields, client: Client): Promise<void> {
  while (!done.aborted) {
    await requestCancel(fields, client);
    await sleep(REPEAT_MS, undefined, { signal: done }).catch(() => {});
  }
}

/** Sends one request, and resolves when the server has closed the connection, which it does when the signal is sent, or when that failed. */
async function requestCancel({ host, port, ssl }: ConnectionFields, client: Client): Promise<void> {
  const { processID, secretKey } = client as unknown as ServerProcess;
  const connection = new pg.Connection({ ssl } as pg.ConnectionConfig) as RawConnection;
  const timer = setTimeout(() => connection.stream.destroy(), REQUEST_MS);
  const send = () => connection.cancel(processID, secretKey);
  await new Promise<void>((resolve) => {
    connection.on("connect", ssl === false ? send : () => connection.requestSsl());
    connection.on("sslconnect", send);
    connection.on("error", () => connection.stream.destroy());
    connection.on("end", resolve);
    if (host.startsWith("/")) (connection as unknown as { connect(path: string): void }).connect(`${host}/.s.PGSQL.${port}`);
    else connection.connect(port, host);
  });
  clearTimeout(timer);
}
