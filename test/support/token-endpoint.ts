import { randomBytes } from "node:crypto";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One request for a token as it arrived. */
export interface TokenCall {
  readonly refreshToken: string;
  /** When it arrived, ms on a clock that never goes back. */
  readonly at: number;
  /** Number of the call, from 0. */
  readonly index: number;
}

/** What is answered instead of a token: a status and a body, or nothing, the connection being cut after the token was replaced by the rules. `undefined` leaves it to the rules. */
export type Odd = { readonly status: number; readonly body: string | object; readonly headers?: Record<string, string> } | "cut" | undefined;

/** The client that every grant belongs to. */
export const CLIENT = { client_id: "client-1.apps.example.com", client_secret: "client-secret-of-tests" } as const;

interface Family {
  current: string;
  dead: boolean;
  scope: string;
}

/**
 * The token endpoint of a provider (RFC 6749 section 6) over real HTTP, for what no real provider can be made to do: holding answers back,
 * answering oddly, thousands of grants. Strict: each refresh token works once, and a second use ends the grant (RFC 9700 section 4.14.2).
 * Lenient: it works for ever, and no new one comes, as with Google.
 */
export async function startTokenEndpoint(dress: "strict" | "lenient" = "strict") {
  const families = new Map<string, Family>();
  const [calls, issued]: [TokenCall[], Set<string>] = [[], new Set()];
  const waiting = new Set<() => void>();
  let odd: (call: TokenCall) => Odd | Promise<Odd> = () => undefined;
  let lifetime = 3600;

  const draw = (kind: string): string => `${kind}-${randomBytes(18).toString("base64url")}`;
  function refresh(form: URLSearchParams): { status: number; body: object } {
    if (form.get("client_id") !== CLIENT.client_id || form.get("client_secret") !== CLIENT.client_secret) return { status: 401, body: { error: "invalid_client" } };
    const family = families.get(form.get("refresh_token") ?? "");
    if (family === undefined || family.dead) return { status: 400, body: { error: "invalid_grant" } };
    if (dress === "strict" && family.current !== form.get("refresh_token")) {
      family.dead = true;
      return { status: 400, body: { error: "invalid_grant", error_description: "token was used before" } };
    }
    const accessToken = draw("access");
    issued.add(accessToken);
    const reply: Record<string, unknown> = { access_token: accessToken, token_type: "Bearer", expires_in: lifetime, scope: family.scope };
    if (dress === "strict") {
      reply["refresh_token"] = family.current = draw("refresh");
      families.set(family.current, family);
    }
    return { status: 200, body: reply };
  }
  async function answer(text: string, response: ServerResponse): Promise<void> {
    const form = new URLSearchParams(text);
    const call = { refreshToken: form.get("refresh_token") ?? "", at: performance.now(), index: calls.length };
    calls.push(call);
    for (const wake of waiting) wake();
    const said = await odd(call);
    if (said === "cut") {
      refresh(form);
      return void response.destroy();
    }
    const { status, body, headers = {} } = said === undefined ? { ...refresh(form), headers: {} } : { headers: {}, ...said };
    const payload = typeof body === "string" ? body : JSON.stringify(body);
    response.writeHead(status, { "content-type": typeof body === "string" ? "text/html" : "application/json", ...headers }).end(payload);
  }
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request.setEncoding("utf8")) text += chunk;
    await answer(text, response);
  });
  server.on("clientError", (_, socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

  return {
    issuer: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    /** Every access token that was ever given out. */
    issued,
    /** A new grant, as its owner would post it. */
    grant(scope = "https://www.googleapis.com/auth/drive.readonly openid") {
      const family = { current: draw("refresh"), dead: false, scope };
      families.set(family.current, family);
      return { access_token: draw("first"), refresh_token: family.current, expires_in: 3600, scope, ...CLIENT };
    },
    /** Whether the grant that a refresh token belongs to still lives. */
    lives: (refreshToken: string): boolean => families.get(refreshToken)?.dead === false,
    /** What is answered from now on instead of a token. */
    answer(next: typeof odd): void {
      odd = next;
    },
    lifetime(seconds: number): void {
      lifetime = seconds;
    },
    /** Answers by its rules from now on, but only when it is let go. */
    hold(): { release(): void } {
      const gate = Promise.withResolvers<undefined>();
      odd = () => gate.promise;
      return {
        release: () => {
          odd = () => undefined;
          gate.resolve(undefined);
        },
      };
    },
    /** Resolves when so many calls have come; the test's own time limit bounds it. */
    async until(count: number): Promise<void> {
      while (calls.length < count) {
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

/** A running token endpoint. */
export type TokenEndpoint = Awaited<ReturnType<typeof startTokenEndpoint>>;
