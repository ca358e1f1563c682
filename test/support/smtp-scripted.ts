import type { Duplex } from "node:stream";
import { connect, createSecureContext, TLSSocket } from "node:tls";
import type { Socket } from "node:net";
import { generate } from "selfsigned";
import { directIo, type DirectIo } from "./hostile-dialer.ts";
import { listen, type Scripted } from "./hostile-tcp.ts";

const DAY_MS = 24 * 60 * 60 * 1000;

/** Whom a certificate is for, and from which day to which day from now. */
const KINDS = { good: ["localhost", -1, 1], expired: ["localhost", -9, -1], future: ["localhost", 8, 9], otherName: ["elsewhere.test", -1, 1] } as const;

/** Certificates for the scripted servers, and the authority that signed all but the self-signed one. */
export interface Certificates {
  readonly ca: string;
  of(kind: keyof typeof KINDS | "selfSigned"): { readonly key: string; readonly cert: string };
}

/** Makes them anew. */
export async function makeCertificates(): Promise<Certificates> {
  const named = (value: string) => [{ name: "commonName", value }];
  const extensions = [{ name: "basicConstraints", cA: true, critical: true }, { name: "keyUsage", keyCertSign: true, critical: true }] as const;
  const authority = await generate(named("ca"), { keyType: "ec", algorithm: "sha256", extensions: [...extensions] });
  const made = new Map<string, { key: string; cert: string }>();
  for (const [kind, [host, from, to]] of Object.entries(KINDS)) {
    const { private: key, cert } = await generate(named(host), {
      keyType: "ec", algorithm: "sha256", notBeforeDate: new Date(Date.now() + from * DAY_MS), notAfterDate: new Date(Date.now() + to * DAY_MS),
      ca: { key: authority.private, cert: authority.cert }, extensions: [{ name: "extKeyUsage", serverAuth: true }, { name: "subjectAltName", altNames: [{ type: 2, value: host }] }],
    });
    made.set(kind, { key, cert });
  }
  const { private: key, cert } = await generate(named("localhost"), { keyType: "ec", algorithm: "sha256" });
  made.set("selfSigned", { key, cert });
  return { ca: authority.cert, of: (kind) => made.get(kind) ?? { key: "", cert: "" } };
}

/** A way out to loopback that also speaks TLS, trusting one authority. */
export function smtpIo(ca: string): DirectIo {
  return {
    ...directIo({ maxBytes: 256 * 1024 }),
    secure: (stream, name) =>
      new Promise((resolve, reject) => {
        const secured = connect({ socket: stream, host: name, servername: name, ca, minVersion: "TLSv1.2", rejectUnauthorized: true });
        secured.on("error", reject);
        secured.once("close", () => reject(new Error("closed")));
        secured.once("secureConnect", () => resolve(secured));
      }),
  };
}

/** Replies to commands, by how the commands begin; a function writes by itself. `greeting` comes first. */
export type Script = Readonly<Record<string, string | ((stream: Duplex) => void)>>;

/** What a scripted server got to hear, in clear and encrypted. */
export interface ScriptedSmtp extends Scripted {
  readonly clear: string[];
  readonly secret: string[];
}

/** What a mail server of our days says, before and after STARTTLS. */
export const USUAL: Script = {
  greeting: "220 mail.test ESMTP\r\n",
  EHLO: "250-mail.test\r\n250-SIZE 1000\r\n250 STARTTLS\r\n",
  STARTTLS: "220 go ahead\r\n",
};
export const USUAL_SECURED: Script = {
  EHLO: "250-mail.test\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n",
  "AUTH PLAIN": "235 welcome\r\n",
  QUIT: "221 bye\r\n",
};

/** A mail server that follows scripts: one in clear, one behind TLS. With `implicit`, TLS begins at once. */
export async function scriptedSmtp(
  certificate: { readonly key: string; readonly cert: string },
  { clear = {}, secured = {}, implicit = false }: { clear?: Script; secured?: Script; implicit?: boolean } = {},
): Promise<ScriptedSmtp> {
  const heard = { clear: [] as string[], secret: [] as string[] };
  const before = { ...USUAL, ...clear };
  const after = { ...USUAL_SECURED, ...(implicit ? { greeting: "220 mail.test ESMTP\r\n" } : {}), ...secured };
  const server = await listen((socket) => {
    const encrypt = (): void => {
      const encrypted = new TLSSocket(socket, { isServer: true, secureContext: createSecureContext(certificate) });
      encrypted.on("error", () => {});
      follow(encrypted, after, heard.secret);
    };
    if (implicit) encrypt();
    else follow(socket, before, heard.clear, encrypt);
  });
  return { ...server, ...heard, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

function follow(stream: Duplex | Socket, script: Script, heard: string[], encrypt?: () => void): void {
  const say = (name: string | undefined, otherwise: string): void => {
    const said = name === undefined ? otherwise : script[name];
    if (typeof said === "function") said(stream);
    else if (said !== undefined) stream.write(said);
  };
  if (script["greeting"] !== undefined) say("greeting", "");
  let rest = "";
  const read = (chunk: Buffer): void => {
    rest += chunk.toString("latin1");
    for (let end = rest.indexOf("\r\n"); end !== -1; end = rest.indexOf("\r\n")) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 2);
      heard.push(line);
      const name = Object.keys(script).find((start) => line.startsWith(start)) ?? ("prompt" in script ? "prompt" : undefined);
      say(name, "500 what?\r\n");
      if (name !== "STARTTLS" || encrypt === undefined || !String(script["STARTTLS"]).startsWith("220")) continue;
      stream.off("data", read);
      encrypt();
      return;
    }
  };
  stream.on("data", read);
}
