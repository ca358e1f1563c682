import { vi } from "vitest";
import { migrate } from "../../src/store/migrate.ts";
import { type Load, startLoad } from "./load.ts";
import { rest, serviceEnv, type Service, startService } from "./service.ts";
import type { Node } from "./standby.ts";
import { freePort } from "./wire.ts";

/** Time within which everything has to work again, ms: ten seconds are promised, and a loaded machine has twice that. */
export const RECOVERY_MS = 20_000;

/** Lanes of the load. */
const LANES = 8;

/** What may be said while the database is away: that it is, that many wait for it already, and of a repeated write that its first attempt is under way. */
export const AWAY = ["rest OK", "grpc OK", "rest 503 service_error", "rest 503 repository_error", "grpc UNAVAILABLE", "rest 429 service_error", "grpc RESOURCE_EXHAUSTED", "rest 409 conflict"] as const;

/** Migrates the database of a server of a test's own. */
export const migrated = ({ urls }: Pick<Node, "urls">): Promise<string[]> => migrate({ url: urls.ownerUrl, applicationRole: "credentials_app" });

/** URL of the application role at `host:port`, as it is behind a proxy. */
export const through = (target: string): string => `postgresql://credentials_app@${target}/flow_credentials`;

/** Replicas on addresses that they keep, and calls to them without a pause. */
export interface Replicas extends AsyncDisposable {
  readonly load: Load;
  /** Those that run. */
  readonly running: readonly Service[];
  /** Kills one, and starts it again at its address. */
  bounce(index: number): Promise<void>;
  /** Whether a replica says that it can serve. */
  ready(): Promise<boolean[]>;
  /** Waits until every replica says so and calls are answered. */
  recovered(): Promise<void>;
  /** Everything that the replicas have printed. */
  output(): string;
}

/** Starts some on a database; who migrates is somebody else. */
export async function startReplicas(size: number, databaseUrl: string, extra: Record<string, string> = {}): Promise<Replicas> {
  const base = serviceEnv(undefined, {
    CREDENTIALS_DATABASE_URL: databaseUrl,
    CREDENTIALS_RATE_WRITES_PER_CALLER: "100000",
    CREDENTIALS_RATE_WRITES_PER_ORGANIZATION: "100000",
    ...extra,
  });
  const envs = await Promise.all(Array.from({ length: size }, async () => ({ ...base, CREDENTIALS_GRPC_LISTEN: `127.0.0.1:${await freePort()}`, CREDENTIALS_REST_LISTEN: `127.0.0.1:${await freePort()}` })));
  const services: (Service | undefined)[] = await Promise.all(envs.map((env) => startService(env)));
  const ended: Service[] = [];
  const running = () => services.filter((service) => service !== undefined);
  const load = await startLoad({ replicas: running, targets: envs.map((env) => env.CREDENTIALS_GRPC_LISTEN), lanes: LANES });
  const ready = () => Promise.all(running().map(async (service) => (await rest(service, "GET", "/readyz")).status === 200));
  return {
    load,
    get running() {
      return running();
    },
    async bounce(index) {
      const service = services[index] as Service;
      await service.stop("SIGKILL");
      services[index] = undefined;
      ended.push(service);
      services[index] = await startService(envs[index] as Record<string, string>);
    },
    ready,
    async recovered() {
      await vi.waitFor(async () => {
        if ((await ready()).includes(false)) throw new Error("a replica is not ready");
      }, { timeout: RECOVERY_MS, interval: 100 });
      await Promise.race([load.succeeds(200), new Promise((_, reject) => setTimeout(() => reject(new Error(`no recovery: ${JSON.stringify([...load.outcomes])}`)), RECOVERY_MS).unref())]);
    },
    output: () => [...ended, ...running()].map((service) => service.output()).join("\n"),
    async [Symbol.asyncDispose]() {
      await load[Symbol.asyncDispose]();
      await Promise.all(running().map((service) => service.stop()));
    },
  };
}
