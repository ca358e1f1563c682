import { randomBytes, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { createCredentialClient, type CredentialClient } from "../../src/client/index.ts";
import type { Run } from "./invariants.ts";
import { rest, type Service, token } from "./service.ts";

/** Credentials that a lane keeps: all lanes together stay below the limit of an organization. */
const KEPT = 4;

/** Pause before a call is made again whose outcome is not known, or that was refused because something is away, ms. */
const AGAIN_MS = 25;

/** Longest wait for answers, ms; generous, for a loaded machine. */
const ANSWERS_MS = 60_000;

/** Longest wait for the last calls of a load that is given up, ms. */
const GOODBYE_MS = 2_000;

/** One credential as its only writer knows it. */
interface Own {
  readonly id: string;
  password: string;
  /** How often it was written. */
  revision: number;
}

/**
 * Users who write and executors who resolve, without a pause, each its own credentials, so that each knows what the answer has to be.
 * Its disposal waits for no outcome: where a test failed while the database was away, there never is one.
 */
export interface Load extends AsyncDisposable {
  readonly organizationId: string;
  /** Word that is in every secret and must be nowhere else. */
  readonly canary: string;
  /** Every outcome that there was: `rest OK`, `rest 503 repository_error`, `grpc UNAVAILABLE`, `rest unreachable`. */
  readonly outcomes: ReadonlySet<string>;
  /** Those since a wait for calls last began. */
  lately(): string[];
  /** Answers that were not the right one. */
  readonly wrong: readonly string[];
  /** Waits until so many more calls have ended well; gives every outcome that there was meanwhile, sorted. Rejects where that takes longer than it may. */
  until(more: number, withinMs?: number): Promise<string[]>;
  /** Ends the calls. A write whose outcome is not known is made again until it is. */
  stop(): Promise<void>;
  /** What was acknowledged and is not there, or not recorded, or does not open; empty where all of it is. */
  losses(run: Run): Promise<string[]>;
}

/** Where the load goes. */
export interface LoadOptions {
  /** Replicas that may be called now over REST. */
  readonly replicas: () => readonly Pick<Service, "rest">[];
  /** Addresses of all replicas, of which the client takes one that answers. */
  readonly targets: readonly string[];
  readonly lanes: number;
}

/** Starts the load. */
export async function startLoad({ replicas, targets, lanes }: LoadOptions): Promise<Load> {
  const [organizationId, canary] = [randomUUID(), `canary${randomBytes(8).toString("hex")}`];
  const [user, machine] = await Promise.all([token("user", organizationId, undefined, 7_200), token("service_account", organizationId, undefined, 7_200)]);
  const client: CredentialClient = createCredentialClient({ target: `ipv4:${targets.join(",")}`, token: machine, tls: "insecure" });
  const outcomes = new Set<string>();
  const counts = new Map<string, number>();
  const wrong: string[] = [];
  const released: string[] = [];
  const own: Own[][] = [];
  const [stopping, givenUp, turn] = [new AbortController(), new AbortController(), { next: 0 }];
  const note = (outcome: string) => {
    outcomes.add(outcome);
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
  };
  const secretOf = (password: string) => ({ credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });

  /** One call to whichever replica's turn it is; undefined where there was no definite answer. */
  async function call(method: string, path: string, body?: unknown, key?: string): Promise<{ status: number; json: any } | undefined> {
    const all = replicas();
    const replica = all[turn.next++ % all.length] as Pick<Service, "rest">;
    const answer = await rest(replica, method, `/integrations/credentials${path}`, { token: user, ...(body === undefined ? {} : { body }), ...(key === undefined ? {} : { headers: { "idempotency-key": key } }) }).catch(() => undefined);
    note(answer === undefined ? "rest unreachable" : answer.status < 300 ? "rest OK" : `rest ${answer.status} ${answer.json?.error?.code}`);
    const again = answer === undefined || answer.status >= 500 || answer.status === 429 || (answer.status === 409 && key !== undefined);
    if (again) await sleep(AGAIN_MS);
    return again ? undefined : answer;
  }

  /** A write, made again under its key until it is known to have taken effect. */
  async function write(method: string, path: string, body?: unknown): Promise<any> {
    const key = randomUUID();
    for (;;) {
      givenUp.signal.throwIfAborted();
      const answer = await call(method, path, body, key);
      if (answer === undefined) continue;
      if (answer.status >= 300) wrong.push(`${method} was answered ${answer.status}`);
      return answer.json;
    }
  }

  async function resolve({ id, password }: Own): Promise<void> {
    const runId = randomUUID();
    try {
      const { credentials } = await client.resolveCredential({ credentialId: id }, { flowId: "load", runId });
      released.push(runId);
      note("grpc OK");
      if (credentials?.$case !== "sftpPassword" || credentials.value.password !== password) wrong.push("resolved to another secret");
    } catch (error) {
      const { code, reason } = error as { code?: string; reason?: string };
      note(`grpc ${code}`);
      if (code === "NOT_FOUND" || code === "DATA_LOSS" || code === "PERMISSION_DENIED") wrong.push(`resolved to ${reason}`);
      await sleep(AGAIN_MS);
    }
  }

  async function look({ id, revision }: Own): Promise<void> {
    const answer = await call("GET", `/${id}`);
    if (answer !== undefined && (answer.status !== 200 || answer.json.etag !== `r${revision}`)) wrong.push(`read ${answer.status} ${answer.json?.etag}, not r${revision}`);
  }

  async function list(mine: readonly Own[]): Promise<void> {
    const answer = await call("GET", "");
    const there = new Set(Array.isArray(answer?.json) ? answer.json.map(({ id }: { id: string }) => id) : []);
    if (answer !== undefined && !mine.every(({ id }) => there.has(id))) wrong.push("a list without what is there");
  }

  async function lane(mine: Own[]): Promise<void> {
    for (let n = 0; !stopping.signal.aborted; n++) {
      const one = mine[n % mine.length];
      if (one === undefined || n % 12 === 0) {
        const password = `${canary}-${randomUUID()}`;
        const { id } = await write("POST", "", { provider: "sftp", ...secretOf(password) });
        mine.push({ id, password, revision: 1 });
      } else if (n % 12 === 6) {
        const password = `${canary}-${randomUUID()}`;
        await write("PATCH", `/${one.id}`, secretOf(password));
        Object.assign(one, { password, revision: one.revision + 1 });
      } else if (n % 12 === 9 && mine.length > KEPT) {
        mine.splice(mine.indexOf(one), 1);
        await write("DELETE", `/${one.id}`);
      } else if (n % 12 === 10) await look(one);
      else if (n % 24 === 11) await list(mine);
      else await resolve(one);
    }
  }

  const running = Promise.all(Array.from({ length: lanes }, () => lane((own[own.length] = []))));
  const good = () => (counts.get("rest OK") ?? 0) + (counts.get("grpc OK") ?? 0);
  const lately = () => [...counts.keys()].toSorted();
  const stop = async () => {
    stopping.abort();
    await running;
  };
  return {
    organizationId, canary, outcomes, wrong, lately, stop,
    async until(more, withinMs = ANSWERS_MS) {
      counts.clear();
      for (const end = Date.now() + withinMs; good() < more; await sleep(20)) {
        if (Date.now() > end) throw new Error(`fewer than ${more} calls ended well: ${[...counts].map(([outcome, times]) => `${times} ${outcome}`).join(", ")}`);
      }
      return lately();
    },
    async losses(run) {
      const all = own.flat();
      const lost: string[] = [];
      const recorded = new Set((await run("select run_id from audit_event where organization_id = $1 and action = 'resolve_credential' and outcome = 'allowed'", [organizationId])).map(({ run_id }) => run_id));
      lost.push(...released.filter((runId) => !recorded.has(runId)).map((runId) => `released without a record: ${runId}`));
      const before = wrong.length;
      for (const one of all) {
        await resolve(one);
        await look(one);
      }
      lost.push(...wrong.splice(before));
      const live = (await run("select id from credential where organization_id = $1 and deleted_at is null", [organizationId])).map(({ id }) => id as string).toSorted();
      const expected = all.map(({ id }) => id).toSorted();
      if (live.join() !== expected.join()) lost.push(`${expected.length} credentials were acknowledged, and ${live.length} are there`);
      return lost;
    },
    async [Symbol.asyncDispose]() {
      givenUp.abort();
      await Promise.race([stop().catch(() => {}), sleep(GOODBYE_MS)]);
      client.close();
    },
  };
}
