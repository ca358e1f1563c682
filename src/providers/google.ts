import { z } from "zod";
import type { SecretDocument } from "../domain/credential.ts";
import type { Violation } from "../domain/errors.ts";
import { checkGoogle } from "./checks/google.ts";
import { secretWord } from "./fields.ts";
import { authorizeAtGoogle, exchangeAtGoogle, googleEndpoints, refreshGoogle } from "./grants/google.ts";
import { hasClient, oauthShape, tokenOf } from "./oauth.ts";
import type { CredentialShape, Provider } from "./provider.ts";
import { shape, textAt } from "./shape.ts";
import { fault } from "./structure.ts";

/**
 * Kinds of Google's JSON files that are no user's grant. A client library that is handed one signs as a service account,
 * or reads local files and calls URLs that the JSON names, so none of them is stored.
 */
const KEY_FILE_TYPES: ReadonlySet<string> = new Set([
  "service_account",
  "external_account",
  "external_account_authorized_user",
  "impersonated_service_account",
  "gdch_service_account",
]);

function keyFileFaults(document: SecretDocument): readonly Violation[] {
  if (!KEY_FILE_TYPES.has(textAt(document, "type"))) return [];
  return [fault(null, "value_error", "Service account and external account JSON is not supported; give the tokens of a user's OAuth grant")];
}

const oauth: CredentialShape = {
  ...oauthShape({ title: "Google OAuth", check: keyFileFaults }),
  check: (document, io) => checkGoogle(tokenOf(document), io),
  refresh: refreshGoogle,
  canRefresh: (document, hasOwnClient) => textAt(document, "refresh_token") !== "" && hasClient(document, hasOwnClient),
};

/** It has no test: which API a key is for is not known, and Google documents no call that tells whether a key is good. */
const apiKey = shape({
  schema: z
    .looseObject({ api_key: secretWord("API key", "An API key of a Google Cloud project") })
    .meta({ title: "Google API key", description: "An API key of a Google Cloud project" }),
  check: keyFileFaults,
  secret: (document) => ({ $case: "apiKey", value: { apiKey: textAt(document, "api_key") } }),
});

/** Google Workspace and Google Cloud. */
export const google: Provider = {
  provider: "google",
  displayName: "Google",
  description: "Google Workspace and Google Cloud, on behalf of a Google account",
  category: "storage",
  types: { google_oauth: oauth, oauth2: oauth, api_key: apiKey },
  authorization: {
    credentialType: "google_oauth",
    scopes: ["https://www.googleapis.com/auth/drive", "https://www.googleapis.com/auth/spreadsheets"],
    url: authorizeAtGoogle,
    exchange: exchangeAtGoogle,
    isIssuer: (name, io) => googleEndpoints(io).issuers.includes(name),
  },
};
