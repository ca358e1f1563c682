import { Readable } from "node:stream";
import type { KMSClient } from "@aws-sdk/client-kms";
import type { Secret } from "../../domain/secret.ts";
import { UnreadableError } from "../unreadable.ts";
import type { KeyService, KeyServiceHttp } from "./service.ts";

/** AWS KMS of one account and region. */
export interface AwsKmsOptions {
  readonly region: string;
  /** Another base URL, for private endpoints and for tests. */
  readonly endpoint: string | undefined;
  /** An access key; where absent, what the SDK finds: web identity, container or instance role. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: Secret<string>; readonly sessionToken: Secret<string> | undefined } | undefined;
  readonly http: KeyServiceHttp;
}

/** A request of the SDK, as far as it is carried on. */
interface SignedRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

/** Names under which KMS says that a ciphertext is not its own, not under this key, or not of this context. */
const NOT_AUTHENTIC = ["InvalidCiphertextException", "IncorrectKeyException"];

/** Makes key services for keys of AWS KMS, which share one client. The SDK is loaded with the first request. */
export function awsKms(options: AwsKmsOptions): (keyId: string) => KeyService {
  let client: Promise<KMSClient> | undefined;
  const connected = () => (client ??= open(options));
  return (keyId) => ({
    identity: `aws-kms ${options.region} ${keyId}`,

    ready: connected,

    async wrap(key, { facts }, signal) {
      const { EncryptCommand } = await import("@aws-sdk/client-kms");
      const { CiphertextBlob } = await (await connected()).send(new EncryptCommand({ KeyId: keyId, Plaintext: key, EncryptionContext: { ...facts } }), { abortSignal: signal });
      if (CiphertextBlob === undefined) throw new TypeError("KMS gave no ciphertext");
      return Buffer.from(CiphertextBlob);
    },

    async unwrap(blob, { facts }, signal) {
      const { DecryptCommand } = await import("@aws-sdk/client-kms");
      try {
        const { Plaintext } = await (await connected()).send(new DecryptCommand({ KeyId: keyId, CiphertextBlob: blob, EncryptionContext: { ...facts } }), { abortSignal: signal });
        if (Plaintext === undefined) throw new TypeError("KMS gave no plaintext");
        const key = Buffer.from(Plaintext);
        Plaintext.fill(0);
        return key;
      } catch (error) {
        if (error instanceof Error && NOT_AUTHENTIC.includes(error.name)) throw new UnreadableError("wrapped_key_not_authentic");
        throw error;
      }
    },
  });
}

/** The SDK's bytes warn whoever treats them as text. */
function bytesOf(body: SignedRequest["body"]): Buffer {
  if (body === undefined || typeof body === "string") return Buffer.from(body ?? "");
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength);
}

async function open({ region, endpoint, credentials, http }: AwsKmsOptions): Promise<KMSClient> {
  const sdk = await import("@aws-sdk/client-kms");
  return new sdk.KMSClient({
    region,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(credentials === undefined
      ? {}
      : {
          credentials: async () => ({
            accessKeyId: credentials.accessKeyId,
            secretAccessKey: credentials.secretAccessKey.reveal(),
            ...(credentials.sessionToken === undefined ? {} : { sessionToken: credentials.sessionToken.reveal() }),
          }),
        }),
    // Whoever asks tries again; here it would only use up the time.
    maxAttempts: 1,
    requestHandler: {
      handle: async (request: SignedRequest, { abortSignal }: { abortSignal?: unknown } = {}) => {
        const { host: _, ...headers } = request.headers;
        const port = request.port === undefined ? "" : `:${request.port}`;
        const answer = await http({
          method: "POST",
          url: new URL(`${request.protocol}//${request.hostname}${port}${request.path}`),
          headers,
          body: bytesOf(request.body),
          signal: abortSignal instanceof AbortSignal ? abortSignal : AbortSignal.timeout(30_000),
        });
        return { response: { statusCode: answer.status, headers: { ...answer.headers }, body: Readable.from([answer.body]) } };
      },
    },
  });
}
