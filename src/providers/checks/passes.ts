/** What a test that found nothing wrong may say, beyond its details. */
export const PASSES = {
  sftp_works: "The login works, and files can be listed, written and removed.",
  sftp_pinned_key_is_not_first:
    "The login works, and files can be listed, written and removed; but the pinned host key is not the one that the server shows first, so a client has to ask for its kind.",
  sftp_open_to_anyone: "Files can be listed and written, but the server asked for no credential: anyone can log in as this user.",

  pg_works: "The login works and queries run.",
  pg_open_to_anyone: "The connection works, but the server asked for no password: anyone can log in as this role.",
  pg_not_encrypted: "The login works and queries run, but the connection is not encrypted.",
  pg_not_verified: "The login works and queries run; the connection is encrypted, but the server was not verified.",
  pg_name_not_verified: "The login works and queries run; the server's certificate is from your authority, but its name was not checked.",

  smtp_works: "The login to the mail server works; no mail was sent.",

  aws_works: "AWS accepts the access key, and the account may send.",
  aws_sandbox: "AWS accepts the access key; the account is in the sandbox, so mail reaches verified addresses only.",
  aws_sending_paused: "AWS accepts the access key, but the account's sending is paused in this region: no mail will leave.",
  aws_state_unknown: "AWS accepts the access key; it may not ask for the account's state, so whether it may send is not known.",

  google_token_works: "Google accepts the access token.",
  microsoft_token_works: "Microsoft accepts the access token.",
  microsoft_site_readable: "Microsoft accepts the access token, and the site can be read.",
  microsoft_token_limited: "Microsoft accepts the access token, but it may not read what was asked for the test.",
  microsoft_application_token: "Microsoft accepts the access token, which is an application's own.",
} as const;

/** One word of `PASSES`. */
export type Pass = keyof typeof PASSES;
