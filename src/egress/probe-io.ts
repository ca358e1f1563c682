import { isIP } from "node:net";
import { Duplex } from "node:stream";
import { connect } from "node:tls";
import { type CheckIo, DialError, type DialReason } from "../domain/check.ts";
import { createDialer } from "./dialer.ts";
import { EgressError, type EgressReason } from "./error.ts";
import { createGuardedFetch } from "./fetch.ts";
import { createAddressPolicy } from "./policy.ts";
import type { ProbeEgress } from "./probe-task.ts";
import { createResolver, type NameResolver } from "./resolver.ts";
import type { GuardedSocket } from "./socket.ts";

/**
 * What a test hears of each reason. Whatever the network decides and is refused sounds the same; a fault of the host's own text and a port that is not
 * listed say nothing of the network, and are told. A name that does not exist is told apart from a refused one, because a misspelt name is the most
 * frequent mistake; so one can learn which names the resolver of this machine knows, but nothing of where they lead.
 */
const HEARD: Readonly<Record<EgressReason, DialReason>> = {
  "refused-name": "host_malformed",
  "refused-port": "port_not_allowed",
  "refused-address": "address_not_allowed",
  "refused-request": "address_not_allowed",
  "dns-not-found": "name_not_found",
  "dns-failed": "name_lookup_failed",
  "connect-refused": "connection_refused",
  "connect-timeout": "connection_timed_out",
  unreachable: "host_unreachable",
  "connection-lost": "connection_reset",
  deadline: "deadline_exceeded",
  "too-many-bytes": "too_much_data",
  // Nothing but the end of the test's time cancels.
  cancelled: "deadline_exceeded",
  "tls-expired": "connection_reset",
  "tls-not-yet-valid": "connection_reset",
  "tls-wrong-name": "connection_reset",
  "tls-self-signed": "connection_reset",
  "tls-unknown-authority": "connection_reset",
  "tls-failed": "connection_reset",
  "protocol-error": "connection_reset",
};

const dialError = (error: unknown): DialError => new DialError(error instanceof EgressError ? HEARD[error.reason] : "host_unreachable");

/**
 * The ways out of one test: the guarded dialer and the guarded fetch, under the operator's rules for its provider, for so many milliseconds.
 * A list of ports that an operator gives a provider binds its HTTPS requests too.
 */
export function createCheckIo(provider: string, egress: ProbeEgress, budgetMs: number): CheckIo {
  const signal = AbortSignal.timeout(budgetMs);
  const policy = createAddressPolicy(egress);
  const dialer = createDialer({ policy, ports: egress.ports, limits: { totalMs: budgetMs }, resolver: resolvedOnce(createResolver()) });
  const fetch = createGuardedFetch({ dialer, development: policy.development, totalMs: budgetMs });
  return {
    signal,
    async dial(host, port) {
      try {
        const socket = await dialer.dial({ host, port, provider }, { signal });
        // Logins are short messages back and forth, and each would wait for a delayed acknowledgement.
        socket.setNoDelay(true);
        return { stream: new CheckStream(socket), authenticated: () => socket.authenticated() };
      } catch (error) {
        throw dialError(error);
      }
    },
    secure: encrypted,
    async request(ask) {
      try {
        const { status, headers, body } = await fetch({ ...ask, provider, signal });
        return { status, headers, body };
      } catch (error) {
        throw dialError(error);
      }
    },
  };
}

/** A test that connects again goes where it went before: each name has the answers of its first resolution. */
function resolvedOnce(resolver: NameResolver): NameResolver {
  const answers = new Map<string, Promise<readonly string[]>>();
  return {
    resolve(name, signal) {
      const known = answers.get(name) ?? resolver.resolve(name, signal);
      answers.set(name, known);
      return known;
    },
  };
}

/** TLS over a stream that was dialled before. What it was that the guard ended is for the stream itself to say. */
function encrypted(stream: Duplex, name: string): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    // A server name is never an address (RFC 6066 section 3). Verification is said outright, because the environment can switch the default off.
    const secured = connect({ socket: stream, host: name, ...(isIP(name) === 0 ? { servername: name } : {}), rejectUnauthorized: true, minVersion: "TLSv1.2" });
    // Stays, so that what fails later is never unheard.
    secured.on("error", reject);
    secured.once("close", () => reject(new DialError("connection_reset")));
    secured.once("secureConnect", () => resolve(secured));
  });
}

/** A guarded connection that fails with the words that tests know. */
class CheckStream extends Duplex {
  readonly #socket: GuardedSocket;

  constructor(socket: GuardedSocket) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    // A test may not listen yet, or no more.
    this.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      if (!this.destroyed && !this.push(chunk)) socket.pause();
    });
    socket.on("end", () => this.push(null));
    socket.on("error", (error) => this.destroy(dialError(error)));
    socket.on("close", () => this.destroy());
    socket.pause();
    // It may have failed before there was somebody to tell.
    if (socket.failure) this.destroy(dialError(socket.failure));
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, (error) => done(error ? dialError(this.#socket.failure ?? error) : null));
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(() => done());
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}
