import { type Answer, jsonAnswer } from "./answer.ts";
import { shared } from "./shared.ts";

/** What the probes tell. */
export interface ProbeSources {
  /** Whether the process can serve; a rejection counts as no. Asked once a second at most. */
  readonly ready: () => Promise<boolean>;
  /** The metrics in Prometheus' text format; rendered once a second at most. */
  readonly metrics: () => Promise<{ readonly contentType: string; readonly body: string }>;
  /** Whether a stop was asked for. */
  readonly stopping: () => boolean;
}

/** Paths that answer by themselves, without authentication. */
export type Pages = ReadonlyMap<string, () => Promise<Answer>>;

/**
 * How long readiness and metrics are told again as they were, ms. Anyone may ask for them: each costs a query or a
 * render of every metric, which blocks the event loop.
 */
const PROBE_CACHE_MS = 1_000;

/** `/healthz`: the process lives; `/readyz`: it can serve; `/metrics`: what it counted. */
export function probePages({ ready, metrics, stopping }: ProbeSources): Pages {
  const isReady = shared(async () => await ready().catch(() => false), PROBE_CACHE_MS);
  const rendered = shared(async () => await metrics(), PROBE_CACHE_MS);
  return new Map([
    ["/healthz", async () => jsonAnswer(200, { status: "ok" })],
    ["/readyz", async () => (!stopping() && (await isReady()) ? jsonAnswer(200, { status: "ready" }) : jsonAnswer(503, { status: "unavailable" }))],
    ["/metrics", async () => {
      const { contentType, body } = await rendered();
      return { status: 200, headers: { "content-type": contentType }, body };
    }],
  ]);
}
