import { type DescField, type DescMethod, fromJson, type JsonObject, type Message } from "@bufbuild/protobuf";
import { isReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import type { Answer } from "./answer.ts";
import { headerValues } from "./headers.ts";
import { PAGE_HEADERS, renderPage } from "./page.ts";

// An RPC speaks to browsers where its request has a field of the type `Browser` and its response one of the type `BrowserAnswer`.
// Nothing else about it is known here.

const fieldOf = (fields: readonly DescField[], type: string): DescField | undefined => fields.find((field) => field.fieldKind === "message" && field.message.typeName === `flow.credentials.v1.${type}`);

/** The field of a request that says what a browser brings. */
export const browserField = (method: DescMethod): DescField | undefined => fieldOf(method.input.fields, "Browser");

/** The field of a response that says what a browser is shown; JSON leaves it out. */
export const browserAnswerField = (method: DescMethod): DescField | undefined => fieldOf(method.output.fields, "BrowserAnswer");

/** How long a browser keeps what it is given, s. */
const KEEP_SECONDS = 600;

/** What a browser brings with a request. */
export interface BrowserFacts {
  readonly wantsPage: boolean;
  readonly kept: string;
}

/** How browsers are spoken to. */
export interface Browsers {
  /** What a browser brings, from the headers alone. */
  read(rawHeaders: readonly string[]): BrowserFacts;
  /** The answer for a browser: it goes on, or is shown a page. Undefined for a response that says nothing to browsers. */
  present(method: DescMethod, response: Message, requestId: string): Answer | undefined;
}

/**
 * @param secure whether browsers reach the service over https. Its cookie then has the prefix `__Host-`, so that no other host can
 *   set it (RFC 6265bis section 4.1.3.2). Without https, which is for a development machine's own loopback, browsers would not
 *   take such a cookie, and the same one goes by another name.
 */
export function createBrowsers(secure: boolean): Browsers {
  const name = secure ? "__Host-flow-browser" : "flow-browser";
  const attributes = `Max-Age=${KEEP_SECONDS}; Path=/; HttpOnly; SameSite=Lax${secure ? "; Secure" : ""}`;
  return {
    read: (raw) => ({ wantsPage: wantsPage(raw), kept: cookie(raw, name) }),
    present(method, response, requestId) {
      const field = browserAnswerField(method);
      const answer = field && reflect(method.output, response).get(field);
      if (!isReflectMessage(answer)) return undefined;
      const [redirectUri, keep, title, credentialId] = ["redirect_uri", "keep", "title", "credential_id"].map((it) => String(answer.get(answer.desc.fields.find((known) => known.name === it) as DescField)));
      const lists = (it: string) => [...(answer.get(answer.desc.fields.find((known) => known.name === it) as DescField) as unknown as Iterable<string>)];
      const cookies: Record<string, string> = keep ? { "set-cookie": `${name}=${keep}; ${attributes}` } : {};
      if (redirectUri) return redirect(redirectUri, cookies);
      const tell = { origins: lists("opener_origins"), message: { type: "flow-credentials", credential_id: credentialId ?? "" } };
      const body = renderPage({ title: title ?? "", paragraphs: lists("paragraphs"), note: `Request ${requestId}`, tone: "good", tell });
      return { status: 200, headers: { ...PAGE_HEADERS, ...cookies }, body };
    },
  };
}

/** Sends a browser on (RFC 9110 section 15.4.3). The address it comes from may hold a code, and is not told. */
export const redirect = (location: string, headers: Readonly<Record<string, string>> = {}): Answer => ({ status: 302, headers: { location, "referrer-policy": "no-referrer", ...headers }, body: undefined });

/** The page for a refusal: the sentence that a JSON client reads too. A page that has opened it hears the reason. */
export function refusalPage({ status, headers, body }: Answer, requestId: string, openers: { readonly origins: readonly string[]; readonly reason: string }): Answer {
  const { error, detail } = JSON.parse(body ?? "{}") as { error?: { message: string }; detail?: { loc: string[]; msg: string }[] };
  const faults = (detail ?? []).map(({ loc, msg }) => `${loc.slice(1).join(".")}: ${msg}`);
  const tell = openers.origins.length > 0 ? { origins: openers.origins, message: { type: "flow-credentials", error: openers.reason } } : undefined;
  const paragraphs = [...(error ? sentences(error.message) : faults), "You can close this window."];
  return { status, headers: { ...headers, ...PAGE_HEADERS }, body: renderPage({ title: "The account was not connected", paragraphs, note: `Request ${requestId}`, tone: "bad", tell }) };
}

/** `What happened; what to do` as two sentences. */
const sentences = (message: string): string[] => message.split(/; |\. /).map((part) => `${part.slice(0, 1).toUpperCase()}${part.slice(1)}${/[.!?]$/.test(part) ? "" : "."}`);

/** Whether `text/html` is among what is accepted (RFC 9110 section 12.5.1); a wildcard is no browser's wish for a page. */
function wantsPage(raw: readonly string[]): boolean {
  const ranges = headerValues(raw, "accept").flatMap((value) => value.split(","));
  return ranges.some((range) => {
    const [type = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    return type === "text/html" && !parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter));
  });
}

/** The value of a cookie; empty where it is missing, or there more than once. */
function cookie(raw: readonly string[], name: string): string {
  const pairs = headerValues(raw, "cookie").flatMap((value) => value.split(";")).map((pair) => pair.trim());
  const values = pairs.filter((pair) => pair.startsWith(`${name}=`)).map((pair) => pair.slice(name.length + 1));
  const [value = "", ...more] = values;
  return more.length === 0 && /^[\x21-\x7e]{0,128}$/.test(value) ? value : "";
}

/** A browser's facts as the message that a request holds. */
export const browserMessage = (field: DescField, { wantsPage: page, kept }: BrowserFacts): unknown =>
  field.fieldKind === "message" ? reflect(field.message, fromJson(field.message, { wantsPage: page, kept } satisfies JsonObject)) : undefined;
