import { request } from "node:http";
import { expect, it } from "vitest";
import { createLog } from "../../src/log.ts";
import { serveRest } from "../../src/rest/server.ts";
import { dial, type Transport } from "../../src/rest/transport.ts";
import { record, startGrpc } from "../support/grpc.ts";

const LIST = "/integrations/credentials";
const ID = "0b7c1f0e-6d5c-4a41-9a37-52f7a1c0d00a";
const USER = ["authorization", "Bearer user"];
const JSON_BODY = ["content-type", "application/json"];
const secretOf = (password: string) => JSON.stringify({ provider: "sftp", credential_type: "user_password", credentials: { host: "h", username: "u", password } });

/** Requests that go well, are refused by each of the rules, or take too long: method, path, headers and body. */
const REQUESTS: readonly (readonly [method: string, path: string, headers: readonly string[], body?: string])[] = [
  ["GET", LIST, USER],
  ["GET", LIST, []],
  ["GET", LIST, [...USER, ...USER]],
  ["GET", LIST, [...USER, "x-api-key", "k"]],
  ["GET", LIST, ["authorization", ""]],
  ["GET", LIST, ["authorization", "Bearer nope\u00e9"]],
  ["GET", LIST, ["authorization", `Bearer ${"a".repeat(3_000)}`]],
  ["GET", LIST, [...USER, "x-flow-id", "f".repeat(129)]],
  ["GET", LIST, [...USER, "x-flow-id", ""]],
  ["GET", LIST, [...USER, "x-run-id", "r".repeat(3_000)]],
  ["GET", `${LIST}/${ID}`, USER],
  ["GET", `${LIST}/${ID.toUpperCase()}`, USER],
  ["GET", `${LIST}/nope`, USER],
  ["GET", `${LIST}/ffff${ID.slice(4)}`, USER],
  ["GET", `${LIST}/${ID}`, ["authorization", "Bearer operator"]],
  ["POST", LIST, [...USER, ...JSON_BODY], '{"a":1}'],
  ["POST", LIST, [...USER, ...JSON_BODY], '{"provider":"sftp","provider":"x"}'],
  ["POST", LIST, [...USER, ...JSON_BODY], secretOf("p".repeat(5_000))],
  ["POST", LIST, JSON_BODY, secretOf("p".repeat(5_000))],
  ["POST", LIST, JSON_BODY, secretOf("p")],
  ["DELETE", `${LIST}/${ID}`, USER],
];

function answerOf(port: number, [method, path, headers, body]: (typeof REQUESTS)[number]): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, method, path, agent: false, headers: ["host", "x", "x-request-id", "01JD8Z3NDEKTSV4RRFFQ69G5FA", ...headers] }, (response) => {
      let text = "";
      const { date: _, ...rest } = response.headers;
      response.setEncoding("utf8").on("data", (part: string) => (text += part)).on("end", () => resolve([response.statusCode, rest, text]));
    });
    sent.on("error", reject).end(body);
  });
}

it("answers the same, to the byte, whether the service is in this process or behind a network", async () => {
  const getCredential = (_grant: unknown, id: string) => (id.startsWith("ffff") ? new Promise<never>(() => {}) : Promise.resolve({ ...record({ id }) }));
  await using grpc = await startGrpc({ vault: { getCredential }, options: { deadlineMs: 400, maxMetadataBytes: 2_048, maxMessageBytes: 3_000 } });
  const { local } = grpc.service;
  const options = {
    listen: { host: "127.0.0.1", port: 0 }, corsOrigins: [], maxBodyBytes: 65_536, maxJsonDepth: 16, maxJsonKeys: 100, deadlineMs: 400, docs: false, resolve: false,
    log: createLog("error", { write: () => {} }), ready: async () => true, metrics: async () => ({ contentType: "text/plain", body: "" }),
  };
  const inside: Transport = { call: (call) => local.call(call), reachable: async () => local.open, close: () => {} };
  const [near, far] = await Promise.all([inside, dial({ target: grpc.target, deadlineMs: 400 })].map((transport) => serveRest({ ...options, transport })));
  for (const asked of REQUESTS) {
    const [ofNear, ofFar] = await Promise.all([near, far].map((rest) => answerOf(rest?.address.port ?? 0, asked)));
    expect(ofNear, asked.slice(0, 2).join(" ")).toEqual(ofFar);
  }
  await Promise.all([near?.stop(), far?.stop()]);
});
