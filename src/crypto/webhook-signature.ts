import { createHmac, createSecretKey, type KeyObject } from "node:crypto";

/** A secret that webhooks cannot be signed with. Its message names the rule and holds no byte of it. */
export class WebhookSecretError extends Error {
  override readonly name = "WebhookSecretError";
}

const PREFIX = "whsec_";
const BYTES = { least: 24, most: 64 } as const;

/** Signs the messages of webhooks as Standard Webhooks 1.0 says for symmetric keys. */
export interface WebhookSigner {
  /** The value of `webhook-signature`: one signature for each key, apart by spaces. The time is in whole seconds since 1970. */
  sign(id: string, timestamp: number, body: string): string;
}

/** Reads secrets, comma-separated, each `whsec_` and the base64 of 24 to 64 bytes. Throws WebhookSecretError. */
export function webhookSigner(secrets: string): WebhookSigner {
  const keys = secrets.split(",").map((text) => keyOf(text.trim()));
  return {
    sign: (id, timestamp, body) => keys.map((key) => `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`).join(" "),
  };
}

function keyOf(text: string): KeyObject {
  if (!text.startsWith(PREFIX)) throw new WebhookSecretError(`a secret of webhooks must begin with ${PREFIX}`);
  const encoded = text.slice(PREFIX.length);
  const bytes = Buffer.from(encoded, "base64");
  // Node's decoder passes over what is not base64.
  if (bytes.toString("base64") !== encoded) throw new WebhookSecretError(`a secret of webhooks must be base64 after ${PREFIX}`);
  if (bytes.length < BYTES.least || bytes.length > BYTES.most) throw new WebhookSecretError(`a secret of webhooks must have ${BYTES.least} to ${BYTES.most} bytes`);
  const key = createSecretKey(bytes);
  bytes.fill(0);
  return key;
}
