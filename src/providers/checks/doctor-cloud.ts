import { finding } from "./finding.ts";

const CONNECT_AGAIN = "Connect the account again.";

/** What a test at a cloud's API can find, beyond the connection itself. */
export const CLOUD_FINDINGS = {
  api_timed_out: finding("timeout", "The provider's API did not answer in time.", "Look at the provider's status page, then try the test again."),
  api_connection_lost: finding(
    "connect",
    "The connection to the provider's API was cut off, or its certificate was not accepted.",
    "Try again; if it goes on, ask your operator whether a proxy or firewall stands before the internet.",
  ),
  api_throttled: finding("connect", "The provider's API takes no further requests at the moment.", "Wait a few minutes and try again."),
  api_service_error: finding("protocol", "The provider's API reported an error of its own.", "Look at the provider's status page, then try again."),
  api_request_refused: finding("protocol", "The provider's API refused the request for a reason that is not known here.", "Try again; if it goes on, tell support when you did."),
  api_answer_unreadable: finding("protocol", "What answered in place of the provider's API is not understood.", "Ask your operator whether a proxy stands before the internet."),

  token_missing_refresh_needed: finding("auth", "There is no access token to test: only what can fetch one is stored.", "Run a flow that uses the credential, or connect the account again, so that a token is fetched."),
  oauth_token_malformed: finding("auth", "The access token holds characters that no access token has.", "Give the token alone, without quotes, spaces or line breaks."),
  oauth_token_expired: finding("auth", "The access token has expired.", `Refresh the token, or, where that fails: ${CONNECT_AGAIN.toLowerCase()}`),
  oauth_token_refused: finding("auth", "The provider does not accept the access token; it may have been revoked.", CONNECT_AGAIN),

  graph_audience_wrong: finding("auth", "The access token was issued for another API than Microsoft Graph.", "Ask for the token with scopes of https://graph.microsoft.com."),
  graph_sign_in_required: finding("auth", "The organization's rules demand a new sign-in before this token is accepted.", "Connect the account again, and answer what the sign-in page asks."),
  graph_account_missing: finding("authorization", "The token works, but its account is no longer in the directory.", "Ask the directory's administrator, or connect another account."),
  sharepoint_site_missing: finding("authorization", "The token works, but there is no site at site_url.", "Give the address of the site itself, such as https://contoso.sharepoint.com/sites/finance."),
  sharepoint_site_not_permitted: finding("authorization", "The token works, but it may not read the site.", "Give the account access to the site, or grant the application Sites.Read.All or Sites.Selected."),

  aws_key_malformed: finding("auth", "The access key has a form that AWS does not give out.", "Give access key id, secret and session token as AWS shows them, without quotes or spaces."),
  aws_key_unknown: finding("auth", "AWS does not know this access key.", "Check access_key_id, that the key is active, and that the account has enabled this region."),
  aws_session_token_missing: finding("auth", "This is a temporary access key, and its session token was not given.", "Give session_token too, or use an access key of a user (its id begins with AKIA)."),
  aws_session_token_invalid: finding("auth", "AWS does not know this access key together with this session token.", "Give key, secret and session token of one and the same session."),
  aws_session_token_expired: finding("auth", "The temporary access key has expired.", "Start a new session, or use an access key of a user."),
  aws_secret_wrong: finding("auth", "AWS knows the access key, but the secret access key does not belong to it.", "Check secret_access_key; AWS shows it only once, so make a new key if it is lost."),
  aws_clock_wrong: finding("protocol", "AWS refused the request because the clock here is wrong.", "Ask your operator to set the clock of the service's machine."),
  aws_not_signed_up: finding("authorization", "The key works, but its AWS account is not signed up for Amazon SES in this region.", "Open Amazon SES once in the AWS console, in this region."),
  ses_region_unknown: finding("address", "There is no Amazon SES in this region.", "Check the region; the AWS console shows it beside your verified identities."),
};
