import { isIP } from "node:net";
import { Duplex } from "node:stream";
import { connect } from "node:tls";
import { type CheckIo, DialError } from "../domain/check.ts";
import { dialError } from "./dial-error.ts";
import { createDialer } from "./dialer.ts";
import { createGuardedFetch } from "./fetch.ts";
import { createAddressPolicy } from "./policy.ts";
import type { ProbeEgress } from "./probe-task.ts";
import { createResolver, type NameResolver } from "./resolver.ts";
import type { GuardedSocket } from "./socket.ts";

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
