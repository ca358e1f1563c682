import { once } from "node:events";
import { createServer, type Http2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { type Server, status } from "@grpc/grpc-js";
import { expect, it } from "vitest";
import { createDoor } from "../../src/grpc/door.ts";
import { rawCall } from "../support/grpc.ts";

/** A door before an HTTP/2 server that stands where grpc-js keeps its own, and what it let through and wrote down. */
async function behindDoor() {
  const passed: unknown[] = [];
  const written: object[] = [];
  const http2 = createServer();
  http2.on("stream", (stream, headers) => {
    passed.push(headers[":path"]);
    stream.respond({ ":status": 200, "grpc-status": "0" }, { endStream: true });
  });
  http2.listen(0, "127.0.0.1");
  await once(http2, "listening");
  const write = (fields: object) => void written.push(fields);
  const door = createDoor({ log: { debug: write, info: write, warn: write, error: write }, metrics: { observe: write } }, 16_384);
  const inside = { http2Servers: new Map<Http2Server, object>([[http2, {}]]) } as unknown as Server;
  return { passed, written, door, inside, http2, target: `127.0.0.1:${(http2.address() as AddressInfo).port}` };
}

it("lets calls through until it is shut, and answers UNAVAILABLE from then on", async () => {
  const { passed, written, door, inside, http2, target } = await behindDoor();
  door.guard(inside);
  door.guard(inside);
  expect(await rawCall(target, "/a/B", {})).toMatchObject({ "grpc-status": "0" });
  expect(written).toEqual([]);
  door.shut();
  const refused = await rawCall(target, "/a/C", { authorization: "Bearer secret" });
  expect(refused).toMatchObject({ "grpc-status": String(status.UNAVAILABLE), "x-request-id": expect.any(String), "grpc-status-details-bin": expect.any(String) });
  expect(passed).toEqual(["/a/B"]);
  expect(written).toMatchObject([{ reason: "SHUTTING_DOWN", request_id: refused["x-request-id"] }, { method: "none", code: "UNAVAILABLE" }]);
  expect(JSON.stringify(written)).not.toContain("secret");
  http2.close();
});

it("refuses to stand open before a server it does not know from inside", async () => {
  const { door, inside, http2 } = await behindDoor();
  expect(() => door.guard({} as Server)).toThrow("grpc-js");
  http2.on("stream", () => {});
  expect(() => door.guard(inside)).toThrow("grpc-js");
  http2.close();
});
