import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Answer, Asked } from "./oauth-api-fake.ts";
import { refusal, signatureFault } from "./ses-fake.ts";

/** What is wrong with a fake at the moment. */
export type Trouble = "none" | "throttled" | "hanging" | "forbidden" | "broken" | "short_key";

/** A key service on loopback that does its own encryption, and can be put into trouble. */
export interface FakeKeyService extends AsyncDisposable {
  /** Its base URL. */
  readonly url: string;
  readonly asked: Asked[];
  trouble: Trouble;
  /** Draws a new version of a key; old ciphertexts go on opening. */
  rotate(key: string): void;
  /** Refuses ciphertexts of older versions than the newest. */
  retireOld(key: string): void;
}

/** Versions of the keys of a fake, and which is the oldest that opens. */
class Keys {
  readonly #versions = new Map<string, { readonly keys: Buffer[]; minimum: number }>();

  of(name: string) {
    const known = this.#versions.get(name) ?? { keys: [randomBytes(32)], minimum: 1 };
    this.#versions.set(name, known);
    return known;
  }

  /** `version | iv | ciphertext | tag`, in one piece. */
  encrypt(name: string, plaintext: Buffer, aad: Buffer): { version: number; bytes: Buffer } {
    const { keys } = this.of(name);
    const iv = randomBytes(12);
    const cipher = createCipheriv("aes-256-gcm", keys.at(-1) as Buffer, iv, { authTagLength: 16 }).setAAD(aad);
    return { version: keys.length, bytes: Buffer.concat([iv, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]) };
  }

  decrypt(name: string, version: number, bytes: Buffer, aad: Buffer): Buffer | "too old" | undefined {
    const { keys, minimum } = this.of(name);
    if (version < minimum) return "too old";
    try {
      const decipher = createDecipheriv("aes-256-gcm", keys[version - 1] as Buffer, bytes.subarray(0, 12), { authTagLength: 16 }).setAAD(aad);
      decipher.setAuthTag(bytes.subarray(-16));
      return Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]);
    } catch {
      return undefined;
    }
  }
}

async function serve(answer: (asked: Asked, keys: Keys, service: { trouble: Trouble }) => Answer): Promise<FakeKeyService> {
  const keys = new Keys();
  const asked: Asked[] = [];
  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("end", () => {
      const { method = "", url = "", headers } = incoming;
      const seen = { method, host: headers.host ?? "", path: url, headers, body: Buffer.concat(chunks).toString() };
      asked.push(seen);
      if (service.trouble === "hanging") return;
      const { status, headers: said, body } = answer(seen, keys, service);
      outgoing.writeHead(status, { "content-type": "application/json", ...said });
      outgoing.end(typeof body === "string" ? body : JSON.stringify(body ?? {}));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const service: FakeKeyService = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    trouble: "none",
    rotate: (key) => void keys.of(key).keys.push(randomBytes(32)),
    retireOld: (key) => void (keys.of(key).minimum = keys.of(key).keys.length),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return service;
}

const errors = (status: number, ...said: string[]): Answer => ({ status, body: { errors: said } });
const base64 = (value: unknown): Buffer => Buffer.from(String(value ?? ""), "base64");

/** The Transit engine of OpenBao and Vault, as far as `encrypt` and `decrypt`, with the answers of its documentation. */
export const transitFake = (token: string): Promise<FakeKeyService> =>
  serve(({ method, path, headers, body }, keys, { trouble }) => {
    if (headers["x-vault-token"] !== token || trouble === "forbidden") return errors(403, "permission denied");
    if (trouble === "throttled") return errors(429, "request path \"transit\": rate limit quota exceeded");
    if (trouble === "broken") return errors(503, "Vault is sealed");
    const [, operation, key = ""] = /^\/v1\/transit\/(encrypt|decrypt)\/([\w-]+)$/.exec(path) ?? [];
    if (operation === undefined || (method !== "POST" && method !== "PUT")) return errors(404);
    const request = JSON.parse(body) as Record<string, string>;
    const aad = base64(request["associated_data"]);
    if (operation === "encrypt") {
      const { version, bytes } = keys.encrypt(key, base64(request["plaintext"]), aad);
      return { status: 200, body: { data: { ciphertext: `vault:v${version}:${bytes.toString("base64")}`, key_version: version } } };
    }
    const [, version, text] = /^vault:v(\d+):([A-Za-z0-9+/=]+)$/.exec(request["ciphertext"] ?? "") ?? [];
    if (version === undefined) return errors(400, "invalid ciphertext: no prefix");
    const plaintext = keys.decrypt(key, Number(version), base64(text), aad);
    if (plaintext === "too old") return errors(400, "ciphertext or signature version is disallowed by policy (too old)");
    if (plaintext === undefined) return errors(400, "cipher: message authentication failed");
    return { status: 200, body: { data: { plaintext: (trouble === "short_key" ? plaintext.subarray(0, 16) : plaintext).toString("base64") } } };
  });

/** AWS KMS as far as `Encrypt` and `Decrypt`: verifies the signature of each request (AWS Signature Version 4), then answers. */
export const awsKmsFake = (accessKeyId: string, secret: string): Promise<FakeKeyService> =>
  serve((asked, keys, { trouble }) => {
    const fault = signatureFault(asked, { [accessKeyId]: { secret } }, { service: "kms", hostOf: () => "127.0.0.1" });
    if (fault) return fault;
    const kms = (status: number, type: string): Answer => ({ ...refusal(status, type), body: { __type: type, message: "canary words of AWS" } });
    if (trouble === "forbidden") return kms(400, "AccessDeniedException");
    if (trouble === "throttled") return kms(400, "ThrottlingException");
    if (trouble === "broken") return kms(500, "KMSInternalException");
    const request = JSON.parse(asked.body) as { KeyId?: string; Plaintext?: string; CiphertextBlob?: string; EncryptionContext?: Record<string, string> };
    const aad = Buffer.from(JSON.stringify(Object.entries(request.EncryptionContext ?? {}).toSorted()));
    const { KeyId = "" } = request;
    if (asked.headers["x-amz-target"] === "TrentService.Encrypt") {
      const { version, bytes } = keys.encrypt(KeyId, base64(request.Plaintext), aad);
      // A ciphertext of KMS names the key that it is under.
      return { status: 200, body: { KeyId, CiphertextBlob: Buffer.from(JSON.stringify([KeyId, version, bytes.toString("base64")])).toString("base64") } };
    }
    if (asked.headers["x-amz-target"] !== "TrentService.Decrypt") return kms(400, "UnknownOperationException");
    let blob: [string, number, string];
    try {
      blob = JSON.parse(base64(request.CiphertextBlob).toString()) as [string, number, string];
    } catch {
      return kms(400, "InvalidCiphertextException");
    }
    if (blob[0] !== KeyId) return kms(400, "IncorrectKeyException");
    const plaintext = keys.decrypt(KeyId, blob[1], base64(blob[2]), aad);
    if (plaintext === "too old") return kms(400, "KMSInvalidStateException");
    if (plaintext === undefined) return kms(400, "InvalidCiphertextException");
    return { status: 200, body: { KeyId, Plaintext: (trouble === "short_key" ? plaintext.subarray(0, 16) : plaintext).toString("base64") } };
  });
