import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";

/** One request to an address that the operator configured. */
export interface OperatorRequest {
  readonly method: "GET" | "POST" | "PUT";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Ends the request. */
  readonly signal: AbortSignal;
}

/** What came back. */
export interface OperatorResponse {
  readonly status: number;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Sends requests to addresses that operators configured, which therefore need no guard: no tenant chooses them. */
export type OperatorHttp = (request: OperatorRequest) => Promise<OperatorResponse>;

/** Largest answer, bytes. */
const MAX_ANSWER_BYTES = 65_536;

/**
 * One request on one connection of its own, without redirects, proxies or cookies; an HTTP error status is a response.
 *
 * @param ca certificate authorities that are trusted in the place of the system's, PEM
 */
export function createOperatorHttp(ca?: Buffer): OperatorHttp {
  return ({ method, url, headers, body, signal }) =>
    new Promise((resolve, reject) => {
      const options = { method, headers: { ...headers, "content-length": String(body.length) }, signal, agent: false as const };
      const sent = url.protocol === "https:" ? httpsRequest(url, { ...options, ...(ca === undefined ? {} : { ca }) }) : httpRequest(url, options);
      sent.on("error", reject);
      sent.on("response", (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on("data", (chunk: Buffer) => {
          size += chunk.length;
          if (size > MAX_ANSWER_BYTES) sent.destroy(new Error("the answer is too large"));
          else chunks.push(chunk);
        });
        response.on("error", reject);
        response.on("end", () => {
          const known = Object.entries(response.headers).filter((pair): pair is [string, string] => typeof pair[1] === "string");
          resolve({ status: response.statusCode ?? 0, headers: Object.fromEntries(known), body: Buffer.concat(chunks) });
        });
      });
      sent.end(body);
    });
}
