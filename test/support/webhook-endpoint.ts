import { randomBytes } from "node:crypto";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";

/** One delivery as it arrived. */
export interface Delivery {
  readonly headers: Record<string, string>;
  readonly body: string;
  /** What the endpoint answered. */
  readonly status: number;
}

/** A secret that webhooks may be signed with. */
export const webhookSecret = (): string => `whsec_${randomBytes(32).toString("base64")}`;

/** A real HTTP endpoint on loopback that keeps what it gets; the test decides what it answers, `undefined` being nothing at all. */
export async function startWebhookEndpoint(answer: (delivery: Omit<Delivery, "status">, index: number) => number | undefined = () => 204) {
  const deliveries: Delivery[] = [];
  const waiting = new Set<() => void>();
  let answering = answer;
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    const delivery = { headers: flat(request.headers), body };
    const status = answering(delivery, deliveries.length);
    deliveries.push({ ...delivery, status: status ?? 0 });
    for (const wake of waiting) wake();
    if (status !== undefined) response.writeHead(status).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hooks`,
    deliveries,
    answer(next: typeof answer) {
      answering = next;
    },
    /** Resolves when the deliveries satisfy the condition; the test's own time limit bounds it. */
    async until(condition: (all: readonly Delivery[]) => boolean): Promise<void> {
      while (!condition(deliveries)) {
        const { promise, resolve } = Promise.withResolvers<void>();
        waiting.add(resolve);
        await promise;
        waiting.delete(resolve);
      }
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const flat = (headers: IncomingHttpHeaders): Record<string, string> => Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));
