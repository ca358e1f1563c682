import { EventEmitter } from "node:events";
import type { Duplex } from "node:stream";
import type { ConnectionOptions } from "node:tls";
import pg from "pg";
import type { GuardedConnection } from "../../domain/check.ts";
import type { PostgresqlTarget } from "./postgresql.ts";
import { MAX_SCRAM_ITERATIONS, screenMessages } from "./pg-messages.ts";
import { loginReason, tlsReason } from "./pg-refusals.ts";
import { Relay } from "./relay.ts";
import { CheckFailure, type Trial } from "./trial.ts";

/** The request for TLS: its length and the code 80877103 (PostgreSQL's manual, "SSL Session Encryption"). */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

/** The driver's connection as far as it is used here; its type declarations say nothing of it. */
interface DriverConnection extends EventEmitter {
  readonly stream: Duplex;
  attachListeners(stream: EventEmitter): void;
  startup(parameters: Readonly<Record<string, string>>): void;
}

interface DriverOptions {
  readonly stream: Duplex;
  readonly ssl: ConnectionOptions | false;
  readonly sslNegotiation: "postgres" | "direct";
}

const Driver = pg.Connection as unknown as new (options: DriverOptions) => DriverConnection;

/** What the driver is told of a session, beside its connection. */
type Session = pg.ClientConfig & { readonly connection: DriverConnection; readonly scramMaxIterations: number };

/** The driver's connection, with everything that arrives screened, and nothing said that was not asked for. */
class ScreenedConnection extends Driver {
  readonly #accept: (chunk: Buffer) => readonly Buffer[];
  readonly #trial: Trial;
  readonly #verified: "verified" | "verified-ca";

  constructor(options: DriverOptions, trial: Trial, verified: "verified" | "verified-ca", accept: (chunk: Buffer) => readonly Buffer[]) {
    super(options);
    this.#verified = verified;
    this.#trial = trial;
    this.#accept = accept;
  }

  /** The driver's parser throws out of the stream where it meets what it does not know; here nothing gets past. */
  override attachListeners(stream: EventEmitter): void {
    const messages = new EventEmitter();
    super.attachListeners(messages);
    stream.on("data", (chunk: Buffer) => {
      if (this.#trial.failure !== null) return;
      try {
        for (const message of this.#accept(chunk)) messages.emit("data", message);
      } catch (error) {
        this.#trial.fail(error instanceof CheckFailure ? error.reason : "pg_protocol_broken");
        this.stream.destroy();
      }
    });
  }

  /** Exactly these parameters, whatever the environment says; with TLS, only once the server's certificate was looked at. */
  override startup({ user = "", database = "" }: Readonly<Record<string, string>>): void {
    const send = (): void => {
      this.#trial.phase = "pg_startup";
      super.startup({ user, database, application_name: "flow-credentials" });
    };
    if (!("authorized" in this.stream)) return send();
    const secured = this.stream;
    // The driver hears of the closed connection before it hears why.
    secured.once("error", (error) => {
      const reason = tlsReason(error, this.#trial);
      if (reason !== null) this.#trial.fail(reason);
    });
    secured.once("secureConnect", () => {
      this.#trial.details["tls"] = secured.authorized === true ? this.#verified : "unverified";
      send();
    });
  }
}

/** Logs in over a connection; resolves with a client that is ready for queries. A failure ends the trial. */
export async function openSession(connection: GuardedConnection, target: PostgresqlTarget, trial: Trial): Promise<pg.Client> {
  const relay = new Relay(connection.stream, trial, (chunk) => chunk);
  const ssl = target.sslmode !== "disable" && (await askForTls(relay, target.sslmode, trial)) ? tlsOptions(target) : false;
  trial.details["tls"] = ssl === false ? "none" : "unverified";
  trial.phase = ssl === false ? "pg_startup" : "pg_tls_handshake";
  trial.details["password_checked"] = false;
  const accept = screenMessages(trial, {
    verified: () => trial.details["tls"] === "verified" || trial.details["tls"] === "verified-ca",
    mayBind: target.demands.channelBinding !== "disable",
    mustBind: target.demands.channelBinding === "require",
    accepted: () => connection.authenticated(),
  });
  // The TLS that was agreed on begins at once, as it does with the driver's "direct" negotiation.
  const options = { stream: relay, ssl, sslNegotiation: ssl === false ? "postgres" : "direct" } as const;
  const driver = new ScreenedConnection(options, trial, trustsAuthorityOnly(target) ? "verified-ca" : "verified", accept);
  const session: Session = {
    connection: driver,
    host: target.host.replace(/\.$/, ""),
    port: target.port,
    user: target.username,
    password: target.password,
    database: target.database,
    ssl,
    sslnegotiation: ssl === false ? "postgres" : "direct",
    enableChannelBinding: ssl !== false && target.demands.channelBinding !== "disable",
    scramMaxIterations: MAX_SCRAM_ITERATIONS,
    application_name: "flow-credentials",
    client_encoding: "UTF8",
  };
  const client = new pg.Client(session);
  client.on("error", (error) => {
    const reason = loginReason(error);
    if (reason !== null) trial.fail(reason);
  });
  const connected = client.connect();
  relay.resume();
  try {
    await Promise.race([connected, trial.over]);
    return client;
  } catch (error) {
    const reason = loginReason(error);
    if (reason !== null) trial.fail(reason);
    // A connection that was lost is the watch's to judge, which knows by what.
    return await trial.over;
  }
}

/** Asks whether the server speaks TLS. False where it does not and need not. */
async function askForTls(relay: Relay, sslmode: PostgresqlTarget["sslmode"], trial: Trial): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  relay.once("data", (chunk: Buffer) => {
    relay.pause();
    resolve(chunk);
  });
  const closed = (): void => trial.closed();
  relay.once("close", closed);
  relay.write(SSL_REQUEST);
  const reply = await Promise.race([promise, trial.over]);
  relay.off("close", closed);
  const letter = reply.toString("latin1", 0, 1);
  if (letter === "E") throw new CheckFailure("pg_tls_reply_error");
  // One byte and no more: what follows it in clear would be taken for a part of the encrypted session.
  if (letter === "S" && reply.length > 1 && !reply.toString("latin1").startsWith("SSH-")) throw new CheckFailure("pg_tls_reply_injected");
  if ((letter !== "S" && letter !== "N") || reply.length > 1) throw new CheckFailure("not_a_postgresql_server");
  if (letter === "N" && sslmode !== "prefer" && sslmode !== "allow") throw new CheckFailure("pg_tls_not_offered");
  return letter === "S";
}

/**
 * Whether a certificate of the given authority will do, whatever name it is for: in `verify-ca`, and in `require` with a CA, as
 * in libpq. Never with public authorities, which certify anyone for a name of their own: there `verify-ca` checks the name too.
 */
const trustsAuthorityOnly = ({ sslmode, caCertificate }: PostgresqlTarget): boolean => caCertificate !== "" && (sslmode === "verify-ca" || sslmode === "require");

/** What libpq's modes mean for the handshake. */
function tlsOptions(target: PostgresqlTarget): ConnectionOptions {
  const ca = target.caCertificate === "" ? {} : { ca: target.caCertificate };
  const common: ConnectionOptions = { ...ca, minVersion: target.demands.minTlsVersion };
  if (trustsAuthorityOnly(target)) return { ...common, rejectUnauthorized: true, checkServerIdentity: () => undefined };
  return { ...common, rejectUnauthorized: target.sslmode === "verify-full" || target.sslmode === "verify-ca" };
}
