import type { Duplex } from "node:stream";
import type { CheckIo, CheckResult } from "../../domain/check.ts";
import { failed, type Reason } from "./doctor.ts";
import { tlsReason } from "./pg-refusals.ts";
import { type Reply, SmtpConversation } from "./smtp-replies.ts";
import { CheckFailure, conduct, farewell, type Trial } from "./trial.ts";

/** A server for sending mail, and how to log in. */
export interface SmtpTarget {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  /** Whether the host is Amazon's for a region, and not one that somebody wrote. */
  readonly hostOfRegion: boolean;
}

/** Ports on which TLS begins at once (RFC 8314 section 3.3), Amazon's second one included. On all others STARTTLS is demanded. */
const IMPLICIT_TLS_PORTS: readonly number[] = [465, 2465];
/** Longest line of a login (RFC 4954 section 4). */
const MAX_LOGIN_CHARACTERS = 12_288;
/** An address literal (RFC 5321 section 4.1.3), for a client that has no name. */
const HELLO = "EHLO [127.0.0.1]";

/** Tests a mail server: demands TLS with a certificate for its name, logs in, and sends nothing. Never throws. */
export async function checkSmtp(target: SmtpTarget, io: CheckIo): Promise<CheckResult> {
  const { username, password } = target;
  if (`${username}${password}`.includes("\0") || plainOf(target).length > MAX_LOGIN_CHARACTERS) return failed("smtp_login_malformed");
  const implicit = IMPLICIT_TLS_PORTS.includes(target.port);
  const result = await conduct(io, target, implicit ? "smtp_tls_handshake" : "smtp_greeting", async (connection, trial) => {
    const stream = implicit ? await secured(io, connection.stream, target, trial) : await afterStarttls(io, connection.stream, target, trial);
    const session = new SmtpConversation(stream, trial);
    if (implicit) await greeted(session, trial);
    const offered = await hello(session, trial);
    await logIn(session, offered, target, trial);
    connection.authenticated();
    trial.succeed();
    await farewell(session.ask("QUIT"));
    return "smtp_works";
  });
  return result.reason === "name_not_found" && target.hostOfRegion ? failed("ses_region_unknown") : result;
}

async function greeted(session: SmtpConversation, trial: Trial): Promise<void> {
  trial.phase = "smtp_greeting";
  const { code } = await session.hear();
  if (code === 421) throw new CheckFailure("smtp_service_unavailable");
  if (code >= 400) throw new CheckFailure("smtp_greeting_refused");
  // Only a mail server says 220, but FTP servers do too; those know no EHLO.
  if (code !== 220) throw new CheckFailure("not_an_smtp_server");
}

/** Introduces us; gives what the server offers, in capitals. */
async function hello(session: SmtpConversation, trial: Trial): Promise<readonly string[]> {
  trial.phase = "smtp_hello";
  const reply = await session.ask(HELLO);
  if (reply.code !== 250) throw new CheckFailure(reply.code === 421 ? "smtp_service_unavailable" : "smtp_hello_refused");
  return reply.lines.slice(1).map((line) => line.trim().toUpperCase());
}

async function afterStarttls(io: CheckIo, stream: Duplex, target: SmtpTarget, trial: Trial): Promise<Duplex> {
  const session = new SmtpConversation(stream, trial);
  await greeted(session, trial);
  if (!(await hello(session, trial)).includes("STARTTLS")) throw new CheckFailure("smtp_starttls_missing");
  const { code } = await session.ask("STARTTLS");
  if (code !== 220) throw new CheckFailure(code === 421 ? "smtp_service_unavailable" : "smtp_starttls_refused");
  session.release();
  // What was sent in clear behind the reply would be taken for a part of the encrypted session.
  if (!session.silent) throw new CheckFailure("smtp_starttls_injected");
  return secured(io, stream, target, trial);
}

/** OpenSSL's and Node's codes that mean something else here than at a server whose authority can be given. */
const TLS_CODES: Readonly<Record<string, Reason>> = {
  ERR_SSL_WRONG_VERSION_NUMBER: "smtp_tls_not_spoken",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "smtp_tls_not_spoken",
};
const TLS_REASONS: Partial<Record<Reason, Reason>> = {
  tls_certificate_self_signed: "smtp_certificate_not_trusted",
  tls_certificate_unknown_authority: "smtp_certificate_not_trusted",
};
const LOST: ReadonlySet<string> = new Set(["", "ECONNRESET", "EPIPE", "ERR_STREAM_PREMATURE_CLOSE", "ERR_STREAM_DESTROYED"]);

async function secured(io: CheckIo, stream: Duplex, { host, port }: SmtpTarget, trial: Trial): Promise<Duplex> {
  trial.phase = "smtp_tls_handshake";
  try {
    const encrypted = await Promise.race([io.secure(stream, host.replace(/\.$/, "")), trial.over]);
    trial.details["tls"] = "verified";
    return encrypted;
  } catch (error) {
    const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
    const known = IMPLICIT_TLS_PORTS.includes(port) && Object.hasOwn(TLS_CODES, code) ? TLS_CODES[code] : tlsReason(error, trial);
    if (known) trial.fail(TLS_REASONS[known] ?? known);
    else if (LOST.has(code)) trial.closed();
    else trial.fail("tls_handshake_failed");
    throw trial.failure ?? error;
  }
}

const base64 = (text: string): string => Buffer.from(text, "utf8").toString("base64");

/** User name and password as SASL's PLAIN has them (RFC 4616); base64, so that neither can end a line. */
const plainOf = ({ username, password }: SmtpTarget): string => base64(`\0${username}\0${password}`);

/** Only reached with TLS. */
async function logIn(session: SmtpConversation, offered: readonly string[], target: SmtpTarget, trial: Trial): Promise<void> {
  // The form with `=` is that of servers from before RFC 4954.
  const methods = offered.filter((line) => /^AUTH[ =]/.test(line)).flatMap((line) => line.slice(5).split(/\s+/)).filter((word) => word !== "");
  if (methods.length === 0) throw new CheckFailure("smtp_auth_not_offered");
  const method = ["PLAIN", "LOGIN"].find((known) => methods.includes(known));
  if (method === undefined) throw new CheckFailure("smtp_auth_method_unsupported");
  trial.phase = "smtp_login";
  const { code } = method === "PLAIN" ? await session.ask(`AUTH PLAIN ${plainOf(target)}`) : await byPrompts(session, target);
  if (code !== 235) throw new CheckFailure(refusal(code, target));
  trial.details["auth_method"] = method.toLowerCase();
}

/** User name and password, each when it is asked for. Stops at the first answer that does not ask. */
async function byPrompts(session: SmtpConversation, { username, password }: SmtpTarget): Promise<Reply> {
  const first = await session.ask("AUTH LOGIN");
  if (first.code !== 334) return first;
  const second = await session.ask(base64(username));
  return second.code === 334 ? session.ask(base64(password)) : second;
}

/** What a refused login means (RFC 4954 section 6). */
function refusal(code: number, { host, password }: SmtpTarget): Reason {
  if (code === 421) return "smtp_service_unavailable";
  if (code === 454 || code === 432 || code === 450 || code === 451) return "smtp_login_throttled";
  if (code === 504 || code === 534 || code === 538) return "smtp_auth_method_unsupported";
  if (code !== 535 && code !== 530 && code !== 550) return "smtp_server_error";
  return looksLikeAccessKey(password) && /\.amazonaws\.(?:com|com\.cn|eu)$/i.test(host) ? "smtp_password_is_access_key" : "smtp_login_refused";
}

/** SES's passwords have 44 characters; the secret of an access key, which is easily taken for one, has 40. */
const looksLikeAccessKey = (password: string): boolean => /^[A-Za-z0-9+/]{40}$/.test(password);
