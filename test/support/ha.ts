import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { vi } from "vitest";
import { migrate } from "../../src/store/migrate.ts";
import { invariantFaults, type Run } from "./invariants.ts";
import { type Load, startLoad } from "./load.ts";
import { rest, serviceEnv, type Service, startService, testMasterKey } from "./service.ts";
import { type Node, startNode } from "./standby.ts";
import { lastingPort } from "./wire.ts";

/** Time within which everything has to work again, ms: ten seconds are promised, and a loaded machine has twice that. */
export const RECOVERY_MS = 20_000;

/** The master key of every replica that a test file starts, also where they follow each other on one database. */
const KEY = testMasterKey();

/** What is said when all is well. */
export const WELL = ["grpc OK", "rest OK"] as const;

/** Lanes of the load. */
const LANES = 8;

/** What may be said while the database is away: that it is, that many wait for it already, and of a repeated write that its first attempt is under way. */
const AWAY: readonly string[] = ["rest OK", "grpc OK", "rest 503 service_error", "rest 503 repository_error", "grpc UNAVAILABLE", "rest 429 service_error", "grpc RESOURCE_EXHAUSTED", "rest 409 conflict"];

/** What may be said besides where nobody says that the database is away, so that calls wait for it until their time is over. */
export const LATE: readonly string[] = ["rest 504 service_error", "grpc DEADLINE_EXCEEDED"];

/** Migrates the database of a server of a test's own. */
export const migrated = ({ urls }: Pick<Node, "urls">): Promise<string[]> => migrate({ url: urls.ownerUrl, applicationRole: "credentials_app" });

/** Starts a server of a test file's own, with the schema in it; its data goes with it. */
export async function migratedNode(): Promise<Node> {
  const folder = mkdtempSync(join(tmpdir(), "flow-node-"));
  chmodSync(folder, 0o711);
  const node = await startNode(folder);
  await migrated(node);
  const end = node[Symbol.asyncDispose].bind(node);
  return Object.assign(node, {
    async [Symbol.asyncDispose]() {
      await end();
      rmSync(folder, { recursive: true, force: true });
    },
  });
}

/** URL of the application role at `host:port`, as it is behind a proxy. */
export const through = (target: string): string => `postgresql://credentials_app@${target}/flow_credentials`;

/** Replicas on addresses that they keep, and calls to them without a pause. */
export interface Replicas extends AsyncDisposable {
  readonly load: Load;
  /** Those that run. */
  readonly running: readonly Service[];
  /** Kills one, and starts it again at its address. */
  kill(index: number): Promise<void>;
  /** Takes one out of the load, stops it, and starts another program in its place; the same where none is given. */
  replace(index: number, main?: string): Promise<void>;
  /** Whether a replica says that it can serve. */
  ready(): Promise<boolean[]>;
  /** Waits until every replica says so and nothing but answers comes back any more. Rejects where that takes longer than it may. */
  recovered(): Promise<void>;
  /**
   * Ends the load, and gives everything that is not as it must be: wrong answers, outcomes that are neither success nor that the
   * database is away, what was acknowledged and is lost, invariants that do not hold, secrets in what the replicas have printed.
   */
  faults(run: Run, besides?: readonly string[]): Promise<string[]>;
}

/** Starts some on a database, of this code or of another program; who migrates is somebody else. */
export async function startReplicas(size: number, databaseUrl: string, extra: Record<string, string> = {}, program?: string): Promise<Replicas> {
  const base = serviceEnv(undefined, {
    CREDENTIALS_DATABASE_URL: databaseUrl,
    CREDENTIALS_MASTER_KEYS: KEY.setting,
    CREDENTIALS_PRIMARY_KEY_ID: KEY.id,
    CREDENTIALS_RATE_WRITES_PER_CALLER: "100000",
    CREDENTIALS_RATE_WRITES_PER_ORGANIZATION: "100000",
    ...extra,
  });
  const envs = await Promise.all(Array.from({ length: size }, async () => ({ ...base, CREDENTIALS_GRPC_LISTEN: `127.0.0.1:${await lastingPort()}`, CREDENTIALS_REST_LISTEN: `127.0.0.1:${await lastingPort()}` })));
  const services: (Service | undefined)[] = await Promise.all(envs.map((env) => startService(env, program)));
  const ended: Service[] = [];
  const running = () => services.filter((service) => service !== undefined);
  const load = await startLoad({ replicas: running, targets: envs.map((env) => env.CREDENTIALS_GRPC_LISTEN), lanes: LANES });
  const restart = async (index: number, main: string | undefined) => {
    ended.push(services[index] as Service);
    services[index] = undefined;
    services[index] = await startService(envs[index] as Record<string, string>, main);
  };
  const ready = () => Promise.all(running().map(async (service) => (await rest(service, "GET", "/readyz")).status === 200));
  return {
    load,
    get running() {
      return running();
    },
    async kill(index) {
      const service = services[index] as Service;
      await service.stop("SIGKILL");
      await restart(index, program);
    },
    async replace(index, main = program) {
      const service = services[index] as Service;
      services[index] = undefined;
      if ((await service.stop()) !== 0) throw new Error(`a replica did not stop in order: ${service.output()}`);
      services[index] = service;
      await restart(index, main);
    },
    ready,
    recovered: () =>
      vi.waitFor(async () => {
        const [states, outcomes] = await Promise.all([ready(), load.until(50, RECOVERY_MS)]);
        if (states.includes(false) || outcomes.join() !== WELL.join()) throw new Error(`not recovered: ready ${states.join()}, ${outcomes.join()}`);
      }, { timeout: RECOVERY_MS, interval: 100 }),
    async faults(run, besides = []) {
      await load.stop();
      const strange = [...load.outcomes].filter((outcome) => ![...AWAY, ...besides].includes(outcome));
      const printed = [...ended, ...running()].some((service) => service.output().includes(load.canary));
      const [losses, broken] = [await load.losses(run), await invariantFaults(run, load.organizationId)];
      return [...load.wrong, ...strange, ...losses, ...broken, ...(printed ? ["a secret was printed"] : [])];
    },
    async [Symbol.asyncDispose]() {
      await load[Symbol.asyncDispose]();
      await Promise.all(running().map((service) => service.stop()));
    },
  };
}
