import { DialError, type GuardedResponse } from "../../domain/check.ts";
import type { SecretDocument } from "../../domain/credential.ts";
import type { OauthIo, Refreshed } from "../../domain/oauth.ts";
import { type Failure, refusalIn, TokenFailure, unavailable } from "./refusals.ts";

/** Largest answer of a token endpoint that is read, bytes. */
const MAX_REPLY_BYTES = 65_536;
/** Longest token, and longest list of scopes, characters. */
const MAX_TOKEN_CHARACTERS = 16_384;
/** Bounds of a token's life, s; and what is taken where nothing is said. */
const LIFETIME = { least: 60, most: 86_400, unsaid: 3_600 } as const;

/** A successful answer of a token endpoint (RFC 6749 section 5.1), checked. */
export interface TokenReply {
  readonly accessToken: string;
  /** Null where the old one stays good (RFC 6749 section 6). */
  readonly refreshToken: string | null;
  readonly tokenType: string;
  /** Life of the access token from the request on, between a minute and a day, s. */
  readonly lifetimeSeconds: number;
  /** What was granted; null where the provider did not say. */
  readonly scopes: readonly string[] | null;
  readonly idToken: string | null;
}

/** Printable ASCII, as RFC 6749 appendix A has it. */
const isText = (value: unknown): value is string => typeof value === "string" && value.length <= MAX_TOKEN_CHARACTERS && /^[\x20-\x7e]*[\x21-\x7e][\x20-\x7e]*$/.test(value);

/** Reads what a token endpoint answered. Throws TokenFailure. */
export function readReply(response: GuardedResponse, now: Date): TokenReply {
  const said = objectIn(response);
  if (response.status !== 200 || said === undefined) throw refusalIn(response, said, now);
  const { access_token: accessToken, refresh_token: refreshToken, token_type: type, expires_in: seconds, scope, id_token: idToken } = said;
  if (!isText(accessToken) || !(refreshToken === undefined || refreshToken === null || refreshToken === "" || isText(refreshToken))) throw unavailable("reply_unusable");
  return {
    accessToken,
    refreshToken: isText(refreshToken) ? refreshToken : null,
    tokenType: isText(type) ? type : "Bearer",
    lifetimeSeconds: lifetime(seconds),
    scopes: isText(scope) ? scope.split(" ").filter((word) => word !== "") : null,
    idToken: isText(idToken) ? idToken : null,
  };
}

/** The JSON object in a body that is not too long, else undefined. */
export function objectIn({ body }: GuardedResponse, maximum: number = MAX_REPLY_BYTES): Readonly<Record<string, unknown>> | undefined {
  if (body.length > maximum) return undefined;
  try {
    const value: unknown = JSON.parse(body.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** A believable life, s: providers have sent none, zero, negative ones, text and thousands of years. */
function lifetime(said: unknown): number {
  const seconds = typeof said === "string" && /^-?\d{1,15}$/.test(said) ? Number(said) : said;
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return LIFETIME.unsaid;
  return Math.min(Math.max(Math.floor(seconds), LIFETIME.least), LIFETIME.most);
}

/**
 * The way of one operation to one token endpoint. A provider's library sends through it and sees only answers that were
 * checked before; what else happens is kept here, because libraries wrap errors, print requests and try again.
 */
export class TokenWire {
  readonly #io: OauthIo;
  readonly #endpoint: string;
  #used = false;
  #reply: TokenReply | undefined;
  #failure: TokenFailure | undefined;
  #startedAt = 0;

  /** Goes to this URL alone. */
  constructor(io: OauthIo, endpoint: string) {
    this.#io = io;
    this.#endpoint = endpoint;
  }

  /** Sends the form of a token request (RFC 6749 section 3.2), once. Throws TokenFailure. */
  async post(url: string, body: string): Promise<TokenReply> {
    try {
      if (this.#used || url.split("?")[0] !== this.#endpoint) throw unavailable("request_not_sent");
      this.#used = true;
      this.#startedAt = this.#io.now().getTime();
      const headers = { "content-type": "application/x-www-form-urlencoded", accept: "application/json" };
      this.#reply = readReply(await send(this.#io, { method: "POST", url: this.#endpoint, headers, body }), this.#io.now());
      return this.#reply;
    } catch (error) {
      this.#failure = error instanceof TokenFailure ? error : unavailable("request_not_sent");
      throw this.#failure;
    }
  }

  /** Runs a library's operation over this wire; gives what the provider answered. Throws TokenFailure. */
  async run(operation: () => Promise<unknown>): Promise<TokenReply> {
    // A library that takes offence at an answer which was checked has not lost it: the token is here, and may be the only one.
    await operation().catch(() => {});
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#reply === undefined) throw unavailable("request_not_sent");
    return this.#reply;
  }

  /** When the access token of the answer ends. */
  endOf(reply: TokenReply): Date {
    return new Date(this.#startedAt + reply.lifetimeSeconds * 1000);
  }
}

/** Makes a request; what is thrown says no more than a word. */
export async function send(io: OauthIo, ask: Parameters<OauthIo["request"]>[0]): Promise<GuardedResponse> {
  try {
    return await io.request(ask);
  } catch (error) {
    if (io.signal.aborted) throw unavailable("deadline_exceeded");
    if (!(error instanceof DialError)) throw unavailable("provider_unreachable");
    if (error.reason === "deadline_exceeded") throw unavailable("deadline_exceeded");
    throw unavailable(error.reason === "too_much_data" ? "reply_unusable" : "provider_unreachable");
  }
}

/** A client at the provider. */
export interface OauthClient {
  readonly id: string;
  readonly secret: string;
  /** Whether it is the service's own. */
  readonly ours: boolean;
}

/** The client that a document's tokens belong to: the one beside them, else the service's own where that may be used. */
export function clientFor(document: SecretDocument, io: Pick<OauthIo, "client">): OauthClient | undefined {
  const { client_id: id, client_secret: secret } = document;
  if (typeof id === "string") return typeof secret === "string" ? { id, secret, ours: false } : undefined;
  return io.client === undefined ? undefined : { id: io.client.id, secret: io.client.secret.reveal(), ours: true };
}

/** The service's own client, which a flow needs. Throws TypeError where there is none. */
export function ownClient(io: OauthIo): OauthClient {
  const client = clientFor({}, io);
  if (client === undefined) throw new TypeError("the service has no client at this provider");
  return client;
}

/** A document with the tokens of an answer in place of its own. Everything else stays; the id token of the answer has served its turn. */
export function withTokens(document: SecretDocument, reply: TokenReply, end: Date): SecretDocument {
  return {
    ...document,
    access_token: reply.accessToken,
    token_type: reply.tokenType,
    expires_at: end.toISOString(),
    ...(reply.refreshToken === null ? {} : { refresh_token: reply.refreshToken }),
    ...(reply.scopes === null ? {} : { scope: reply.scopes.join(" ") }),
  };
}

/**
 * What a renewal says of a failure. Where it was asked for in the account's own tenant, that our client may not be used there is
 * the tenant's decision: its administrator has removed or disabled it, and our settings are right.
 */
export function refreshFailure(failure: Failure, ours: boolean, ownTenant = false): Refreshed {
  if (failure.kind !== "client_rejected") return failure;
  return ours && ownTenant && failure.here ? { kind: "rejected", cause: "client_not_allowed" } : { kind: "client_rejected", ours };
}
