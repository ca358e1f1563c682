import { developmentJwtSecret, signDevelopmentToken } from "./auth/development.ts";
import type { Address, Config } from "./config.ts";

/** An address as a URL or a command line takes it. */
export const printed = ({ host, port }: Address): string => `${host.includes(":") ? `[${host}]` : host}:${port}`;

/** Who the printed development token stands for. */
const USER = "11111111-1111-4111-8111-111111111111";
const ORGANIZATION = "22222222-2222-4222-8222-222222222222";

/** How long the printed development token works, s. */
const TOKEN_SECONDS = 86_400;

/** What to paste first: a `curl` that creates a credential, and a `buf curl` that lists the services. Development only. */
export async function firstSteps({ settings, secrets }: Config, grpc: Address, rest: Address): Promise<string> {
  const token = await signDevelopmentToken({
    secret: secrets.jwtSecret ?? developmentJwtSecret(settings.dataDir),
    issuer: settings.jwtIssuer,
    audience: settings.jwtAudience,
    subject: USER,
    organizationId: ORGANIZATION,
    kind: "user",
    claims: { organization: settings.jwtClaimOrganization, kind: settings.jwtClaimKind },
    expiresInSeconds: TOKEN_SECONDS,
  });
  const scheme = settings.tlsCertFile === undefined ? "http" : "https";
  const body = JSON.stringify({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "demo", password: "demo" } });
  return [
    "",
    "Create a credential:",
    `  curl -i ${scheme}://${printed(rest)}/integrations/credentials -H 'content-type: application/json' \\`,
    `    -H 'authorization: Bearer ${token}' \\`,
    `    -d '${body}'`,
    "",
    "List the gRPC services:",
    `  npx buf curl --protocol grpc --http2-prior-knowledge --list-services ${scheme}://${printed(grpc)}`,
    "",
  ].join("\n");
}
