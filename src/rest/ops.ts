import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { errorFields, type Log, newRequestId } from "../log.ts";
import type { Address } from "../settings.ts";
import { type Answer, wireHeaders } from "./answer.ts";
import { refusal } from "./envelope.ts";
import { answerParserError, createListener, LISTENER_LIMITS } from "./listener.ts";
import { probePages, type ProbeSources } from "./probes.ts";

/** What the listener for operators needs. */
export interface OpsOptions extends ProbeSources {
  readonly listen: Address;
  readonly log: Log;
}

/** The listener for operators. */
export interface OpsServer {
  /** Where it listens; the port is the real one. */
  readonly address: Address;
  stop(): Promise<void>;
}

/** Those who ask for probes are few. */
const LIMITS = { ...LISTENER_LIMITS, headersMs: 5_000, requestMs: 5_000, maxConnections: 128 };

/** Longest time until a probe is answered, ms. */
const ANSWER_MS = 10_000;

/** Serves the probes and the metrics, and nothing else, where only the inner network reaches them. Rejects where the address cannot be had. */
export async function serveOps({ listen, log, ...sources }: OpsOptions): Promise<OpsServer> {
  const pages = probePages(sources);
  const current = new WeakMap<Socket, ServerResponse>();
  const send = (response: ServerResponse, { headOnly, requestId }: { headOnly: boolean; requestId: string }, answer: Answer) => {
    response.writeHead(answer.status, { ...wireHeaders(answer, requestId), "content-length": Buffer.byteLength(answer.body ?? "") });
    response.end(headOnly ? undefined : answer.body);
  };
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    current.set(request.socket, response);
    request.resume();
    const to = { headOnly: request.method === "HEAD", requestId: newRequestId() };
    const page = pages.get(request.url?.split("?", 1)[0] ?? "");
    if (!page) return send(response, to, refusal("unknown", to.requestId));
    if (request.method !== "GET" && request.method !== "HEAD") return send(response, to, refusal("method", to.requestId, { allow: "GET, HEAD" }));
    page().then(
      (answer) => send(response, to, answer),
      (error: unknown) => {
        log.error({ request_id: to.requestId, ...errorFields(error) }, "a probe failed");
        send(response, to, refusal("internal", to.requestId));
      },
    );
  };
  const server = createListener({ limits: LIMITS, tls: undefined, answerMs: ANSWER_MS }, handle);
  server.on("clientError", (error: Error, socket: Socket) => answerParserError(error, socket, current, log));
  server.listen(listen.port, listen.host);
  await once(server, "listening");
  return {
    address: { host: listen.host, port: (server.address() as AddressInfo).port },
    async stop() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
