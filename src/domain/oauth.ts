import type { GuardedResponse } from "./check.ts";
import type { SecretDocument } from "./credential.ts";
import type { Secret } from "./secret.ts";

/** The only ways in which a renewal reaches the outside. */
export interface OauthIo {
  request(ask: { readonly method: "GET" | "POST"; readonly url: string; readonly headers: Readonly<Record<string, string>>; readonly body?: string }): Promise<GuardedResponse>;
  readonly client: { readonly id: string; readonly secret: Secret<string> } | undefined;
  readonly now: () => Date;
  readonly signal: AbortSignal;
}

/** What came of an attempt to renew a token. */
export type Refreshed =
  | { readonly kind: "refreshed"; readonly document: SecretDocument; readonly tokenExpiresAt: Date | null; readonly scopes: readonly string[] | null }
  | { readonly kind: "rejected"; readonly cause: string }
  | { readonly kind: "client_rejected"; readonly ours: boolean }
  | { readonly kind: "unavailable"; readonly cause: string; readonly retryAfterMs: number | null };
