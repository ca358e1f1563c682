import { fromBinary, type Message } from "@bufbuild/protobuf";
import { Metadata, type ServiceError, status as Status } from "@grpc/grpc-js";
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
import type { Transport } from "./transport.ts";

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
}

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

/** Makes the gateway to the service at the end of a transport; `browsers` is how browsers are spoken to. */
export function createGateway({ transport, browsers, log }: { readonly transport: Transport; readonly browsers: Browsers; readonly log: Log }): Gateway {
  const send = async (call: GatewayCall, browser: BrowserFacts): Promise<Message> => {
    const { method } = call.route;
    const { bytes, faults } = decodeRequest(call.route, call.params, call.body, call.query, browser);
    // A state and a code work once: what a person has consented to is finished, also where the window was closed too early.
    const signal = browserField(method) === undefined ? call.signal : undefined;
    return fromBinary(method.output, await transport.call({ path: `/${method.parent.typeName}/${method.name}`, request: bytes, metadata: metadataFor(call, faults), signal }));
  };

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
          if (!own) log.warn({ request_id: call.requestId, method: call.route.method.name, code: error.code }, "rest call failed in transport");
          const answer = presentError(error, call.requestId);
          if (!shows) return answer;
          const onward = redirectOf(error);
          return onward === undefined ? refusalPage(answer, call.requestId, openersOf(error)) : redirect(onward);
        }
        log.error({ request_id: call.requestId, method: call.route.method.name, ...errorFields(error) }, "rest response failed");
        return refusal("internal", call.requestId);
      }
    },
  };
}

const isServiceError = (error: unknown): error is ServiceError => error instanceof Error && "code" in error && "details" in error && "metadata" in error;
