import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { startLoad } from "../support/load.ts";

test("a load to a service that never gets well says what it hears, and can be given up", async () => {
  const server = createServer((_, response) => void response.writeHead(503).end('{"error":{"code":"repository_error"}}')).listen(0, "127.0.0.1");
  await once(server, "listening");
  const target = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    await using load = await startLoad({ replicas: () => [{ rest: `http://${target}` }], targets: [target], lanes: 2 });
    await expect(load.until(1, 200)).rejects.toThrow(/^fewer than 1 calls ended well: \d+ rest 503 repository_error$/);
    expect([...load.outcomes]).toEqual(["rest 503 repository_error"]);
  } finally {
    server.close();
  }
});
