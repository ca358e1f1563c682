import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { Clock } from "./clock.ts";
import { EgressError, type EgressReason } from "./error.ts";
import type { AdmittedAddress } from "./policy.ts";

/** How much a host may send. */
export interface ByteCaps {
  /** Bytes before `authenticated()`. */
  readonly beforeAuthenticated: number;
  /** Bytes altogether. */
  readonly total: number;
}

/** What guards a connection that stands. */
export interface SocketGuard {
  readonly peer: AdmittedAddress;
  readonly caps: ByteCaps;
  readonly clock: Clock;
  /** When the connection ends whatever happens, on that clock. */
  readonly deadlineAt: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A connection to an admitted address, as a stream that ends itself: at the deadline, at the byte cap, or when its signal is aborted.
 * It carries TLS, serves as ssh2's `sock`, and as what pg's `stream` function gives. Counts what arrives, not what is sent.
 */
export class GuardedSocket extends Duplex {
  /** Where the connection leads. */
  readonly peer: AdmittedAddress;
  readonly #socket: Socket;
  readonly #caps: ByteCaps;
  readonly #release: () => void;
  #cap: number;
  #received = 0;
  #failure: EgressError | undefined;

  constructor(socket: Socket, guard: SocketGuard) {
    super({ allowHalfOpen: false });
    this.peer = guard.peer;
    this.#socket = socket;
    this.#caps = guard.caps;
    this.#cap = Math.min(guard.caps.beforeAuthenticated, guard.caps.total);

    // A driver may not listen yet, or no more; the failure is kept for whoever asks.
    this.on("error", () => {});
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("end", () => this.push(null));
    socket.on("error", () => this.#end("connection-lost"));
    // A socket that closes on its own with data still unread has sent its end; one without an end was cut off.
    socket.on("close", () => {
      if (!socket.readableEnded) this.#end("connection-lost");
    });

    const aborted = () => this.#end("cancelled");
    const stop = guard.clock.after(Math.max(0, guard.deadlineAt - guard.clock.now()), () => this.#end("deadline"));
    guard.signal?.addEventListener("abort", aborted);
    this.#release = () => {
      stop();
      guard.signal?.removeEventListener("abort", aborted);
    };
    if (guard.signal?.aborted === true) aborted();
  }

  /** Why the connection was ended from this side or lost; undefined while it stands and where it ended properly. Drivers bury it in words of their own. */
  get failure(): EgressError | undefined {
    return this.#failure;
  }

  /** Bytes that have arrived. */
  get received(): number {
    return this.#received;
  }

  /** Says that the host has proved who it is, or accepted who we are: from here the cap for the whole connection applies. */
  authenticated(): void {
    this.#cap = this.#caps.total;
  }

  /** For pg, which connects the stream that it is given: announces the connection that stands already, and dials nothing. */
  connect(): this {
    process.nextTick(() => this.emit("connect"));
    return this;
  }

  /** As of a `net.Socket`. */
  setNoDelay(on?: boolean): this {
    this.#socket.setNoDelay(on);
    return this;
  }

  /** As of a `net.Socket`. */
  setKeepAlive(on?: boolean, delayMs?: number): this {
    this.#socket.setKeepAlive(on, delayMs);
    return this;
  }

  /** As of a `net.Socket`. */
  ref(): this {
    this.#socket.ref();
    return this;
  }

  /** As of a `net.Socket`. */
  unref(): this {
    this.#socket.unref();
    return this;
  }

  /** Ends the connection and waits until its descriptor is closed. */
  override async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return;
    const closed = new Promise<void>((resolve) => {
      this.once("close", () => resolve());
    });
    this.destroy();
    await closed;
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    // The words of a system error name the address, so they stay here.
    this.#socket.write(chunk, (error) => done(error ? (this.#failure ?? new EgressError("connection-lost")) : null));
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(() => done());
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#release();
    if (this.#socket.closed) {
      done(error);
      return;
    }
    this.#socket.once("close", () => done(error));
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    if (this.destroyed) return;
    this.#received += chunk.length;
    if (this.#received > this.#cap) this.#end("too-many-bytes");
    else if (!this.push(chunk)) this.#socket.pause();
  }

  #end(reason: EgressReason): void {
    if (this.destroyed) return;
    this.#failure = new EgressError(reason);
    this.destroy(this.#failure);
  }
}
