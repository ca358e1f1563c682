import type { Duplex } from "node:stream";
import { beforeAll, describe, expect, test } from "vitest";
import { DIAL_REASONS, DialError } from "../../src/domain/check.ts";
import { failed } from "../../src/providers/checks/doctor.ts";
import { checkSmtp, type SmtpTarget } from "../../src/providers/checks/smtp.ts";
import { providers } from "../../src/providers/index.ts";
import { leaks } from "../support/canary.ts";
import { abortWhenQuiet } from "../support/hostile-dialer.ts";
import { drip, flood } from "../support/hostile-tcp.ts";
import { testProber } from "../support/probe-tools.ts";
import { type Certificates, makeCertificates, type Script, scriptedSmtp, type ScriptedSmtp, smtpIo } from "../support/smtp-scripted.ts";

const USER = "AKIACANARYUSER";
const PASSWORD = "canary-password-0123456789";
const PLAIN = Buffer.from(`\0${USER}\0${PASSWORD}`).toString("base64");

let certificates: Certificates;
beforeAll(async () => {
  certificates = await makeCertificates();
});

interface Case {
  readonly clear?: Script;
  readonly secured?: Script;
  readonly certificate?: Parameters<Certificates["of"]>[0];
  readonly implicit?: boolean;
  readonly target?: Partial<SmtpTarget>;
  /** Ends the test's time once nothing happens any more. */
  readonly quiet?: boolean;
}

/** Runs a check against a scripted server. Ports of implicit TLS are below 1024, so the dialler goes to the server's whatever it is told. */
async function run(what: Case): Promise<{ result: Awaited<ReturnType<typeof checkSmtp>>; server: ScriptedSmtp }> {
  await using server = await scriptedSmtp(certificates.of(what.certificate ?? "good"), { clear: what.clear ?? {}, secured: what.secured ?? {}, implicit: what.implicit ?? false });
  const io = smtpIo(certificates.ca);
  if (what.quiet) abortWhenQuiet(io, server);
  const target = { host: "localhost", port: what.implicit ? 465 : 587, username: USER, password: PASSWORD, hostOfRegion: false, ...what.target };
  const result = await checkSmtp(target, { ...io, dial: () => io.dial("localhost", server.port) });
  expect(io.open()).toBe(0);
  expect(leaks([USER, target.password, PLAIN], "result", Buffer.from(JSON.stringify(result)))).toEqual([]);
  expect(JSON.stringify(result)).not.toContain("canary");
  expect(leaks([target.password, PLAIN], "clear text", Buffer.from(server.clear.join("\n")))).toEqual([]);
  return { result, server };
}

describe("a mail server with TLS", () => {
  const passed = { success: true, layer: null, reason: "ok", message: "The login to the mail server works; no mail was sent.", nextStep: "" };

  test("passes with STARTTLS, and hears the login only behind it", async () => {
    const { result, server } = await run({});
    expect(result).toEqual({ ...passed, details: { tls: "verified", auth_method: "plain" } });
    expect(server.clear).toEqual(["EHLO [127.0.0.1]", "STARTTLS"]);
    expect(server.secret).toEqual(["EHLO [127.0.0.1]", `AUTH PLAIN ${PLAIN}`, "QUIT"]);
  });

  test.each([465, 2465])("passes with TLS from the start on port %i", async (port) => {
    const { result, server } = await run({ implicit: true, target: { port } });
    expect(result).toEqual({ ...passed, details: { tls: "verified", auth_method: "plain" } });
    expect(server.clear).toEqual([]);
  });

  test.each([25, 587, 2587, 9_999])("is asked for STARTTLS on port %i", async (port) => {
    const { server } = await run({ target: { port } });
    expect(server.clear).toContain("STARTTLS");
  });

  test("passes with AUTH LOGIN where that is all it offers, and nothing of the login can end a line", async () => {
    const username = "canary\r\nMAIL FROM:<a@b>";
    const password = "canary\r\nQUIT\r\n0123456789";
    const { result, server } = await run({ target: { username, password }, secured: { EHLO: "250-x\r\n250 AUTH=LOGIN\r\n", "AUTH LOGIN": "334 VXNlcm5hbWU6\r\n", prompt: answerPrompt } });
    expect(result).toEqual({ ...passed, details: { tls: "verified", auth_method: "login" } });
    expect(server.secret).toEqual(["EHLO [127.0.0.1]", "AUTH LOGIN", Buffer.from(username).toString("base64"), Buffer.from(password).toString("base64"), "QUIT"]);
  });

  test("passes though it hangs up without a farewell, or speaks with bare line feeds", async () => {
    expect((await run({ secured: { QUIT: (stream) => stream.destroy() } })).result).toMatchObject(passed);
    expect((await run({ clear: { greeting: "220-mail\n220 test\n" } })).result).toMatchObject(passed);
  });
});

/** Who has given a user name. The second prompt is for the password; the answer to it lets in. */
const named = new WeakSet<Duplex>();
function answerPrompt(stream: Duplex): void {
  stream.write(named.has(stream) ? "235 welcome\r\n" : "334 UGFzc3dvcmQ6\r\n");
  named.add(stream);
}

describe("a mail server that fails", () => {
  const auth = (reply: string): Case => ({ secured: { "AUTH PLAIN": reply } });
  const end = (stream: Duplex): void => void stream.destroy();
  const silence = (): void => {};
  const SECRET_KEY = "canaryCANARY+/0123456789canaryCANARY+/01";

  test.each<readonly [string, Case, string, string]>([
    ["a greeting that is none", { clear: { greeting: "canary\r\n" } }, "protocol", "not_an_smtp_server"],
    ["SSH", { clear: { greeting: "SSH-2.0-canary\r\n" } }, "protocol", "not_an_smtp_server"],
    ["POP3", { clear: { greeting: "+OK canary\r\n" } }, "protocol", "not_an_smtp_server"],
    ["a greeting of another kind", { clear: { greeting: "250 canary\r\n" } }, "protocol", "not_an_smtp_server"],
    ["an endless line", { clear: { greeting: (stream) => flood(stream as never, "220 canary") } }, "protocol", "not_an_smtp_server"],
    ["an endless reply", { clear: { greeting: (stream) => flood(stream as never, "220-canary\r\n") } }, "protocol", "not_an_smtp_server"],
    ["a drip without an end", { clear: { greeting: (stream) => drip(stream as never, "220-x\r\n") }, quiet: true }, "timeout", "smtp_greeting_timed_out"],
    ["a refusal at the door", { clear: { greeting: "554 canary\r\n" } }, "connect", "smtp_greeting_refused"],
    ["a server that is closing", { clear: { greeting: "421 canary\r\n" } }, "connect", "smtp_service_unavailable"],
    ["a connection that ends at once", { clear: { greeting: end } }, "connect", "smtp_greeting_closed"],
    ["silence", { clear: { greeting: silence }, quiet: true }, "timeout", "smtp_greeting_timed_out"],
    ["a server that knows no EHLO", { clear: { EHLO: "502 canary\r\n" } }, "protocol", "smtp_hello_refused"],
    ["an end after the greeting", { clear: { EHLO: end } }, "connect", "smtp_hello_closed"],
    ["silence after the greeting", { clear: { EHLO: silence }, quiet: true }, "timeout", "smtp_hello_timed_out"],
    ["two codes in one reply", { clear: { EHLO: "250-canary\r\n251 canary\r\n" } }, "protocol", "smtp_protocol_broken"],
    ["an answer before the question", { clear: { greeting: "220 x\r\n250 canary\r\n" } }, "protocol", "smtp_protocol_broken"],
    ["no STARTTLS", { clear: { EHLO: "250-x\r\n250 AUTH PLAIN\r\n" } }, "tls", "smtp_starttls_missing"],
    ["a STARTTLS that fails", { clear: { STARTTLS: "454 canary\r\n" } }, "tls", "smtp_starttls_refused"],
    ["text in front of the encryption", { clear: { STARTTLS: "220 x\r\n250 AUTH PLAIN\r\n" } }, "tls", "smtp_starttls_injected"],
    ["an end in place of the handshake", { clear: { STARTTLS: (stream) => void (stream.write("220 x\r\n"), stream.end()) } }, "tls", "smtp_tls_handshake_closed"],
    ["silence in place of the handshake", { clear: { STARTTLS: (stream) => void stream.write("220 x\r\n") }, quiet: true }, "timeout", "smtp_tls_handshake_timed_out"],
    ["garbage in place of the handshake", { clear: { STARTTLS: (stream) => void (stream.write("220 x\r\n"), setTimeout(() => stream.write("canary canary\r\n"), 30)) } }, "tls", "tls_handshake_failed"],
    ["plain text where TLS begins at once", { target: { port: 465 } }, "tls", "smtp_tls_not_spoken"],
    ["an expired certificate", { certificate: "expired" }, "tls", "tls_certificate_expired"],
    ["a certificate of the future", { certificate: "future" }, "tls", "tls_certificate_not_yet_valid"],
    ["a certificate for another name", { certificate: "otherName" }, "tls", "tls_certificate_wrong_name"],
    ["a self-signed certificate", { certificate: "selfSigned", implicit: true }, "tls", "smtp_certificate_not_trusted"],
    ["no login", { secured: { EHLO: "250-x\r\n250 SIZE\r\n" } }, "auth", "smtp_auth_not_offered"],
    ["other logins", { secured: { EHLO: "250-x\r\n250 AUTH CRAM-MD5 XOAUTH2\r\n" } }, "auth", "smtp_auth_method_unsupported"],
    ["a login that is too weak", auth("534 canary\r\n"), "auth", "smtp_auth_method_unsupported"],
    ["a wrong password", auth("535 Authentication Credentials Invalid canary\r\n"), "auth", "smtp_login_refused"],
    ["a login in its own time", auth("454 canary\r\n"), "auth", "smtp_login_throttled"],
    ["a server that closes at the login", auth("421 canary\r\n"), "connect", "smtp_service_unavailable"],
    ["an error nobody knows", auth("599 canary\r\n"), "protocol", "smtp_server_error"],
    ["silence at the login", auth(""), "timeout", "smtp_login_timed_out"],
    ["garbage at the login", auth("welcome canary\r\n"), "protocol", "smtp_protocol_broken"],
    ["a NUL", { target: { password: "canary\0canary" } }, "auth", "smtp_login_malformed"],
    ["a password without an end", { target: { password: "canary".repeat(2_000) } }, "auth", "smtp_login_malformed"],
  ])("with %s is told apart", async (_, what, layer, reason) => {
    const quiet = what.quiet ?? reason.endsWith("_timed_out");
    expect((await run({ ...what, quiet })).result).toMatchObject({ success: false, layer, reason });
  });

  test("by hanging up at the login says so", async () => {
    expect((await run({ secured: { "AUTH PLAIN": end } })).result).toMatchObject({ layer: "auth", reason: "smtp_login_closed" });
  });

  test("of Amazon, which gets the secret of an access key, gives itself away", async () => {
    await using server = await scriptedSmtp(certificates.of("good"), { secured: { "AUTH PLAIN": "535 canary\r\n" } });
    const io = smtpIo(certificates.ca);
    const amazon = { ...io, dial: () => io.dial("localhost", server.port), secure: (stream: Duplex) => io.secure(stream, "localhost") };
    const target = { host: "email-smtp.eu-central-1.amazonaws.com", port: 587, username: USER, password: SECRET_KEY, hostOfRegion: true };
    expect(await checkSmtp(target, amazon)).toMatchObject({ layer: "auth", reason: "smtp_password_is_access_key" });
  });

  test("to prove who it is gets no login from a test's own process", async () => {
    await using it = testProber();
    await using server = await scriptedSmtp(certificates.of("good"));
    const document = { username: USER, password: PASSWORD, host: "127.0.0.1", port: server.port };
    expect(await it.run({ provider: "aws_ses", credentialType: "user_password", document })).toMatchObject({ layer: "tls", reason: "smtp_certificate_not_trusted" });
    expect([server.clear, server.secret]).toEqual([["EHLO [127.0.0.1]", "STARTTLS"], []]);
  });

  test("in a region is reached through the provider at the region's host", async () => {
    const dialled: (readonly [string, number])[] = [];
    const io = { ...smtpIo(""), dial: (...place: [string, number]) => (dialled.push(place), Promise.reject(new DialError("name_not_found"))) };
    const check = providers.aws_ses.types.user_password?.check;
    const login = { username: USER, password: PASSWORD };
    expect(await check?.({ ...login, region: "eu-central-1" }, io, { testPath: "" })).toEqual(failed("ses_region_unknown"));
    expect(await check?.({ ...login, region: "eu-central-1", host: "mail.example", port: 465 }, io, { testPath: "" })).toEqual(failed("name_not_found"));
    expect(dialled).toEqual([["email-smtp.eu-central-1.amazonaws.com", 587], ["mail.example", 465]]);
  });

  test.each(DIAL_REASONS)("to be reached is told as the guard tells it: %s", async (reason) => {
    const io = { ...smtpIo(""), dial: () => Promise.reject(new DialError(reason)) };
    const target = { host: "h", port: 587, username: USER, password: PASSWORD };
    expect(await checkSmtp({ ...target, hostOfRegion: false }, io)).toEqual(failed(reason));
    expect(await checkSmtp({ ...target, hostOfRegion: true }, io)).toEqual(failed(reason === "name_not_found" ? "ses_region_unknown" : reason));
  });
});
