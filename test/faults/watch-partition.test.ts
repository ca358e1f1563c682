import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { createCredentialClient, CredentialClientError, type CredentialClient } from "../../src/client/index.ts";
import { freshDatabase } from "../support/postgres.ts";
import { rest, type Service, serviceEnv, startService, token } from "../support/service.ts";
import { startProxy } from "../support/tcp-proxy.ts";
import { QUICK } from "../support/watching.ts";

const LONG = process.env["FLOW_TEST_LONG"] === "1";
const CHANGES = LONG ? 10_000 : 300;
const CREDENTIALS = 24;
const WRITERS = 4;
/** The client's own bound: no secret is used for longer after the last sign that nothing has happened to it. */
const MAX_SILENCE_MS = 1_000;

/** One secret, and when it was surely not good any more: when the change that ended it was acknowledged. */
interface Version {
  readonly password: string;
  endedAt: number;
}

const sftp = (password: string) => ({ host: "sftp.example.com", username: "u", password });

test(`${CHANGES} changes, while replicas are killed and the client is cut off: it ends where the service is, misses no event, and uses no ended secret past its bound`, async () => {
  await using database = await freshDatabase();
  const env = serviceEnv(database, { ...QUICK, CREDENTIALS_LIMIT_PER_PROVIDER: "100000", CREDENTIALS_LIMIT_PER_USER: "100000", CREDENTIALS_RATE_WRITES_PER_CALLER: "100000", CREDENTIALS_RATE_WRITES_PER_ORGANIZATION: "100000" });
  const organization = randomUUID();
  const [user, machine] = await Promise.all([token("user", organization, undefined, 7_200), token("service_account", organization, undefined, 7_200)]);
  const alive: Service[] = await Promise.all([startService(env), startService(env)]);
  await using started = new AsyncDisposableStack();
  started.defer(async () => void (await Promise.all(alive.map((service) => service.stop("SIGKILL")))));
  await using proxy = await startProxy(alive[0]?.grpc as string);
  const client = createCredentialClient({ target: proxy.target, token: machine, retries: 0, deadlineMs: 1_000, cache: { maxSilenceMs: MAX_SILENCE_MS } });
  started.defer(() => client.close());

  const versions = new Map<string, Version[]>();
  const over = new AbortController();
  /** Writes through any replica until one has taken it. An answer that was lost may have been to a write that stands. */
  const write = async (method: string, path: string, body?: object): Promise<{ status: number; json: any }> => {
    for (let n = Math.floor(Math.random() * 2); ; n++) {
      const answer = await rest(alive[n % alive.length] as Service, method, path, { token: user, ...(body ? { body } : {}) }).catch(() => undefined);
      if (answer && answer.status < 429) return answer;
      await sleep(20);
    }
  };
  const create = async () => {
    const password = randomUUID();
    // A creation whose answer was lost leaves one that nobody here knows of.
    const { json } = await write("POST", "/integrations/credentials", { provider: "sftp", credential_type: "user_password", credentials: sftp(password) });
    versions.set(json.id as string, [{ password, endedAt: Infinity }]);
  };
  const update = async (id: string) => {
    const password = randomUUID();
    const all = versions.get(id) as Version[];
    const before = all.at(-1) as Version;
    all.push({ password, endedAt: Infinity });
    const { status } = await write("PATCH", `/integrations/credentials/${id}`, { credential_type: "user_password", credentials: sftp(password) });
    expect(status).toBe(200);
    before.endedAt = performance.now();
  };
  const remove = async (id: string) => {
    await write("DELETE", `/integrations/credentials/${id}`);
    const last = (versions.get(id) as Version[]).at(-1) as Version;
    last.endedAt = performance.now();
  };

  await Promise.all(Array.from({ length: CREDENTIALS }, create));
  await client.cache?.ready();
  let changes = 0;
  const going = () => changes < CHANGES;
  const writer = async (part: number) => {
    for (; going(); changes++) {
      // Each writer has credentials of its own, so that the order of what is acknowledged is that of what happened.
      const mine = [...versions].filter(([, all], index) => index % WRITERS === part && all.at(-1)?.endedAt === Infinity).map(([id]) => id);
      const id = mine[Math.floor(Math.random() * mine.length)];
      if (id === undefined || changes % 17 === part) await create();
      else if (changes % 23 === part && mine.length > 2) await remove(id);
      else await update(id);
    }
  };
  const faults: string[] = [];
  const served = { cached: 0, asked: 0, refused: 0 };
  const reader = async () => {
    while (!over.signal.aborted) {
      // Mostly of the newest, as the executors of flows that run; one in five of all that ever were.
      const ids = [...versions.keys()].slice(Math.random() < 0.8 ? -CREDENTIALS : 0);
      const id = ids[Math.floor(Math.random() * ids.length)] as string;
      const hits = client.cache?.status().hits;
      const at = performance.now();
      const asked = client.resolveCredential({ credentialId: id });
      const cached = client.cache?.status().hits !== hits;
      const { credentials } = await asked.catch(() => ({ credentials: undefined }));
      if (credentials?.$case !== "sftpPassword") served.refused += 1;
      else {
        served[cached ? "cached" : "asked"] += 1;
        const version = versions.get(id)?.find(({ password }) => password === credentials.value.password);
        const late = at - (version?.endedAt ?? -Infinity);
        // An answer that is shared may have been asked for a moment earlier, within the same bound.
        if (late > MAX_SILENCE_MS) faults.push(`${cached ? "from memory" : "asked for"}, ${late.toFixed(0)} ms after its end`);
      }
      // As an executor does, which has more to do than to ask.
      await sleep(cached ? 1 : 5);
    }
  };
  const told: bigint[] = [];
  const follow = async () => {
    for (let position = ""; !over.signal.aborted; ) {
      try {
        for await (const message of client.watchCredentials({ position }, { signal: over.signal })) {
          position = message.position;
          if (message.message?.$case === "event") told.push(message.message.value.revision);
          else if (message.message?.$case === "bookmark" && told.length === 0) told.push(message.message.value.revision);
        }
      } catch (error) {
        expect(error).toBeInstanceOf(CredentialClientError);
        expect((error as CredentialClientError).code).not.toBe("OUT_OF_RANGE");
        await sleep(20);
      }
    }
  };
  const kill = async (n: number) => {
    const victim = alive[n] as Service;
    const other = alive[1 - n] as Service;
    await victim.stop("SIGKILL");
    proxy.to(other.grpc);
    // A busy machine may take longer to start one than is waited for.
    alive[n] = await startService(env).catch(() => startService(env)).catch(() => startService(env));
  };
  let trouble = 0;
  const chaos = async () => {
    do {
      await kill(trouble % 2);
      proxy.freeze();
      await sleep(MAX_SILENCE_MS * 1.5);
      proxy.heal();
      proxy.cut();
      await sleep(100);
      proxy.to((alive[trouble % 2] as Service).grpc);
      proxy.heal();
      await sleep(500);
      trouble += 1;
    } while (going());
  };
  const readers = [follow(), ...Array.from({ length: 4 }, reader)];
  const writers = Array.from({ length: WRITERS }, (_, part) => writer(part));
  await Promise.all([chaos(), ...writers]);

  // Once the client has been told of everything, what it has is what the service has.
  const quiet = performance.now();
  const cache = client.cache as NonNullable<CredentialClient["cache"]>;
  await expect.poll(() => cache.status().following && performance.now() - cache.status().ageMs > quiet, { timeout: 30_000 }).toBe(true);
  await expect.poll(() => told.at(-1), { timeout: 30_000 }).toBe(await newest());
  await using direct = createCredentialClient({ target: (alive[0] as Service).grpc, token: machine });
  const ask = (from: CredentialClient, credentialId: string) => from.resolveCredential({ credentialId }).then(({ secretVersion, credentials }) => ({ secretVersion, credentials }), (error: CredentialClientError) => ({ reason: error.reason }));
  for (const id of versions.keys()) expect(await ask(client, id), id).toEqual(await ask(direct, id));
  over.abort();
  await Promise.all(readers);
  expect(faults).toEqual([]);
  // Every event was told, once, and in order.
  const first = told[0] as bigint;
  expect(told).toEqual(Array.from({ length: told.length }, (_, n) => first + BigInt(n)));
  expect(served.cached).toBeGreaterThan(300);
  expect(trouble).toBeGreaterThan(0);
  process.stdout.write(`${CHANGES} changes, ${trouble} rounds of trouble: ${served.cached} from memory, ${served.asked} asked for, ${served.refused} refused, ${told.length} events told\n`);

  async function newest(): Promise<bigint> {
    const head = createCredentialClient({ target: (alive[0] as Service).grpc, token: machine });
    try {
      for await (const { message } of head.watchCredentials({ position: "" })) if (message?.$case === "bookmark") return message.value.revision;
      throw new Error("the watch ended");
    } finally {
      head.close();
    }
  }
}, LONG ? 1_800_000 : 120_000);
