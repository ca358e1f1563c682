import type { z } from "zod";
import type { CheckIo, CheckOptions, CheckResult } from "../domain/check.ts";
import type { CredentialTypeName, ProviderName, SecretDocument } from "../domain/credential.ts";
import type { AuthorizationAsk, CodeAsk, Exchanged, OauthIo, Refreshed } from "../domain/oauth.ts";

/** The secret of a credential in the shape an executor receives; the cases are those of `ResolveCredentialResponse`. */
export type ExposedSecret =
  | { $case: "sftpPassword"; value: { host: string; port: number; username: string; password: string; hostKeyFingerprint: string } }
  | { $case: "sftpKey"; value: { host: string; port: number; username: string; privateKeyData: string; privateKeyPassphrase: string; hostKeyFingerprint: string } }
  | { $case: "postgresql"; value: { host: string; port: number; username: string; password: string; database: string; sslmode: string; caCertificate: string; connectionString: string } }
  | { $case: "awsSesApiKey"; value: { accessKeyId: string; secretAccessKey: string; region: string; sessionToken: string } }
  | { $case: "awsSesSmtp"; value: { username: string; password: string; region: string; host: string; port: number } }
  | { $case: "oauthToken"; value: { accessToken: string; tokenType: string; expiresAt?: Date | undefined; scopes: string[]; tenantId: string; siteUrl: string } }
  | { $case: "apiKey"; value: { apiKey: string } };

/** What leaves with a resolve. */
export interface Exposed {
  readonly secret: ExposedSecret;
  /** Stored keys beyond those of the shape; never a refresh token, an id token or a client secret. */
  readonly extra: SecretDocument;
  /** When the secret ends; null where it does not or that is unknown. */
  readonly expiresAt: Date | null;
}

/** A secret that passed every rule of its shape. */
export interface Accepted {
  /** Normalised: ports are numbers, `expires_in` has become `expires_at`. */
  readonly document: SecretDocument;
  /** E-mail address of the connected account, where the secret says it. */
  readonly accountEmail: string | null;
  /** When its access token ends, where it has one and says so. */
  readonly tokenExpiresAt: Date | null;
}

/** What checking a secret depends on besides the secret. */
export interface AcceptOptions {
  /** The time that relative lifetimes count from. */
  readonly now: Date;
  /** Who takes turns with others where checking is work; the id of the organization. */
  readonly fairness: string;
  /** Aborts when nobody waits for the outcome any longer. */
  readonly signal: AbortSignal;
}

/** One shape of secret of a provider. */
export interface CredentialShape {
  /** What the `credentials` object looks like; the catalog's JSON Schema derives from it. */
  readonly schema: z.ZodType;
  /** Whether an OAuth 2.0 flow can make it. */
  readonly isOauth: boolean;
  /**
   * Checks and normalises. Throws INVALID_CREDENTIALS with violations that name keys, never values; OVERLOADED where too
   * much of such work waits; the signal's reason where that aborts meanwhile.
   */
  accept(document: SecretDocument, options: AcceptOptions): Promise<Accepted>;
  /** What an executor receives of a document that `accept` gave. */
  expose(document: SecretDocument): Exposed;
  /** Tries a document that `accept` gave against the real system; absent where there is nothing to try. Never throws. */
  check?(document: SecretDocument, io: CheckIo, options: CheckOptions): Promise<CheckResult>;
  /** Renews the access token, without a person; absent where there is none. */
  refresh?(document: SecretDocument, io: OauthIo): Promise<Refreshed>;
  /** Whether a document can be renewed; `hasOwnClient` says whether the service's own client may be used for it. */
  canRefresh?(document: SecretDocument, hasOwnClient: boolean): boolean;
}

/** How a user grants access at a provider (RFC 6749 section 4.1). */
export interface Authorization {
  /** The credential type that the flow makes. */
  readonly credentialType: CredentialTypeName;
  /** What is asked for unless something else is said; a refresh token and the identity always come besides. */
  readonly scopes: readonly string[];
  /** The URL to send the user to. Throws TypeError without a client in `io`. */
  url(ask: AuthorizationAsk, io: OauthIo): Promise<string>;
  /** Turns a code into tokens, and says whose they are. Needs a client in `io`. */
  exchange(ask: CodeAsk, io: OauthIo): Promise<Exchanged>;
  /** Whether this is a name under which the provider answers an authorization (RFC 9207); any name is taken where absent. */
  isIssuer?(name: string, io: OauthIo): boolean;
}

/** A system that credentials connect to. A new one is one file and one line in `index.ts`. */
export interface Provider {
  readonly provider: ProviderName;
  readonly displayName: string;
  readonly description: string;
  readonly category: "database" | "messaging" | "storage";
  /** The types it takes, in the order the catalog shows them. */
  readonly types: Partial<Record<CredentialTypeName, CredentialShape>>;
  /** The flow that makes its credentials; absent where there is none. */
  readonly authorization?: Authorization;
}
