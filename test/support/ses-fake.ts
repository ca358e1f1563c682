import { createHash, createHmac } from "node:crypto";
import { type Answer, type Asked, fakeApi } from "./oauth-api-fake.ts";

/** An access key that the fake knows. */
export interface KnownKey {
  readonly secret: string;
  readonly sessionToken?: string;
}

/** What GetAccount says of an account in good standing. */
export const GOOD_ACCOUNT = {
  DedicatedIpAutoWarmupEnabled: false,
  EnforcementStatus: "HEALTHY",
  ProductionAccessEnabled: true,
  SendQuota: { Max24HourSend: 50_000, MaxSendRate: 14, SentLast24Hours: 12.5 },
  SendingEnabled: true,
};

/** An answer of AWS with a name for an error: in the header as the REST services have it. */
export const refusal = (status: number, name: string, message = "canary words of AWS"): Answer => ({
  status,
  headers: { "x-amzn-errortype": `${name}:http://internal.amazon.com/coral/com.amazonaws.ses/` },
  body: { message },
});

/** SESv2 as far as GetAccount: verifies the signature of each request (AWS Signature Version 4), then answers. */
export const sesApi = (keys: Readonly<Record<string, KnownKey>>, answer: (asked: Asked) => Answer | null = () => ({ status: 200, body: GOOD_ACCOUNT })) =>
  fakeApi((asked) => signatureFault(asked, keys, { service: "ses", hostOf: (region) => `email.${region}.` }) ?? (asked.path === "/v2/email/account" && asked.method === "GET" ? answer(asked) : refusal(404, "UnknownOperationException")));

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
const hmac = (key: string | Buffer, text: string): Buffer => createHmac("sha256", key).update(text).digest();

const AUTHORIZATION = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([a-z0-9-]+)\/([a-z0-9-]+)\/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$/;
const MINUTES_OF_SKEW = 15;

/** Why AWS would not let a request in; null where it would. The host of a region begins with what `hostOf` gives. */
export function signatureFault(
  { method, host, path, headers, body }: Asked,
  keys: Readonly<Record<string, KnownKey>>,
  endpoint: { readonly service: string; readonly hostOf: (region: string) => string },
): Answer | null {
  const text = (name: string): string => String(headers[name] ?? "").trim().replace(/ +/g, " ");
  const [, id = "", day = "", region = "", service = "", signed = "", signature = ""] = AUTHORIZATION.exec(text("authorization")) ?? [];
  if (id === "") return refusal(403, "MissingAuthenticationTokenException");
  const key = Object.hasOwn(keys, id) ? keys[id] : undefined;
  if (key === undefined || text("x-amz-security-token") !== (key.sessionToken ?? "")) return refusal(403, "UnrecognizedClientException");
  const names = signed.split(";");
  const demanded = ["host", ...Object.keys(headers).filter((name) => name.startsWith("x-amz-"))];
  if (demanded.some((name) => !names.includes(name)) || [...names].sort().join(";") !== signed) return refusal(403, "InvalidSignatureException", "unsigned headers");
  if (service !== endpoint.service || !host.startsWith(endpoint.hostOf(region))) return refusal(403, "InvalidSignatureException", "Credential should be scoped to a valid region.");
  const time = text("x-amz-date");
  const at = Date.parse(time.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"));
  if (!time.startsWith(day) || !(Math.abs(at - Date.now()) < MINUTES_OF_SKEW * 60_000)) return refusal(403, "InvalidSignatureException", `Signature expired: ${time}`);
  const [place = "", query = ""] = path.split("?");
  const canonical = [method, place, query, ...names.map((name) => `${name}:${text(name)}`), "", signed, sha256(body)].join("\n");
  const scope = `${day}/${region}/${service}/aws4_request`;
  const signingKey = scope.split("/").reduce<string | Buffer>(hmac, `AWS4${key.secret}`);
  const expected = hmac(signingKey, ["AWS4-HMAC-SHA256", time, scope, sha256(canonical)].join("\n")).toString("hex");
  return expected === signature ? null : refusal(403, "InvalidSignatureException", "The request signature we calculated does not match");
}
