import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { rest, type Service, serviceEnv, startService, token } from "../support/service.ts";

let database: FreshDatabase;
let replicas: Service[];

beforeAll(async () => {
  database = await freshDatabase();
  const env = serviceEnv(database);
  replicas = await Promise.all([startService(env), startService(env)]);
});
afterAll(async () => {
  await Promise.all(replicas.map((replica) => replica.stop()));
  await database[Symbol.asyncDispose]();
});

const sftp = (n: number) => ({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: `u${n}`, password: "p" } });
const replica = (n: number): Service => replicas[n % replicas.length] as Service;

test("200 parallel creates through two processes leave exactly 50", async () => {
  const organization = randomUUID();
  const tokens = await Promise.all(Array.from({ length: 4 }, () => token("user", organization)));
  const answers = await Promise.all(
    Array.from({ length: 200 }, (_, n) => rest(replica(n), "POST", "/integrations/credentials", { token: tokens[n % 4] as string, body: sftp(n) })),
  );
  const count = (status: number) => answers.filter((answer) => answer.status === status).length;
  expect([count(201), count(400)]).toEqual([50, 150]);
  const machine = await token("service_account", organization);
  const listed = await rest(replica(0), "GET", "/integrations/credentials", { token: machine });
  expect(listed.json).toHaveLength(50);
  const refused = answers.find((answer) => answer.status === 400);
  expect(refused?.json.error).toMatchObject({ code: "bad_request", message: expect.stringContaining("limit") });
});

test("a user holds at most 100 over all providers, and a delete makes room again", async () => {
  const organization = randomUUID();
  const user = await token("user", organization);
  const bodies = [
    ...Array.from({ length: 50 }, (_, n) => sftp(n)),
    ...Array.from({ length: 50 }, (_, n) => ({ provider: "aws_ses", credential_type: "api_key", credentials: { access_key_id: `AKIA${n}`, secret_access_key: "s", region: "eu-central-1" } })),
  ];
  const made = await Promise.all(bodies.map((body, n) => rest(replica(n), "POST", "/integrations/credentials", { token: user, body })));
  expect(made.map((answer) => answer.status)).toEqual(Array.from({ length: 100 }, () => 201));
  const extra = { provider: "google", credential_type: "api_key", credentials: { api_key: "k" } };
  const over = await rest(replica(0), "POST", "/integrations/credentials", { token: user, body: extra });
  expect([over.status, over.json.error.message]).toEqual([400, expect.stringContaining("user")]);
  const removed = await rest(replica(1), "DELETE", `/integrations/credentials/${made[0]?.json.id}`, { token: user });
  expect(removed.status).toBe(204);
  expect((await rest(replica(0), "POST", "/integrations/credentials", { token: user, body: extra })).status).toBe(201);
});

test("parallel updates through two processes all succeed, each strictly later than the one before", async () => {
  const user = await token("user", randomUUID());
  const { json: created } = await rest(replica(0), "POST", "/integrations/credentials", { token: user, body: sftp(0) });
  const { provider: _, ...change } = sftp(1);
  const answers = await Promise.all(
    Array.from({ length: 12 }, (_, n) => rest(replica(n), "PATCH", `/integrations/credentials/${created.id}`, { token: user, body: change })),
  );
  expect(answers.map((answer) => answer.status)).toEqual(Array.from({ length: 12 }, () => 200));
  const times = answers.map((answer) => answer.json.updated_at as string);
  expect(new Set(times).size).toBe(12);
  expect(times.every((time) => time > created.updated_at)).toBe(true);
});

test("what one process stores the other serves at once, and deletes take effect there too", async () => {
  const user = await token("user", randomUUID());
  const { json: created } = await rest(replica(0), "POST", "/integrations/credentials", { token: user, body: sftp(0) });
  expect((await rest(replica(1), "GET", `/integrations/credentials/${created.id}`, { token: user })).status).toBe(200);
  expect((await rest(replica(0), "DELETE", `/integrations/credentials/${created.id}`, { token: user })).status).toBe(204);
  expect((await rest(replica(1), "GET", `/integrations/credentials/${created.id}`, { token: user })).status).toBe(404);
});
