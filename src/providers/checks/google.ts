import type { CheckIo, CheckResult, GuardedResponse } from "../../domain/check.ts";
import { type Inquired, inquire, objectIn, statusReason } from "./inquiry.ts";
import { type OauthToken, refusalOf, sendable } from "./oauth-token.ts";
import { CheckFailure } from "./trial.ts";

/** Where Google tells what an access token is. It changes nothing and needs no scope. */
const TOKENINFO = "https://oauth2.googleapis.com/tokeninfo";
/** Most characters of scopes that are shown. */
const MAX_SCOPE_CHARACTERS = 1_000;
/** A scope (RFC 6749 section 3.3). */
const SCOPE_TOKEN = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/** Asks Google whether it accepts an access token, and for what. The token goes in the body: URLs end in logs. Never throws. */
export function checkGoogle(token: OauthToken, io: CheckIo): Promise<CheckResult> {
  return inquire(io, async () => {
    const accessToken = sendable(token);
    const answer = await io.request({
      method: "POST",
      url: TOKENINFO,
      headers: { "content-type": "application/x-www-form-urlencoded", accept: "application/json" },
      body: new URLSearchParams({ access_token: accessToken }).toString(),
    });
    return understood(answer, token);
  });
}

function understood(answer: GuardedResponse, token: OauthToken): Inquired {
  const said = objectIn(answer);
  // Google says 400 here where RFC 6750 section 3.1 has 401.
  if (said?.["error"] === "invalid_token" || answer.status === 401) throw new CheckFailure(refusalOf(token));
  if (answer.status !== 200) throw new CheckFailure(statusReason(answer.status));
  const { scope, expires_in: seconds } = said ?? {};
  const left = typeof seconds === "number" || (typeof seconds === "string" && /^-?\d{1,9}$/.test(seconds)) ? Number(seconds) : null;
  if (left === null || !Number.isFinite(left)) throw new CheckFailure("api_answer_unreadable");
  if (left <= 0) throw new CheckFailure("oauth_token_expired");
  return { pass: "google_token_works", details: { expires_in: left, ...scopesIn(scope, token) } };
}

/** The scopes of a token as text, with those left out that are none or hold the token itself. */
function scopesIn(scope: unknown, { accessToken }: OauthToken): Readonly<Record<string, string>> {
  if (typeof scope !== "string") return {};
  const scopes = scope.split(" ").filter((word) => SCOPE_TOKEN.test(word) && !word.includes(accessToken));
  let text = "";
  for (const word of scopes) {
    const longer = text === "" ? word : `${text} ${word}`;
    if (longer.length > MAX_SCOPE_CHARACTERS) break;
    text = longer;
  }
  return { scopes: text };
}
