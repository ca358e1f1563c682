import { CheckFailure, type Trial } from "./trial.ts";

/** Most bytes of one message; none of a test's answers is longer than a few hundred. */
const MAX_MESSAGE = 64 * 1024;
/** Most iterations of a SCRAM login (RFC 7677 section 4 asks for 4,096 at least): about half a second of work. */
export const MAX_SCRAM_ITERATIONS = 1_000_000;

/** Fewest where the server is not verified: whoever sees a login with fewer finds the password by trying (RFC 7677 section 4). */
const MIN_SCRAM_ITERATIONS = 4096;

/** Messages of a server that a test may receive (PostgreSQL's manual, "Message Formats"), by their first byte. */
const KNOWN: ReadonlySet<string> = new Set("RSKZENTDC12nIA3st");
/** What may be the first: a login question, an error, or a notice. */
const FIRST: ReadonlySet<string> = new Set("REN");
const LOGIN = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 };

/** What is told of the login. */
export interface LoginWatch {
  /** Whether the server's identity is known, so that it may see the password itself. */
  verified(): boolean;
  /** Whether the login may be bound to the TLS session (RFC 5802 section 6). */
  readonly mayBind: boolean;
  /** Whether it must be. */
  readonly mustBind: boolean;
  /** The server let us in. */
  accepted(): void;
}

/**
 * Takes a server's bytes apart, looks at each message, and gives whole messages for the driver. The driver answers every
 * question of a server and believes every length; what it may not answer never reaches it. Throws CheckFailure.
 */
export function screenMessages(trial: Trial, watch: LoginWatch): (chunk: Buffer) => readonly Buffer[] {
  let held: Buffer = Buffer.alloc(0);
  let first = true;
  const judge = screenLogin(trial, watch);
  return (chunk) => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    const whole: Buffer[] = [];
    while (held.length > 0) {
      const type = String.fromCharCode(held.readUInt8(0));
      const broken = first ? "not_a_postgresql_server" : "pg_protocol_broken";
      if (type === "v") throw new CheckFailure("pg_protocol_version_refused");
      if (!(first ? FIRST : KNOWN).has(type)) throw new CheckFailure(broken);
      if (held.length < 5) break;
      const length = held.readUInt32BE(1);
      if (length < 4 || length > MAX_MESSAGE) throw new CheckFailure(broken);
      if (held.length < 1 + length) break;
      first = false;
      const message = held.subarray(0, 1 + length);
      held = held.subarray(1 + length);
      judge(type, message.subarray(5));
      whole.push(message);
    }
    return whole;
  };
}

/** Follows the login: one question at most, none that a network or another server should not see answered. */
function screenLogin(trial: Trial, watch: LoginWatch): (type: string, body: Buffer) => void {
  let method: string | null = null;
  let proof = false;
  let over = false;
  const bind = (bound: boolean): void => {
    if (watch.mustBind && !bound) throw new CheckFailure("pg_channel_binding_missing");
  };
  const asked = (name: string): void => {
    if (method !== null) throw new CheckFailure("pg_protocol_broken");
    method = name;
    trial.phase = "pg_authentication";
    trial.details["password_checked"] = true;
    trial.details["password_method"] = name;
  };
  const login = (body: Buffer): void => {
    if (over || body.length < 4) throw new CheckFailure("pg_protocol_broken");
    const [code, text] = [body.readUInt32BE(0), body.subarray(4).toString("latin1")];
    if (code === LOGIN.cleartext) {
      if (!watch.verified()) throw new CheckFailure("pg_cleartext_refused");
      bind(false);
      asked("cleartext");
    } else if (code === LOGIN.md5) {
      if (!watch.verified()) throw new CheckFailure("pg_md5_refused");
      bind(false);
      asked("md5");
    } else if (code === LOGIN.sasl) {
      const offered = text.split("\0");
      const bound = watch.mayBind && trial.details["tls"] !== "none" && offered.includes("SCRAM-SHA-256-PLUS");
      if (!bound && !offered.includes("SCRAM-SHA-256")) throw new CheckFailure("pg_authentication_unsupported");
      bind(bound);
      asked("scram-sha-256");
      trial.details["channel_binding"] = bound;
    } else if (code === LOGIN.saslContinue) {
      // Said twice, the driver takes the last one.
      const [said = "", ...again] = text.split(",").filter((attribute) => attribute.startsWith("i="));
      if (method !== "scram-sha-256" || again.length > 0 || !/^i=[1-9]\d{0,19}$/.test(said)) throw new CheckFailure("pg_protocol_broken");
      const iterations = Number(said.slice(2));
      if (iterations > MAX_SCRAM_ITERATIONS) throw new CheckFailure("pg_scram_too_costly");
      trial.details["scram_iterations"] = iterations;
      if (iterations < MIN_SCRAM_ITERATIONS && !watch.verified()) throw new CheckFailure("pg_scram_too_cheap");
    } else if (code === LOGIN.saslFinal) {
      proof = true;
    } else if (code === LOGIN.ok) {
      // In SCRAM also the server proves that it knows the password (RFC 5802 section 3).
      if (method === "scram-sha-256" && !proof) throw new CheckFailure("pg_server_unproven");
      bind(trial.details["channel_binding"] === true);
      over = true;
      watch.accepted();
    } else {
      throw new CheckFailure("pg_authentication_unsupported");
    }
  };
  return (type, body) => {
    if (type === "R") login(body);
    // Whatever needs a login cannot come before it.
    else if (!over && type !== "E" && type !== "N") throw new CheckFailure("pg_protocol_broken");
    else if (type === "Z") trial.phase = "pg_query";
  };
}
