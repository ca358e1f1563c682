import { once } from "node:events";
import { firstSteps, printed } from "./announce.ts";
import { type App, createApp } from "./app.ts";
import { AuthSetupError } from "./auth/setup-error.ts";
import { type Config, ConfigError, loadConfig } from "./config.ts";
import { KeyringError } from "./crypto/keyring.ts";
import { WebhookSecretError } from "./crypto/webhook-signature.ts";
import { EgressSetupError } from "./egress/error.ts";
import { ListenError } from "./grpc/server.ts";
import { errorFields } from "./log.ts";
import { guardProcess, refuseInspection, stopRequest } from "./process.ts";
import { StoreSetupError } from "./store/errors.ts";
import { KeyCheckError } from "./vault/keys.ts";

/** Errors whose message is written for operators and holds no secret. */
const FOR_OPERATORS = [ConfigError, AuthSetupError, KeyringError, KeyCheckError, StoreSetupError, ListenError, EgressSetupError, WebhookSecretError];

/** One line for the operator about why the service cannot run. */
export function startFailure(error: unknown): string {
  if (error instanceof Error && FOR_OPERATORS.some((kind) => error instanceof kind)) return error.message;
  const { error_name, error_code } = errorFields(error);
  return `cannot start: ${error_name}${error_code === undefined ? "" : ` ${error_code}`}`;
}

/**
 * Runs the service until SIGTERM or SIGINT, also while it starts, then stops it cleanly; a second signal ends it at once.
 * Sets a non-zero exit code, and says why in one line on standard error, where it cannot start.
 */
export async function serve(env: Readonly<Record<string, string | undefined>>): Promise<void> {
  guardProcess();
  using stop = stopRequest();
  let ready = false;
  try {
    const config = loadConfig(env);
    if (config.settings.profile === "production") refuseInspection(env);
    await using app = await createApp(config, { signal: stop.signal });
    // Files are read again; the environment of a process does not change.
    const reload = () => void app.reload(() => loadConfig(env));
    process.on("SIGHUP", reload);
    using _ = { [Symbol.dispose]: () => void process.off("SIGHUP", reload) };
    await announce(app, config);
    ready = true;
    if (!stop.signal.aborted) await once(stop.signal, "abort");
  } catch (error) {
    if (stop.signal.aborted && !ready) return;
    process.stderr.write(`flow-credentials: ${startFailure(error)}\n`);
    process.exitCode = 1;
  }
}

async function announce(app: App, config: Config): Promise<void> {
  const addresses = [app.grpc && `grpc=${printed(app.grpc)}`, app.rest && `rest=${printed(app.rest)}`, app.ops && `ops=${printed(app.ops)}`].filter(Boolean).join(" ");
  process.stdout.write(`ready ${addresses}\n`);
  const development = config.settings.profile === "development" && !config.secrets.jwtPublicKey && config.settings.jwtJwksUrl === undefined;
  if (development && app.grpc && app.rest) process.stdout.write(await firstSteps(config, app.grpc, app.rest));
}
