import { z } from "zod";
import * as api from "../../gen/flow/credentials/v1/authorization_service.ts";
import { MAX_REDIRECT } from "../domain/redirects.ts";
import type { Completed, UseCases } from "../vault/use-cases.ts";
import { toCredential } from "./convert.ts";
import * as parse from "./parse.ts";
import { open, unary, type UnaryDeps, type UnaryRpc } from "./unary.ts";

const service = api.AuthorizationServiceService;

const NOTHING: api.BrowserAnswer = { redirectUri: "", keep: "", title: "", paragraphs: [], openerOrigins: [], credentialId: "" };

/** What providers send is bounded (RFC 6749 names no bound); a longer text is none. */
const CODE_MAX = 4_096;
const WORD_MAX = 256;

/** An address to go to; null where empty. What is too long is refused as one that is not allowed. */
const redirectTo = z.string().transform((text): string | null => (text === "" ? null : text.slice(0, MAX_REDIRECT + 1)));

/** The page after a success. */
function pageOf({ record, renewed, missingScopes }: Completed): Pick<api.BrowserAnswer, "title" | "paragraphs"> {
  const account = record.accountEmail === null ? "The account" : record.accountEmail;
  const less = missingScopes.length > 0 ? ["The provider granted less than was asked for, so that some flows may not work. To change that, connect the account again and allow everything."] : [];
  return { title: renewed ? "Account connected again" : "Account connected", paragraphs: [`${account} is now connected.`, ...less, "You can close this window."] };
}

/** The RPCs of `AuthorizationService`; a method without one does not compile. */
export function authorizationService(deps: UnaryDeps, vault: UseCases): Record<keyof typeof service, UnaryRpc> {
  return {
    beginAuthorization: unary(deps, {
      action: "begin_authorization",
      method: service.beginAuthorization,
      request: api.BeginAuthorizationRequest,
      input: z.object({ provider: parse.pathProvider, redirectTo, credentialId: parse.optionalCredentialId, scopes: parse.scopes, browser: parse.browser }),
      credentialId: (request) => request.credentialId,
      async run(grant, { browser, ...input }) {
        const { authorizationUrl, keep } = await vault.beginAuthorization(grant, { ...input, browser: browser?.wantsPage ? { kept: browser.kept || null } : null });
        return { authorizationUrl, browser: { ...NOTHING, redirectUri: authorizationUrl, keep: keep ?? "" } };
      },
    }),
    completeAuthorization: open(deps, {
      method: service.completeAuthorization,
      request: api.CompleteAuthorizationRequest,
      input: z.object({
        provider: parse.pathProvider,
        state: parse.answerText(WORD_MAX),
        code: parse.answerText(CODE_MAX),
        error: parse.answerText(WORD_MAX),
        iss: parse.answerText(MAX_REDIRECT),
        browser: parse.browser,
      }),
      async run(call, { browser, ...input }) {
        const completed = await vault.completeAuthorization(call, { ...input, kept: browser?.kept || null });
        const { record, redirectUri } = completed;
        return { credential: toCredential(record), browser: { ...NOTHING, ...pageOf(completed), redirectUri: redirectUri ?? "", openerOrigins: [...vault.openerOrigins], credentialId: record.id } };
      },
    }),
  };
}
