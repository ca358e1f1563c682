import { connect } from "node:http2";

/** Sends one call with raw HTTP/2 headers, where a gRPC client would not; gives headers and trailers as one object. With null for a body the request does not end. */
export function rawCall(target: string, path: string, headers: Record<string, string | string[]>, body: Buffer | null = Buffer.alloc(5)): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const session = connect(`http://${target}`, { strictSingleValueFields: false } as object);
    session.on("error", reject);
    const stream = session.request({ ":path": path, ":method": "POST", "content-type": "application/grpc", te: "trailers", ...headers });
    const got: Record<string, unknown> = {};
    stream.on("response", (part) => Object.assign(got, part));
    stream.on("trailers", (part) => Object.assign(got, part));
    stream.on("error", reject);
    stream.on("close", () => {
      session.close();
      resolve(got);
    });
    stream.resume();
    if (body !== null) stream.end(body);
  });
}
