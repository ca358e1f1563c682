import { fromBinary, type Message } from "@bufbuild/protobuf";
import { type ChannelOptions, Client, credentials, Metadata, type ServiceError, status as Status } from "@grpc/grpc-js";
import { errorFields, type Log } from "../log.ts";
import { currentSpan } from "../trace.ts";
import type { Answer } from "./answer.ts";
import { browserAnswerField, browserField, type BrowserFacts, type Browsers, redirect, refusalPage } from "./browser.ts";
import { decodeRequest, type Fault } from "./decode.ts";
import { openersOf, presentError, redirectOf, refusal, STATUS_DETAILS } from "./envelope.ts";
import { headerValues, isPrintable } from "./headers.ts";
import type { JsonText } from "./json.ts";
import { presentResponse } from "./present.ts";
import type { Route } from "./routes.ts";

/** One request, as far as it matters to the service. */
export interface GatewayCall {
  readonly route: Route;
  /** Variables of the path, still percent-encoded. */
  readonly params: ReadonlyMap<string, string>;
  /** The path that was asked for. */
  readonly path: string;
  /** What followed the question mark. */
  readonly query?: string;
  /** Names and values of the request headers, alternating, as they came. */
  readonly rawHeaders: readonly string[];
  /** The body; undefined where there is none or the route takes none. */
  readonly body: JsonText | undefined;
  /** ULID of the request. */
  readonly requestId: string;
  /** Aborts when the client goes away. */
  readonly signal: AbortSignal;
}

/** Turns requests into calls of the gRPC service. It decides nothing: what it cannot read it reports to the service. */
export interface Gateway {
  /** Makes the call and renders its outcome, good or bad. */
  call(call: GatewayCall): Promise<Answer>;
  /** Whether the service can be connected to, within a second. */
  reachable(): Promise<boolean>;
  close(): void;
}

/** How long a connection may take before the service counts as out of reach, ms. */
const REACH_MS = 1_000;

const CHANNEL: ChannelOptions = {
  // Callers' tokens go to the configured service only: not through a proxy that the environment names, and not by a
  // service configuration that DNS gives.
  "grpc.enable_http_proxy": 0,
  "grpc.service_config_disable_resolution": 1,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2_000,
};

/** Headers that say who is calling; every value is passed on, so that the service can refuse a second one. */
const IDENTITY = ["authorization", "x-api-key"] as const;

/** Headers that are passed on as they are: the flow and the run for the audit record, and the key of a write that may be repeated. */
export const PASSED_HEADERS = ["x-flow-id", "x-run-id", "idempotency-key"] as const;

function metadataFor({ rawHeaders, requestId }: GatewayCall, faults: readonly Fault[]): Metadata {
  const metadata = new Metadata();
  metadata.set("x-request-id", requestId);
  for (const name of IDENTITY) {
    // HTTP/2 clients refuse to repeat `authorization`, so values are joined as RFC 9110 section 5.3 does; no token
    // holds a comma. A character that metadata cannot carry becomes one that no token holds either.
    const values = headerValues(rawHeaders, name);
    if (values.length > 0) metadata.set(name, values.join(", ").replace(/[^\x20-\x7e]/g, "?"));
  }
  for (const name of PASSED_HEADERS) {
    const [value] = headerValues(rawHeaders, name);
    if (value !== undefined && isPrintable(value)) metadata.set(name, value);
  }
  const span = currentSpan();
  if (span !== undefined) metadata.set("traceparent", span.traceparent);
  if (faults.length > 0) metadata.set("x-rest-faults-bin", Buffer.from(JSON.stringify(faults)));
  return metadata;
}

/**
 * Opens the one channel to the service.
 *
 * @param options.target a gRPC target: `unix:/path` or `host:port`
 * @param options.targetCa certificate authority of that service, PEM; its presence turns TLS on
 * @param options.browsers how browsers are spoken to
 * @param options.deadlineMs longest time a call may take, ms
 */
export function createGateway(options: { target: string; targetCa?: Buffer | undefined; deadlineMs: number; browsers: Browsers; log: Log }): Gateway {
  const channelCredentials = options.targetCa ? credentials.createSsl(options.targetCa) : credentials.createInsecure();
  const client = new Client(options.target, channelCredentials, CHANNEL);

  const { browsers } = options;

  const send = (call: GatewayCall, browser: BrowserFacts): Promise<Message> =>
    new Promise((resolve, reject) => {
      const { method } = call.route;
      const { bytes, faults } = decodeRequest(call.route, call.params, call.body, call.query, browser);
      const pending = client.makeUnaryRequest(
        `/${method.parent.typeName}/${method.name}`,
        (request: Uint8Array) => Buffer.from(request),
        (response: Buffer) => fromBinary(method.output, response),
        bytes,
        metadataFor(call, faults),
        { deadline: Date.now() + options.deadlineMs },
        (error, response) => (response === undefined ? reject(error ?? new Error("no response")) : resolve(response)),
      );
      // A state and a code work once: what a person has consented to is finished, also where the window was closed too early.
      if (browserField(method) === undefined) call.signal.addEventListener("abort", () => pending.cancel(), { once: true });
    });

  return {
    async call(call) {
      const browser = browsers.read(call.rawHeaders);
      const shows = browser.wantsPage && browserAnswerField(call.route.method) !== undefined;
      try {
        const response = await send(call, browser);
        const shown = shows ? browsers.present(call.route.method, response, call.requestId) : undefined;
        return shown ?? presentResponse(call.route, response, call.path);
      } catch (error) {
        if (isServiceError(error)) {
          // What the service itself answered is in its own log; what came from the transport is in no other.
          const own = error.metadata.get(STATUS_DETAILS).length > 0 || error.code === Status.CANCELLED;
          if (!own) options.log.warn({ request_id: call.requestId, method: call.route.method.name, code: error.code }, "rest call failed in transport");
          const answer = presentError(error, call.requestId);
          if (!shows) return answer;
          const onward = redirectOf(error);
          return onward === undefined ? refusalPage(answer, call.requestId, openersOf(error)) : redirect(onward);
        }
        options.log.error({ request_id: call.requestId, method: call.route.method.name, ...errorFields(error) }, "rest response failed");
        return refusal("internal", call.requestId);
      }
    },
    reachable: () => new Promise((resolve) => client.waitForReady(Date.now() + REACH_MS, (error) => resolve(error === undefined))),
    close: () => client.close(),
  };
}

const isServiceError = (error: unknown): error is ServiceError => error instanceof Error && "code" in error && "details" in error && "metadata" in error;
