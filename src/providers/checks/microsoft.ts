import type { CheckIo, CheckResult, GuardedResponse } from "../../domain/check.ts";
import type { Reason } from "./doctor.ts";
import { asObject, type Inquired, inquire, objectIn, statusReason } from "./inquiry.ts";
import { type OauthToken, refusalOf, sendable } from "./oauth-token.ts";
import type { Pass } from "./passes.ts";
import { CheckFailure } from "./trial.ts";

const GLOBAL_GRAPH = "graph.microsoft.com";

/** Where Graph is served for the sites of a national cloud, by the end of their host names. */
const GRAPHS: Readonly<Record<string, string>> = {
  ".sharepoint.us": "graph.microsoft.us",
  ".sharepoint-mil.us": "dod-graph.microsoft.us",
  ".sharepoint.cn": "microsoftgraph.chinacloudapi.cn",
};

/** What Graph is asked for, and what its refusals mean there. */
interface Question {
  readonly url: string;
  readonly missing: Reason;
  /** Undefined where a token that may not read this may still do what it is for. */
  readonly forbidden?: Reason;
  readonly pass: Pass;
}

/** Asks Microsoft Graph for the account of an access token. Never throws. */
export function checkMicrosoft(token: OauthToken, io: CheckIo): Promise<CheckResult> {
  const url = `https://${GLOBAL_GRAPH}/v1.0/me?$select=id`;
  return askGraph(token, io, { url, missing: "graph_account_missing", pass: "microsoft_token_works" });
}

/** Asks Microsoft Graph for a SharePoint site, or for the organization's root site where none is named. Never throws. */
export function checkSharepoint(token: OauthToken, siteUrl: string, io: CheckIo): Promise<CheckResult> {
  if (siteUrl === "") {
    const url = `https://${GLOBAL_GRAPH}/v1.0/sites/root?$select=id`;
    return askGraph(token, io, { url, missing: "sharepoint_site_missing", pass: "microsoft_token_works" });
  }
  const question = { missing: "sharepoint_site_missing", forbidden: "sharepoint_site_not_permitted", pass: "microsoft_site_readable" } as const;
  return askGraph(token, io, { url: siteQuestion(siteUrl), ...question });
}

/** Graph addresses a site as its host, a colon and its path; a colon in the path itself would end it. */
function siteQuestion(siteUrl: string): string {
  const { hostname, pathname } = new URL(siteUrl);
  const cloud = Object.keys(GRAPHS).find((suffix) => hostname.endsWith(suffix));
  const path = pathname.replace(/\/+$/, "").replaceAll(":", "%3A");
  return `https://${cloud === undefined ? GLOBAL_GRAPH : GRAPHS[cloud]}/v1.0/sites/${hostname}${path === "" ? "" : `:${path}`}?$select=id`;
}

function askGraph(token: OauthToken, io: CheckIo, question: Question): Promise<CheckResult> {
  return inquire(io, async () => {
    const headers = { authorization: `Bearer ${sendable(token)}`, accept: "application/json" };
    return understood(await io.request({ method: "GET", url: question.url, headers }), token, question);
  });
}

function understood(answer: GuardedResponse, token: OauthToken, { missing, forbidden, pass }: Question): Inquired {
  const said = objectIn(answer);
  const { code, message } = asObject(said?.["error"]) ?? {};
  const words = typeof message === "string" ? message : "";
  if (answer.status === 200) {
    if (typeof said?.["id"] !== "string") throw new CheckFailure("api_answer_unreadable");
    return { pass, details: { permission_limited: false } };
  }
  if (answer.status === 401) throw new CheckFailure(tokenReason(answer, words, token));
  // A proxy refuses and misses pages too, but not in Graph's form.
  if (typeof code !== "string") throw new CheckFailure(answer.status === 403 || answer.status === 404 ? "api_answer_unreadable" : statusReason(answer.status));
  if (answer.status === 403 && forbidden === undefined) return { pass: "microsoft_token_limited", details: { permission_limited: true } };
  if (answer.status === 403) throw new CheckFailure(forbidden ?? "api_request_refused");
  if (answer.status === 404) throw new CheckFailure(missing);
  // A token of an application has no account; Graph looks at that only after it has accepted the token.
  if (answer.status === 400 && /only valid with delegated authentication/.test(words)) {
    return { pass: "microsoft_application_token", details: { permission_limited: false, application_token: true } };
  }
  throw new CheckFailure(statusReason(answer.status));
}

/** Graph's one code for tokens covers all faults; its words, which are compared and never repeated, tell which. */
function tokenReason({ headers }: GuardedResponse, words: string, token: OauthToken): Reason {
  if (/\bclaims=/.test(headers["www-authenticate"] ?? "")) return "graph_sign_in_required";
  if (/invalid audience/i.test(words)) return "graph_audience_wrong";
  return /\bexpired\b/i.test(words) ? "oauth_token_expired" : refusalOf(token);
}
