import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { Client, credentials } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { connect } from "../support/postgres.ts";
import { rest, startFresh, token } from "../support/service.ts";
import { type Watch, watch } from "../support/watching.ts";

const LONG = process.env["FLOW_TEST_LONG"] === "1";
const MANY = LONG ? 10_000 : 2_000;
/** Watches of one organization, and streams of one connection. */
const PER_ORGANIZATION = 10;
const PER_CONNECTION = 100;
const ORGANIZATIONS = MANY / PER_ORGANIZATION;

test(`${MANY} watches at one replica are told what happens, each of its own organization, and cost the database the same number of statements as one`, async () => {
  await using service = await startFresh({ CREDENTIALS_LOG_LEVEL: "warn", CREDENTIALS_WATCH_HEARTBEAT_MS: "2000", CREDENTIALS_WATCH_REAUTHORIZE_MS: "5000" });
  await using superuser = await connect(service.database.superuserUrl);
  const clients = Array.from({ length: MANY / PER_CONNECTION }, () => new Client(service.grpc, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }));
  await using _ = { async [Symbol.asyncDispose]() { for (const client of clients) client.close(); } };
  const organizations = Array.from({ length: ORGANIZATIONS }, () => randomUUID());
  const create = async (organization: string) => {
    const user = await token("user", organization);
    const answer = await rest(service, "POST", "/integrations/credentials", { token: user, body: { provider: "sftp", credential_type: "user_password", credentials: { host: "h", username: "u", password: "p" } } });
    expect(answer.status).toBe(201);
    return answer.json.id as string;
  };
  /** Statements of the feed in so many seconds, and the CPU of the service, both with nothing happening. */
  const idle = async (seconds: number) => {
    const before = [await statements(), cpuSeconds(service.process.pid as number)] as const;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
    return { statements: ((await statements()) - before[0]) / seconds, cpu: (cpuSeconds(service.process.pid as number) - before[1]) / seconds };
  };
  const statements = async (): Promise<number> => Number((await superuser.query("select xact_commit from pg_stat_database where datname = current_database()")).rows[0].xact_commit);

  const one = watch(service.grpc, await token("service_account", organizations[0] as string, undefined, 7_200));
  await one.bookmarked();
  const alone = await idle(LONG ? 10 : 3);
  const watches: Watch[] = [];
  for (let from = 0; from < MANY; from += 500) {
    const batch = await Promise.all(Array.from({ length: Math.min(500, MANY - from) }, async (_, n) => {
      const at = from + n;
      return watch(clients[Math.floor(at / PER_CONNECTION)] as Client, await token("service_account", organizations[at % ORGANIZATIONS] as string, undefined, 7_200));
    }));
    watches.push(...batch);
    await Promise.all(batch.map((each) => each.until(({ messages }) => messages.length > 0)));
  }
  const together = await idle(LONG ? 10 : 3);
  // One that is told of everything shows that nothing of others is told, and some that all of one's own is.
  const chosen = Array.from({ length: 20 }, (_, n) => n * Math.floor(ORGANIZATIONS / 20));
  const ids = new Map(await Promise.all(chosen.map(async (n) => [n, await create(organizations[n] as string)] as const)));
  await Promise.all(watches.map((each, at) => (ids.has(at % ORGANIZATIONS) ? each.until(({ events }) => events().length > 0) : undefined)));
  watches.forEach((each, at) => {
    const id = ids.get(at % ORGANIZATIONS);
    expect(each.events().map(({ credentialId }) => credentialId)).toEqual(id === undefined ? [] : [id]);
  });
  process.stdout.write(`one watch: ${alone.statements.toFixed(1)} transactions/s, ${(alone.cpu * 100).toFixed(1)} % CPU; ${MANY}: ${together.statements.toFixed(1)} transactions/s, ${(together.cpu * 100).toFixed(1)} % CPU, ${rss(service.process.pid as number)} MB\n`);
  // A look is one statement, and another for those whose rights are due: never one for each watch.
  expect(together.statements).toBeLessThan(alone.statements * 3 + 10);
}, LONG ? 600_000 : 120_000);

/** CPU time that a process has used, s. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Memory of a process, MB. */
const rss = (pid: number): number => Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]) / 1024);
