import { setTimeout as sleep } from "node:timers/promises";
import type { GuardedResponse } from "../domain/check.ts";
import type { ProviderName } from "../domain/credential.ts";
import { CredentialError } from "../domain/errors.ts";
import type { Failpoint } from "../domain/failpoint.ts";
import type { OauthIo, Refreshed } from "../domain/oauth.ts";
import type { Breaker, Passage } from "./breaker.ts";

/** How one request to a provider is made. */
export interface RequestOptions {
  readonly provider: ProviderName;
  readonly signal: AbortSignal;
  /** Called before its first byte leaves. */
  readonly sending?: () => void;
  /** Called when all of it has left. */
  readonly sent: () => void;
}

/** One HTTPS request to a provider's own endpoints. */
export type ProviderRequest = (ask: Parameters<OauthIo["request"]>[0], options: RequestOptions) => Promise<GuardedResponse>;

/** What asking a provider needs. */
export interface AskDeps {
  readonly request: ProviderRequest;
  /** The installations of the providers; the world-wide ones unless given. */
  readonly endpoints?: OauthIo["endpoints"];
  readonly failpoint: Failpoint;
  readonly breaker: Breaker;
  /** Longest time of a provider's answer, ms. */
  readonly providerDeadlineMs: number;
  /** For how long a renewal is one process's alone, ms. */
  readonly leaseMs: number;
  /** Aborts when the process has to end. */
  readonly ended: AbortSignal;
}

/** What is asked, of whom and as whom, and for whom. */
export interface Question {
  readonly provider: ProviderName;
  readonly client: OauthIo["client"];
  /** The caller's own client that the tokens belong to; null where it is the service's. */
  readonly clientId: string | null;
  /** Name of the credential. */
  readonly who: string;
  /** The database's clock as it was a moment ago. */
  readonly now: Date;
  /** When the lease's time began, on the clock of `performance.now()`. */
  readonly leasedAt: number;
  readonly refresh: (io: OauthIo) => Promise<Refreshed>;
}

/** What a provider answered. */
export interface Answer {
  readonly said: Refreshed;
  /** Whether the provider may have replaced the token although no usable answer arrived. */
  readonly inDoubt: boolean;
  /** For how long the provider is left alone, ms, where it was not asked because of that. */
  readonly leftAloneMs?: number;
}

/** Causes that say that the provider is down, or wants to be left alone. That it does not like what was sent is an answer. */
const DOWN: ReadonlySet<string> = new Set(["provider_unreachable", "deadline_exceeded", "provider_error", "provider_throttled"]);

/**
 * Asks a provider for a new token. Resolves within the deadline, and when the process has to end, whatever the provider and its
 * library do; nothing is thrown but what a failpoint throws.
 */
export async function ask(deps: AskDeps, question: Question): Promise<Answer> {
  const { provider, client, now } = question;
  const started = performance.now();
  const deadline = new AbortController();
  // Whether a request that may replace the token left without an answer that was understood.
  let open = false;
  let broken: unknown;
  let [passage, leftAloneMs]: [Passage | undefined, number | undefined] = [undefined, undefined];
  const io: OauthIo = {
    client,
    now: () => new Date(now.getTime() + performance.now() - started),
    signal: deadline.signal,
    endpoints: deps.endpoints,
    async request(what) {
      // A process that was paused here must not use a token that another one may have used by now.
      if (performance.now() - question.leasedAt > deps.leaseMs - deps.providerDeadlineMs) throw new DOMException("the lease is running out", "TimeoutError");
      // One client that is throttled, or one cloud that is down, holds up nobody else.
      const entered = deps.breaker.enter(`${new URL(what.url).origin} ${question.clientId === null ? "ours" : `of ${question.clientId}`}`, question.who);
      if (typeof entered === "number") {
        leftAloneMs = entered;
        throw new DOMException("the provider is left alone", "AbortError");
      }
      passage = entered;
      const sent = Promise.withResolvers<never>();
      sent.promise.catch((error: unknown) => (broken = error));
      const options: RequestOptions = {
        provider,
        signal: deadline.signal,
        sending: () => (open ||= what.method === "POST"),
        sent: () => void deps.failpoint("after-send").catch(sent.reject),
      };
      const response = await Promise.race([deps.request(what, options), sent.promise]);
      if (what.method === "POST" && refuses(response)) open = false;
      return response;
    },
  };
  const late = sleep(deps.providerDeadlineMs, "late" as const, { signal: deadline.signal }).catch(() => "late" as const);
  const said = await Promise.race([question.refresh(io).catch(() => "failed" as const), late, aborted(deps.ended, deadline.signal)]);
  deadline.abort();
  if (broken !== undefined) {
    judge(passage, undefined);
    throw broken;
  }
  if (said === "ended") {
    judge(passage, undefined);
    return { said: unanswered("shutting_down"), inDoubt: open, ...(open ? {} : { leftAloneMs: 0 }) };
  }
  if (leftAloneMs !== undefined) return { said: unanswered("provider_left_alone"), inDoubt: false, leftAloneMs };
  const heard = said === "late" ? unanswered("deadline_exceeded") : said === "failed" ? unanswered("reply_unusable") : said;
  judge(passage, heard);
  return { said: heard, inDoubt: heard.kind === "unavailable" && open };
}

/** Resolves when the process has to end; no longer looks for that when it is of no interest any more. */
const aborted = (ended: AbortSignal, done: AbortSignal): Promise<"ended"> =>
  new Promise((resolve) => {
    if (ended.aborted) resolve("ended");
    ended.addEventListener("abort", () => resolve("ended"), { once: true, signal: done });
  });

/** Whether it says that nothing was replaced. An error of a server may be that of a gateway in front of one that has. */
const refuses = ({ status }: GuardedResponse): boolean => status >= 300 && status <= 499 && status !== 408;

const unanswered = (cause: string): Refreshed => ({ kind: "unavailable", cause, retryAfterMs: null });

/** Tells the breaker what came of one that was let through. */
function judge(passage: Passage | undefined, said: Refreshed | undefined): void {
  if (said === undefined) passage?.abandoned();
  // A client of ours that is refused is refused for everyone; what shows that its settings are right again is one that is let through.
  else if (said.kind === "client_rejected" && said.ours) passage?.failed(null);
  else if (said.kind === "unavailable" && DOWN.has(said.cause)) passage?.failed(said.retryAfterMs);
  else passage?.answered();
}

/** Reasons of the store that pass by themselves. */
const PASSING: ReadonlySet<string> = new Set(["DATABASE_UNAVAILABLE", "AUDIT_UNAVAILABLE", "DEADLINE_EXCEEDED", "OVERLOADED", "KEY_MOVED"]);

/** Pauses between attempts to store, ms: doubled from the first to the last, and shortened at random. */
const PAUSE_MS = { first: 25, last: 250 } as const;

/** Whether it passes by itself. */
export const passes = (error: unknown): boolean => error instanceof CredentialError && PASSING.has(error.reason);

/**
 * Does again what the database did not take, until it does or the process has to end: what a provider gave is nowhere but in
 * this memory. Everything else is thrown, unless it too is to be tried `again`.
 */
export async function persistently<T>(ended: AbortSignal, write: () => Promise<T>, again: (error: unknown) => boolean = passes): Promise<T> {
  for (let pause: number = PAUSE_MS.first; ; pause = Math.min(pause * 2, PAUSE_MS.last)) {
    try {
      return await write();
    } catch (error) {
      if (ended.aborted || !again(error)) throw error;
    }
    await sleep(pause * (0.5 + Math.random() / 2), undefined, { signal: ended }).catch(() => {});
  }
}
