import { developmentJwtSecret, signDevelopmentToken } from "../auth/development.ts";
import type { Config } from "../config.ts";
import { loadConfig } from "../config.ts";
import { CliError } from "./failure.ts";

/** Whom a development token stands for. */
export type Holder =
  | { readonly kind: "user" | "service_account"; readonly id: string; readonly organizationId: string; readonly role?: string | undefined }
  | { readonly kind: "operator"; readonly id: string; readonly organizationId: null };

/** The name under which the command line acts as an operator. */
export const OPERATOR: Holder = { kind: "operator", id: "development-operator", organizationId: null };

/** The configuration, where its profile is development; `what` begins the refusal otherwise. */
export function developmentConfig(env: Readonly<Record<string, string | undefined>>, what: string): Config {
  // Asked before the rest is read: a production configuration need not be complete on an operator's machine.
  if (env["CREDENTIALS_PROFILE"] === "production") throw new CliError(`${what} only in the development profile`);
  return loadConfig(env);
}

/** A token that the service of the same configuration accepts. Makes the secret in the data directory where there is none. */
export async function developmentToken({ settings, secrets }: Config, holder: Holder, expiresInSeconds: number): Promise<string> {
  if (settings.jwtJwksUrl !== undefined) throw new CliError("CREDENTIALS_JWT_JWKS_URL is set: only the owner of its private keys can make tokens");
  if (secrets.jwtPublicKey) throw new CliError("CREDENTIALS_JWT_PUBLIC_KEY is set: only the owner of its private key can make tokens");
  const audience = holder.kind === "operator" ? settings.jwtOperatorAudience : settings.jwtAudience;
  if (audience === undefined) throw new CliError("CREDENTIALS_JWT_OPERATOR_AUDIENCE is not set");
  return signDevelopmentToken({
    secret: secrets.jwtSecret ?? developmentJwtSecret(settings.dataDir),
    issuer: settings.jwtIssuer,
    audience,
    subject: holder.id,
    organizationId: holder.organizationId,
    kind: holder.kind,
    role: "role" in holder ? holder.role : undefined,
    claims: { organization: settings.jwtClaimOrganization, kind: settings.jwtClaimKind, role: settings.jwtClaimRole },
    expiresInSeconds,
  });
}
