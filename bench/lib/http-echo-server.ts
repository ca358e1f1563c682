/** The least that JSON over HTTP costs: a bare `node:http` server that reads a request whole and answers it in JSON. Prints `ready rest=host:port`. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** As large as the service's answer about one credential. */
const ANSWER = {
  id: "00000000-0000-4000-8000-000000000000",
  provider: "sftp",
  credential_type: "user_password",
  user_id: "00000000-0000-4000-8000-000000000000",
  organization_id: "00000000-0000-4000-8000-000000000000",
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
  status: "active",
  secret_version: "1",
  etag: "1",
};

const server = createServer((request, response) => {
  const parts: Buffer[] = [];
  request.on("data", (part: Buffer) => parts.push(part));
  request.once("end", () => {
    if (parts.length > 0) JSON.parse(Buffer.concat(parts).toString());
    const body = Buffer.from(JSON.stringify(ANSWER));
    response.writeHead(200, { "content-type": "application/json", "content-length": body.length }).end(body);
  });
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`ready rest=127.0.0.1:${(server.address() as AddressInfo).port}\n`));
process.once("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
});
