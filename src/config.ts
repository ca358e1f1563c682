import { readFileSync } from "node:fs";
import { plainAddress, Redirects } from "./domain/redirects.ts";
import { secret, type Secret } from "./domain/secret.ts";
import { type CamelCase, type SecretName, SETTINGS, type SettingName, type SettingValue } from "./settings.ts";

export type { Address } from "./settings.ts";

const PREFIX = "CREDENTIALS_";

/** Settings as written, by property. */
type Written = { readonly [N in Exclude<SettingName, SecretName> as CamelCase<N>]: SettingValue<N> };

/** Everything that may be printed, by property: `settings.grpcListen`; defaults that depend on the profile filled in. */
export type Settings = Omit<Written, "grpcReflection"> & { readonly grpcReflection: boolean };

/** Everything that may not, by property: `secrets.jwtSecret`; each refuses to print. */
export type Secrets = { readonly [N in SecretName as CamelCase<N>]: Secret<string> | undefined };

/** The configuration of one process, parsed once and frozen. */
export interface Config {
  readonly settings: Settings;
  readonly secrets: Secrets;
}

/** A fault of the configuration. Its message names settings and rules, never a value. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

const camel = (name: string): string => name.toLowerCase().replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** The text of a secret, from the environment or from the file that `…_FILE` names. */
function secretText(env: Readonly<Record<string, string | undefined>>, name: string): string | undefined {
  const [value, file] = [env[name], env[`${name}_FILE`]];
  if (value !== undefined && file !== undefined) throw new ConfigError(`${name} and ${name}_FILE are both set; give one`);
  if (file === undefined) return value;
  let text: string;
  try {
    text = readFileSync(file, "utf8").trim();
  } catch (error) {
    throw new ConfigError(`${name}_FILE cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
  if (text === "") throw new ConfigError(`the file that ${name}_FILE names is empty`);
  return text;
}

function known(variable: string): boolean {
  const name = variable.slice(PREFIX.length);
  const owner = name.endsWith("_FILE") ? name.slice(0, -"_FILE".length) : "";
  return Object.hasOwn(SETTINGS, name) || (Object.hasOwn(SETTINGS, owner) && "secret" in SETTINGS[owner as SettingName]);
}

/**
 * Reads the configuration from an environment. A name with our prefix that is not a setting, an empty value, and a
 * value that does not parse are errors that name the setting and the rule.
 */
export function loadConfig(env: Readonly<Record<string, string | undefined>>): Config {
  for (const [variable, value] of Object.entries(env)) {
    if (!variable.startsWith(PREFIX) || value === undefined) continue;
    if (!known(variable)) throw new ConfigError(`${variable} is not a setting`);
    if (value.trim() === "") throw new ConfigError(`${variable} is present but empty`);
  }
  const settings: Record<string, unknown> = {};
  const secrets: Record<string, Secret<string> | undefined> = {};
  for (const [name, setting] of Object.entries(SETTINGS)) {
    const variable = PREFIX + name;
    if ("secret" in setting) {
      const text = secretText(env, variable);
      secrets[camel(name)] = text === undefined ? undefined : secret(text);
      continue;
    }
    const text = env[variable] ?? ("default" in setting ? setting.default : undefined);
    if (text === undefined) {
      settings[camel(name)] = undefined;
      continue;
    }
    const parsed = setting.schema.safeParse(text);
    if (!parsed.success) throw new ConfigError(`${variable} ${parsed.error.issues[0]?.message ?? "is invalid"}`);
    settings[camel(name)] = parsed.data;
  }
  const written = { settings: settings as Written, secrets: Object.freeze(secrets) as Secrets };
  return Object.freeze({ settings: withProfile(written), secrets: written.secrets });
}

/** Defaults and refusals that depend on the profile. */
function withProfile({ settings, secrets }: { settings: Written; secrets: Secrets }): Settings {
  const production = settings.profile === "production";
  if (settings.jwtJwksUrl !== undefined && (secrets.jwtSecret || secrets.jwtPublicKey)) throw new ConfigError("CREDENTIALS_JWT_JWKS_URL goes without CREDENTIALS_JWT_SECRET and CREDENTIALS_JWT_PUBLIC_KEY; give one");
  if (production && settings.jwtJwksUrl?.startsWith("https:") === false) throw new ConfigError("CREDENTIALS_JWT_JWKS_URL must be https in production");
  if (secrets.jwtSecret && secrets.jwtPublicKey) throw new ConfigError("CREDENTIALS_JWT_SECRET and CREDENTIALS_JWT_PUBLIC_KEY are both set; give one");
  if (secrets.masterKeys && settings.primaryKeyId === undefined) throw new ConfigError("CREDENTIALS_PRIMARY_KEY_ID is required beside CREDENTIALS_MASTER_KEYS");
  if (!secrets.masterKeys && !settings.kms && settings.primaryKeyId !== undefined) throw new ConfigError("CREDENTIALS_PRIMARY_KEY_ID is given without CREDENTIALS_MASTER_KEYS");
  checkKeyService({ settings, secrets });
  if ((settings.tlsCertFile === undefined) !== (settings.tlsKeyFile === undefined)) throw new ConfigError("CREDENTIALS_TLS_CERT_FILE and CREDENTIALS_TLS_KEY_FILE go together");
  if (settings.tlsClientCaFile !== undefined && settings.tlsCertFile === undefined) throw new ConfigError("CREDENTIALS_TLS_CLIENT_CA_FILE needs CREDENTIALS_TLS_CERT_FILE");
  if (!settings.roles.includes("grpc") && settings.grpcTarget === undefined) throw new ConfigError("CREDENTIALS_GRPC_TARGET is required where rest runs alone");
  if (settings.roles.includes("grpc") && settings.grpcTarget !== undefined) throw new ConfigError("CREDENTIALS_GRPC_TARGET is only for a process that serves rest alone");
  if (secrets.databaseMigrationUrl && !secrets.databaseUrl) throw new ConfigError("CREDENTIALS_DATABASE_MIGRATION_URL is given without CREDENTIALS_DATABASE_URL");
  if (settings.restMaxBodyBytes > settings.grpcMaxMessageBytes) throw new ConfigError("CREDENTIALS_REST_MAX_BODY_BYTES must not be above CREDENTIALS_GRPC_MAX_MESSAGE_BYTES");
  if (settings.restHeadersTimeoutMs > settings.restRequestTimeoutMs) throw new ConfigError("CREDENTIALS_REST_HEADERS_TIMEOUT_MS must not be above CREDENTIALS_REST_REQUEST_TIMEOUT_MS");
  if (settings.refreshProviderDeadlineMs * 2 > settings.refreshLeaseMs) throw new ConfigError("CREDENTIALS_REFRESH_LEASE_MS must be at least twice CREDENTIALS_REFRESH_PROVIDER_DEADLINE_MS");
  if (secrets.otlpHeaders && settings.otlpEndpoint === undefined) throw new ConfigError("CREDENTIALS_OTLP_HEADERS is given without CREDENTIALS_OTLP_ENDPOINT");
  if ((settings.webhookUrl === undefined) !== (secrets.webhookSecret === undefined)) throw new ConfigError("CREDENTIALS_WEBHOOK_URL and CREDENTIALS_WEBHOOK_SECRET go together");
  checkAuthorization(settings);
  if (production) refuseDevelopment({ settings, secrets });
  return Object.freeze({
    ...settings,
    grpcReflection: settings.grpcReflection ?? !production,
    jwtOperatorAudience: settings.jwtOperatorAudience ?? (production ? undefined : "flow-credentials-operator"),
  });
}

/** Addresses that codes and browsers travel to. */
function checkAuthorization({ profile, publicUrl, oauthRedirects, googleClientId, microsoftClientId }: Written): void {
  const production = profile === "production";
  if (publicUrl !== undefined) {
    const url = plainAddress(publicUrl);
    if (!url || publicUrl.includes("?")) throw new ConfigError("CREDENTIALS_PUBLIC_URL must be an https URL, or http on loopback, in its normal form, without user, query and fragment");
    if (production && url.protocol !== "https:") throw new ConfigError("CREDENTIALS_PUBLIC_URL must be https in production");
  }
  if (production && publicUrl === undefined && (googleClientId !== undefined || microsoftClientId !== undefined)) throw new ConfigError("CREDENTIALS_PUBLIC_URL is required in production beside an OAuth client");
  try {
    new Redirects(oauthRedirects);
  } catch (error) {
    throw new ConfigError(`CREDENTIALS_OAUTH_REDIRECTS: ${(error as TypeError).message}`);
  }
}

/** One source of master keys, and a key service with everything it needs. */
function checkKeyService({ settings, secrets }: { settings: Written; secrets: Secrets }): void {
  const { kms, kmsKeys, kmsTransitUrl, kmsAwsRegion, kmsAwsAccessKeyId } = settings;
  if (kms === undefined) {
    if (kmsKeys !== undefined) throw new ConfigError("CREDENTIALS_KMS_KEYS is given without CREDENTIALS_KMS");
    if (secrets.kmsFormerMasterKeys) throw new ConfigError("CREDENTIALS_KMS_FORMER_MASTER_KEYS is given without CREDENTIALS_KMS");
    return;
  }
  if (secrets.masterKeys) throw new ConfigError("CREDENTIALS_MASTER_KEYS and CREDENTIALS_KMS are both set; give one");
  if (kmsKeys === undefined) throw new ConfigError("CREDENTIALS_KMS_KEYS is required beside CREDENTIALS_KMS");
  if (settings.primaryKeyId === undefined) throw new ConfigError("CREDENTIALS_PRIMARY_KEY_ID is required beside CREDENTIALS_KMS_KEYS");
  if (kms === "transit") {
    if (kmsTransitUrl === undefined || !secrets.kmsTransitToken) throw new ConfigError("CREDENTIALS_KMS_TRANSIT_URL and CREDENTIALS_KMS_TRANSIT_TOKEN are required beside CREDENTIALS_KMS=transit");
    refusePlainService("CREDENTIALS_KMS_TRANSIT_URL", kmsTransitUrl, settings.profile);
  } else {
    if (kmsAwsRegion === undefined) throw new ConfigError("CREDENTIALS_KMS_AWS_REGION is required beside CREDENTIALS_KMS=aws");
    if ((kmsAwsAccessKeyId === undefined) !== (secrets.kmsAwsSecretAccessKey === undefined)) throw new ConfigError("CREDENTIALS_KMS_AWS_ACCESS_KEY_ID and CREDENTIALS_KMS_AWS_SECRET_ACCESS_KEY go together");
    if (settings.kmsAwsEndpoint !== undefined) refusePlainService("CREDENTIALS_KMS_AWS_ENDPOINT", settings.kmsAwsEndpoint, settings.profile);
  }
}

function refusePlainService(setting: string, text: string, profile: Written["profile"]): void {
  const { protocol, hostname } = new URL(text);
  if (profile === "production" && protocol !== "https:" && !isLoopback(hostname.replace(/^\[|\]$/g, ""))) throw new ConfigError(`${setting} must be https in production`);
}

/** Whether a host, as it is written in a setting, is this machine. */
export const isLoopback = (host: string): boolean => /^(127(\.\d{1,3}){3}|::1|localhost)$/.test(host);

function refuseDevelopment({ settings, secrets }: { settings: Written; secrets: Secrets }): void {
  const serves = settings.roles.includes("grpc");
  if (settings.failpoints !== undefined) throw new ConfigError("CREDENTIALS_FAILPOINTS is for the development profile only");
  if (settings.webhookUrl?.startsWith("http:")) throw new ConfigError("CREDENTIALS_WEBHOOK_URL must be https in production");
  if (serves && !secrets.databaseUrl) throw new ConfigError("CREDENTIALS_DATABASE_URL is required in production");
  const target = settings.grpcTarget;
  const near = target === undefined || target.startsWith("unix:") || isLoopback(target.replace(/:\d+$/, "").replace(/^\[|\]$/g, ""));
  if (!near && settings.grpcTargetCaFile === undefined) throw new ConfigError("CREDENTIALS_GRPC_TARGET is another machine; production needs CREDENTIALS_GRPC_TARGET_CA_FILE for it");
  if (settings.tlsCertFile !== undefined) return;
  if (serves && !isLoopback(settings.grpcListen.host)) throw new ConfigError("CREDENTIALS_GRPC_LISTEN is a public address; production needs CREDENTIALS_TLS_CERT_FILE for it");
  if (settings.roles.includes("rest") && !isLoopback(settings.restListen.host)) throw new ConfigError("CREDENTIALS_REST_LISTEN is a public address; production needs CREDENTIALS_TLS_CERT_FILE for it");
}
