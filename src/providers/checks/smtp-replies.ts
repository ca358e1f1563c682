import type { Duplex } from "node:stream";
import { CheckFailure, type Trial } from "./trial.ts";

/** A reply of one or more lines (RFC 5321 section 4.2). */
export interface Reply {
  readonly code: number;
  /** What follows the code, by line. */
  readonly lines: readonly string[];
}

/** Longest line, with room over the 512 of RFC 5321 section 4.5.3.1.5, and most lines of one reply. */
const MAX_LINE_BYTES = 2_048;
const MAX_LINES = 100;

const CR_OR_LF = /[\r\n]/;

/** The client's side of an SMTP session: one command, one reply. */
export class SmtpConversation {
  readonly #stream: Duplex;
  readonly #trial: Trial;
  readonly #arrived = (chunk: Buffer): void => this.#take(chunk.toString("latin1"));
  readonly #closed = (): void => this.#trial.closed();
  #rest = "";
  #lines: string[] = [];
  #code = "";
  #waiting: ((reply: Reply) => void) | null = null;
  readonly #replies: Reply[] = [];

  constructor(stream: Duplex, trial: Trial) {
    this.#stream = stream;
    this.#trial = trial;
    // What ends the connection is the trial's to judge.
    stream.on("error", () => {});
    stream.on("close", this.#closed);
    stream.on("data", this.#arrived);
  }

  /** The next reply. Rejects when the trial ends. */
  hear(): Promise<Reply> {
    const reply = this.#replies.shift();
    if (reply !== undefined) return Promise.resolve(reply);
    const { promise, resolve } = Promise.withResolvers<Reply>();
    this.#waiting = resolve;
    return Promise.race([promise, this.#trial.over]);
  }

  /** Sends a line, gives its reply. A server that answers before it was asked breaks the rules. */
  async ask(line: string): Promise<Reply> {
    if (!this.silent) throw new CheckFailure("smtp_protocol_broken");
    if (CR_OR_LF.test(line)) throw new CheckFailure("check_failed");
    this.#stream.write(`${line}\r\n`, "latin1");
    return this.hear();
  }

  /** Whether nothing has arrived that was not heard. */
  get silent(): boolean {
    return this.#rest === "" && this.#lines.length === 0 && this.#replies.length === 0;
  }

  /** Leaves the stream to another reader. */
  release(): void {
    this.#stream.off("data", this.#arrived);
    this.#stream.off("close", this.#closed);
    this.#stream.pause();
  }

  #take(text: string): void {
    if (this.#trial.failure !== null) return;
    this.#rest += text;
    for (let end = this.#rest.indexOf("\n"); end !== -1; end = this.#rest.indexOf("\n")) {
      const line = this.#rest.slice(0, end).replace(/\r$/, "");
      this.#rest = this.#rest.slice(end + 1);
      if (!this.#line(line)) return this.#broken();
    }
    // What cannot become a reply any more is not waited for.
    if (this.#rest.length > MAX_LINE_BYTES || !/^(?:\d{0,3}$|\d{3}(?:[ -]|\r$))/.test(this.#rest)) this.#broken();
  }

  /** Takes a line; false where it is none of a reply. */
  #line(line: string): boolean {
    const [, code = "", sign = "", text = ""] = /^([2-5]\d\d)(?:([ -])(.*))?$/.exec(line) ?? [];
    const belongs = this.#lines.length === 0 || code === this.#code;
    if (code === "" || !belongs || line.length > MAX_LINE_BYTES || this.#lines.length + this.#replies.length >= MAX_LINES) return false;
    this.#code = code;
    this.#lines.push(text);
    if (sign === "-") return true;
    const reply = { code: Number(code), lines: this.#lines };
    this.#lines = [];
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) this.#replies.push(reply);
    else waiting(reply);
    return true;
  }

  #broken(): void {
    this.#trial.fail(this.#trial.phase === "smtp_greeting" ? "not_an_smtp_server" : "smtp_protocol_broken");
  }
}
