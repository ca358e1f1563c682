import { createServer, type IncomingHttpHeaders, request } from "node:http";
import { request as secureRequest } from "node:https";
import type { AddressInfo } from "node:net";

/** A page, or where it sends the browser. */
export interface Visited {
  readonly url: string;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

const get = (url: string, headers: Readonly<Record<string, string>>, ca: string | undefined): Promise<Visited> =>
  new Promise((resolve, reject) => {
    const ask = url.startsWith("https:") ? secureRequest : request;
    ask(url, { headers, ...(ca === undefined ? {} : { ca }) }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => (body += text));
      response.on("end", () => resolve({ url, status: response.statusCode ?? 0, headers: response.headers, body }));
    })
      .on("error", reject)
      .end();
  });

/** A browser that keeps cookies by host and follows redirects. It runs no script. */
export class ScriptedBrowser {
  readonly cookies = new Map<string, Map<string, string>>();
  /** Every URL it asked for. */
  readonly visited: string[] = [];
  readonly #ca: string | undefined;

  /** @param ca authority that it trusts, PEM */
  constructor(ca?: string) {
    this.#ca = ca;
  }

  /** One request, as a person's navigation. */
  async open(url: string, headers: Readonly<Record<string, string>> = {}): Promise<Visited> {
    this.visited.push(url);
    const { hostname } = new URL(url);
    const jar = this.cookies.get(hostname) ?? new Map<string, string>();
    this.cookies.set(hostname, jar);
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const page = await get(url, { accept: "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", ...(cookie === "" ? {} : { cookie }), ...headers }, this.#ca);
    for (const line of page.headers["set-cookie"] ?? []) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      jar.set(name, value);
    }
    return page;
  }

  /** Follows redirects to the first page, or to the first URL with this beginning, which is not opened. */
  async visit(url: string, until?: string): Promise<Visited> {
    for (let at = url, left = 15; left > 0; left--) {
      if (until !== undefined && at.startsWith(until)) return { url: at, status: 0, headers: {}, body: "" };
      const page = await this.open(at);
      if (page.headers.location === undefined) return page;
      at = new URL(page.headers.location, at).href;
    }
    throw new Error("it is redirected for ever");
  }
}

/** A front that browsers reach and that hands everything on, as a load balancer does: with its own name for the host behind it. */
export async function startFront() {
  let behind: string | undefined;
  const state = {
    /** Token that is added to a navigation that begins an authorization, as a platform does for its signed-in users. */
    bearer: undefined as string | undefined,
  };
  const server = createServer((incoming, outgoing) => {
    if (behind === undefined) return void outgoing.writeHead(502).end();
    const { host: _, ...headers } = incoming.headers;
    const signedIn = state.bearer !== undefined && /\/authorize(?:\?|$)/.test(incoming.url ?? "") ? { authorization: `Bearer ${state.bearer}` } : {};
    const onward = request(behind + (incoming.url ?? "/"), { method: incoming.method, headers: { ...headers, ...signedIn, host: "internal.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "gopher" } }, (response) => {
      outgoing.writeHead(response.statusCode ?? 502, response.headers);
      response.pipe(outgoing);
    });
    onward.on("error", () => outgoing.destroy());
    incoming.pipe(onward);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    state,
    /** Says what stands behind it. */
    toward: (url: string) => (behind = url),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
