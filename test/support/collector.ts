import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** A span as a collector got it. */
export interface SeenSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly facts: Readonly<Record<string, string | number>>;
  readonly failed: boolean;
}

interface Value { readonly stringValue?: string; readonly intValue?: string; readonly doubleValue?: number }
interface Sent {
  readonly resourceSpans: readonly { readonly scopeSpans: readonly { readonly spans: readonly (Omit<SeenSpan, "facts" | "failed"> & { readonly attributes: readonly { readonly key: string; readonly value: Value }[]; readonly status: { readonly code?: number } })[] }[] }[];
}

/** A collector that takes OTLP over HTTP in JSON, on a free port. */
export async function startCollector() {
  const spans: SeenSpan[] = [];
  const bodies: string[] = [];
  const headers: Record<string, unknown>[] = [];
  let status = 200;
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request.setEncoding("utf8")) text += chunk;
    if (request.method === "POST" && request.url === "/v1/traces" && status === 200) {
      headers.push(request.headers);
      bodies.push(text);
      for (const { scopeSpans } of (JSON.parse(text) as Sent).resourceSpans) {
        for (const { attributes, status: said, ...span } of scopeSpans.flatMap((scope) => scope.spans)) {
          const facts = Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue ?? value.doubleValue)]));
          spans.push({ ...span, facts, failed: said.code === 2 });
        }
      }
    }
    response.writeHead(request.url === "/v1/traces" ? status : 404, { "content-type": "application/json" }).end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    /** Everything it was sent, as it came. */
    bodies,
    headers,
    /** What it answers from now on. */
    answer(next: number): void {
      status = next;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The trace with that id as lines, each span below its parent and by its beginning: `  name`. */
export function tree(spans: readonly SeenSpan[], traceId: string): string[] {
  const mine = spans.filter((span) => span.traceId === traceId).sort((a, b) => (BigInt(a.startTimeUnixNano) < BigInt(b.startTimeUnixNano) ? -1 : 1));
  const known = new Set(mine.map(({ spanId }) => spanId));
  const below = (parent: string | undefined, depth: number): string[] =>
    mine.filter(({ parentSpanId }) => (parent === undefined ? parentSpanId === undefined || !known.has(parentSpanId) : parentSpanId === parent)).flatMap((span) => [`${"  ".repeat(depth)}${span.name}`, ...below(span.spanId, depth + 1)]);
  return below(undefined, 0);
}
