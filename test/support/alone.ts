import { freshDatabase } from "./postgres.ts";
import { serviceEnv, spawnService } from "./service.ts";

/** Starts a process that serves gRPC alone, with its probes on a listener of their own. */
export async function startGrpcAlone(extra: Record<string, string> = {}): Promise<AsyncDisposable & { readonly ops: string; readonly grpc: string; output(): string }> {
  const database = await freshDatabase();
  const { CREDENTIALS_REST_LISTEN: _, ...env } = serviceEnv(database, { CREDENTIALS_ROLES: "grpc", CREDENTIALS_OPS_LISTEN: "127.0.0.1:0", ...extra });
  const { process: child, output, ended } = spawnService(env);
  const ready = new Promise<RegExpExecArray>((resolve) => {
    child.stdout?.on("data", () => {
      const match = /^ready grpc=(\S+) ops=(\S+)$/m.exec(output());
      if (match) resolve(match);
    });
  });
  const first = await Promise.race([ready, ended]);
  if (!Array.isArray(first)) throw new Error(`the service ended with ${String(first)}:\n${output()}`);
  const dispose = async () => {
    child.kill("SIGTERM");
    await ended;
    await database[Symbol.asyncDispose]();
  };
  return { grpc: first[1] ?? "", ops: `http://${first[2] ?? ""}`, output, [Symbol.asyncDispose]: dispose };
}
