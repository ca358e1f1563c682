import type { SecretDocument } from "../../domain/credential.ts";
import type { Account, AuthorizationAsk, CodeAsk, Exchanged } from "../../domain/oauth.ts";
import { type Failure, TokenFailure } from "./refusals.ts";
import { type TokenReply, withTokens } from "./tokens.ts";

/** What a provider gave for a code. */
export interface Grant {
  readonly reply: TokenReply;
  readonly end: Date;
  readonly account: Account;
  /** Keys of the document besides the tokens. */
  readonly facts?: SecretDocument;
}

/** Says what came of a code. The document has the scopes that were asked where the provider does not say others (RFC 6749 section 5.1). */
export async function exchanged(ask: CodeAsk, redeem: () => Promise<Grant>): Promise<Exchanged> {
  try {
    const { reply, end, account, facts = {} } = await redeem();
    const document = withTokens({ ...facts, ...(ask.scopes.length > 0 ? { scope: ask.scopes.join(" ") } : {}) }, reply, end);
    return { kind: "granted", document, tokenExpiresAt: end, account, grantedScopes: reply.scopes };
  } catch (error) {
    if (error instanceof Refusal) return { kind: "refused", cause: error.cause };
    if (error instanceof TokenFailure) return ofFailure(error.failure);
    throw error;
  }
}

function ofFailure(failure: Failure): Exchanged {
  if (failure.kind === "client_rejected") return { kind: failure.kind };
  if (failure.kind === "rejected") return { kind: "refused", cause: failure.cause === "invalid_grant" ? "code_rejected" : failure.cause };
  return failure.cause === "request_refused" ? { kind: "refused", cause: failure.cause } : failure;
}

/** Why a grant is not taken although the provider gave it. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  override readonly cause: string;

  constructor(cause: string) {
    super(cause);
    this.cause = cause;
  }
}

/** Checks that the challenge is one of S256 (RFC 7636 section 4.2); a library that is given none sends the verifier as it is, or nothing. */
export function checkChallenge({ codeChallenge, state, nonce }: AuthorizationAsk): void {
  if (!/^[A-Za-z0-9_-]{43}$/.test(codeChallenge) || state === "" || nonce === "") throw new TypeError("an authorization has a state, a nonce and a challenge of S256");
}

/** Checks that there is a verifier to prove with (RFC 7636 section 4.1), and that the provider is held to a nonce. */
export function checkVerifier({ codeVerifier, nonce }: CodeAsk): void {
  if (!/^[A-Za-z0-9._~-]{43,128}$/.test(codeVerifier) || nonce === "") throw new TypeError("an exchange has a verifier and a nonce");
}

/** The reply of an exchange with everything that a credential needs. Throws Refusal. */
export function complete(reply: TokenReply): TokenReply & { readonly idToken: string } {
  if (reply.idToken === null) throw new Refusal("id_token_missing");
  if (reply.refreshToken === null) throw new Refusal("refresh_token_missing");
  return { ...reply, idToken: reply.idToken };
}

/** Text that can be an e-mail address; nothing is sent to it, but it is shown. */
export const emailIn = (value: unknown): string | null => (typeof value === "string" && value.length <= 254 && /^[^\s@\p{C}]+@[^\s@\p{C}]+$/u.test(value) ? value : null);
