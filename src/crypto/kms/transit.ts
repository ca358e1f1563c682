import type { Secret } from "../../domain/secret.ts";
import { UnreadableError } from "../unreadable.ts";
import type { KeyContext, KeyService, KeyServiceHttp } from "./service.ts";

/** One key of OpenBao's or Vault's Transit engine. */
export interface TransitOptions {
  /** Where the server is, for example `https://bao.example.com:8200`. */
  readonly url: string;
  /** Path of the engine. */
  readonly mount: string;
  /** Name of the key in the engine; its type must authenticate data, as the default `aes256-gcm96` does. */
  readonly key: string;
  readonly namespace: string | undefined;
  readonly token: Secret<string>;
  readonly http: KeyServiceHttp;
}

/** A refusal of the server. Carries the status and nothing of the answer, which may repeat the request. */
export class TransitError extends Error {
  override readonly name = "TransitError";
  readonly code: string;

  constructor(status: number) {
    super(`the Transit engine refused: status ${status}`);
    this.code = `HTTP_${status}`;
  }
}

/** What the engine says of a ciphertext that it did not make, or not for this associated data. */
const NOT_AUTHENTIC = /message authentication failed|invalid ciphertext/;

/**
 * The engine's HTTP API (`/v1/<mount>/encrypt/<key>` and `decrypt`), which OpenBao and Vault share. The context goes as
 * `associated_data`. Versions of the key are the engine's own affair: a ciphertext names the one it needs, and one below
 * `min_decryption_version` is refused, which here means that the key cannot be used.
 */
export function transitService({ url, mount, key, namespace, token, http }: TransitOptions): KeyService {
  const base = `${url.replace(/\/+$/, "")}/v1/${mount}`;
  const ask = async (operation: "encrypt" | "decrypt", request: Record<string, string>, { bytes }: KeyContext, signal: AbortSignal): Promise<Record<string, unknown>> => {
    const { status, body } = await http({
      method: "POST",
      url: new URL(`${base}/${operation}/${encodeURIComponent(key)}`),
      headers: {
        "content-type": "application/json",
        "x-vault-token": token.reveal(),
        "x-vault-request": "true",
        ...(namespace === undefined ? {} : { "x-vault-namespace": namespace }),
      },
      body: Buffer.from(JSON.stringify({ ...request, associated_data: bytes.toString("base64") })),
      signal,
    });
    if (status === 400 && operation === "decrypt" && NOT_AUTHENTIC.test(body.toString("utf8"))) throw new UnreadableError("wrapped_key_not_authentic");
    if (status !== 200) throw new TransitError(status);
    const { data } = JSON.parse(body.toString("utf8")) as { data?: Record<string, unknown> };
    return data ?? {};
  };
  return {
    identity: `transit ${base} ${namespace ?? ""} ${key}`,
    async wrap(raw, context, signal) {
      const { ciphertext } = await ask("encrypt", { plaintext: raw.toString("base64") }, context, signal);
      if (typeof ciphertext !== "string" || !ciphertext.startsWith("vault:v")) throw new TypeError("the Transit engine gave no ciphertext");
      return Buffer.from(ciphertext, "latin1");
    },
    async unwrap(blob, context, signal) {
      const { plaintext } = await ask("decrypt", { ciphertext: blob.toString("latin1") }, context, signal);
      if (typeof plaintext !== "string") throw new TypeError("the Transit engine gave no plaintext");
      return Buffer.from(plaintext, "base64");
    },
  };
}
