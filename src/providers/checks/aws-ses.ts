import { Readable } from "node:stream";
import type { GetAccountCommandOutput } from "@aws-sdk/client-sesv2";
import { type CheckIo, type CheckResult, DialError } from "../../domain/check.ts";
import { refusalReason } from "./aws-refusals.ts";
import { asObject, type Inquired, inquire } from "./inquiry.ts";
import type { Pass } from "./passes.ts";
import { CheckFailure } from "./trial.ts";

/** An access key, and the region in which it sends. */
export interface AwsKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Empty for a key that is not of a session. */
  readonly sessionToken: string;
  /** Has the form of a region. */
  readonly region: string;
}

/** Domains of the partitions that can be reached from the internet, by how their regions begin. All other regions are in the first partition. */
const PARTITIONS: readonly (readonly [string, string])[] = [
  ["cn-", "amazonaws.com.cn"],
  ["eusc-", "amazonaws.eu"],
  ["", "amazonaws.com"],
];

/** Largest answer that the SDK gets to read, bytes; GetAccount's take about a thousand. */
const MAX_ANSWER_BYTES = 65_536;

/** Where SES's API of a region is. */
function endpointOf(region: string): string {
  const domain = PARTITIONS.find(([start]) => region.startsWith(start))?.[1] ?? "";
  return `https://email.${region}.${domain}`;
}

/** Asks Amazon SES for the state of the key's account, which sends nothing and changes nothing. Never throws. */
export async function checkAwsSes(key: AwsKey, io: CheckIo): Promise<CheckResult> {
  return inquire(io, async () => {
    if (!/^\w{16,128}$/.test(key.accessKeyId) || /[^\x21-\x7e]/.test(key.secretAccessKey + key.sessionToken)) throw new CheckFailure("aws_key_malformed");
    try {
      return stateOf(await accountOf(key, io));
    } catch (error) {
      if (error instanceof DialError && error.reason === "name_not_found") throw new CheckFailure("ses_region_unknown");
      if (error instanceof DialError || error instanceof CheckFailure) throw error;
      const reason = refusalReason(error, key);
      if (reason !== "permission_limited") throw new CheckFailure(reason);
      return { pass: "aws_state_unknown", details: { permission_limited: true } };
    }
  });
}

/** Everything that the SDK would look for in the environment, in files or at a metadata service is given. */
async function accountOf({ accessKeyId, secretAccessKey, sessionToken, region }: AwsKey, io: CheckIo): Promise<GetAccountCommandOutput> {
  // It takes tens of megabytes, which only this test needs.
  const { GetAccountCommand, SESv2Client } = await import("@aws-sdk/client-sesv2");
  let lost: unknown;
  const client = new SESv2Client({
    region,
    endpoint: endpointOf(region),
    credentials: { accessKeyId, secretAccessKey, ...(sessionToken === "" ? {} : { sessionToken }) },
    maxAttempts: 1,
    retryMode: "standard",
    defaultsMode: "standard",
    useDualstackEndpoint: false,
    useFipsEndpoint: false,
    authSchemePreference: ["sigv4"],
    sigv4aSigningRegionSet: () => Promise.resolve([]),
    userAgentAppId: () => Promise.resolve(undefined),
    // The SDK's own names the operating system and its version.
    defaultUserAgentProvider: () => Promise.resolve([["flow-credentials"]]),
    requestHandler: {
      handle: async (request: SignedRequest) => {
        try {
          return { response: await carried(request, io) };
        } catch (error) {
          lost = error;
          throw error;
        }
      },
    },
  });
  try {
    return await client.send(new GetAccountCommand({}));
  } catch (error) {
    throw lost ?? error;
  }
}

/** A request of the SDK, as far as it is carried on. */
interface SignedRequest {
  readonly hostname: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Sends a signed request through the guard. GetAccount has neither query nor body; the host is set by who connects. */
async function carried({ hostname, path, headers }: SignedRequest, io: CheckIo) {
  const { host: _, ...rest } = headers;
  const answer = await io.request({ method: "GET", url: `https://${hostname}${path}`, headers: rest });
  if (answer.body.length > MAX_ANSWER_BYTES) throw new CheckFailure("api_answer_unreadable");
  return { statusCode: answer.status, headers: { ...answer.headers }, body: Readable.from([answer.body]) };
}

const ENFORCEMENT = ["HEALTHY", "PROBATION", "SHUTDOWN"] as const;

/** What an account may do. The SDK does not check what it parses. */
function stateOf(account: unknown): Inquired {
  const { ProductionAccessEnabled: production, SendingEnabled: sending, EnforcementStatus: status, SendQuota: quota } = asObject(account) ?? {};
  if (typeof production !== "boolean" || typeof sending !== "boolean") throw new CheckFailure("api_answer_unreadable");
  const { Max24HourSend: most, SentLast24Hours: sent } = asObject(quota) ?? {};
  const enforcement = ENFORCEMENT.find((known) => known === status);
  const details = {
    permission_limited: false,
    sandbox: !production,
    sending_enabled: sending,
    ...(enforcement === undefined ? {} : { enforcement_status: enforcement.toLowerCase() }),
    ...(typeof most === "number" && Number.isFinite(most) ? { max_24_hour_send: most } : {}),
    ...(typeof sent === "number" && Number.isFinite(sent) ? { sent_last_24_hours: sent } : {}),
  };
  return { pass: passOf(production, sending), details };
}

function passOf(production: boolean, sending: boolean): Pass {
  if (!sending) return "aws_sending_paused";
  return production ? "aws_works" : "aws_sandbox";
}
