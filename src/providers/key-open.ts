import { createPrivateKey, type KeyObject } from "node:crypto";
import ssh2 from "ssh2";
import { type KeyForm, MAX_MODULUS_BITS } from "./key-form.ts";

/** A key that passed every limit, on its way to the parsers. */
export interface KeyJob {
  readonly text: string;
  /** Empty where none was given. */
  readonly passphrase: string;
  readonly form: KeyForm;
}

/** What opening a key showed: `locked` says that the passphrase does not open it, or that it is damaged inside. */
export type KeyVerdict = "opened" | "locked" | "damaged" | "unusable" | "too large";

const CURVES: ReadonlySet<string> = new Set(["prime256v1", "secp384r1", "secp521r1"]);

/** Opens a key the way an executor will. Blocks for as long as the key's encryption takes; never throws. */
export function openKey(job: KeyJob): KeyVerdict {
  const key = job.form.kind === "pkcs8" ? openPkcs8(job) : openForSsh(job);
  if (key === null) return job.form.encrypted ? "locked" : "damaged";
  if (!usable(key)) return "unusable";
  return (key.asymmetricKeyDetails?.modulusLength ?? 0) > MAX_MODULUS_BITS ? "too large" : "opened";
}

function openPkcs8({ text, passphrase }: KeyJob): KeyObject | null {
  try {
    return createPrivateKey({ key: text.trim(), passphrase });
  } catch {
    return null;
  }
}

function openForSsh({ text, passphrase }: KeyJob): KeyObject | null {
  try {
    const parsed = ssh2.utils.parseKey(text, passphrase === "" ? undefined : passphrase);
    return parsed instanceof Error ? null : createPrivateKey(parsed.getPrivatePEM());
  } catch {
    // The parser lets exceptions of the big-number and curve code through.
    return null;
  }
}

function usable({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): boolean {
  if (asymmetricKeyType === "ec") return CURVES.has(asymmetricKeyDetails?.namedCurve ?? "");
  return asymmetricKeyType === "rsa" || asymmetricKeyType === "ed25519" || asymmetricKeyType === "dsa";
}
