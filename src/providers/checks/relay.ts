import { Duplex } from "node:stream";
import { CheckFailure, type Trial } from "./trial.ts";

/** Looks at what the server sent before a driver sees it; gives what the driver may see, or throws CheckFailure. */
export type Screen = (chunk: Buffer) => Buffer;

/**
 * Stands between a guarded connection and a driver. It screens what arrives, so that a driver sees nothing that was not
 * looked at first, and it answers the calls of a socket that drivers make, so that none of them opens one of its own.
 */
export class Relay extends Duplex {
  readonly #stream: Duplex;
  readonly #trial: Trial;
  readonly #screen: Screen;

  constructor(stream: Duplex, trial: Trial, screen: Screen) {
    super({ allowHalfOpen: false });
    this.#stream = stream;
    this.#trial = trial;
    this.#screen = screen;
    // A driver that has finished listens no more.
    this.on("error", () => {});
    stream.on("data", (chunk: Buffer) => this.#arrived(chunk));
    stream.on("end", () => this.push(null));
    stream.on("error", () => this.destroy());
    stream.on("close", () => this.push(null));
    stream.pause();
    // The protocols are questions and answers of a few bytes; waiting for more to send costs 40 ms each time.
    if ("setNoDelay" in stream && typeof stream.setNoDelay === "function") stream.setNoDelay(true);
  }

  /** A driver's request to connect: it is connected. */
  connect(): this {
    process.nextTick(() => this.emit("connect"));
    return this;
  }

  /** Accepted and ignored, as are the others below: the connection is the guard's. */
  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  setTimeout(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  #arrived(chunk: Buffer): void {
    if (this.destroyed || this.readableEnded) return;
    try {
      const passed = this.#screen(chunk);
      if (passed.length > 0 && !this.push(passed)) this.#stream.pause();
    } catch (error) {
      this.#trial.fail(error instanceof CheckFailure ? error.reason : "check_failed");
      this.destroy();
    }
  }

  override _read(): void {
    this.#stream.resume();
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#stream.writable) this.#stream.write(chunk, (error) => done(error));
    else done(new Error("the connection is closed"));
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#stream.end(() => done());
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#stream.destroy();
    done(error);
  }
}
