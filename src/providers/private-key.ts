import { readArmour } from "./key-armour.ts";
import { DAMAGED, TOO_LARGE, UNUSABLE } from "./key-form.ts";
import { inspectKey } from "./key-limits.ts";
import { type KeyJob, type KeyVerdict, openKey } from "./key-open.ts";
import { createKeyPool, type KeyTurn } from "./key-pool.ts";

/** How long opening one key may take, in milliseconds; the most rounds that are allowed take three to four seconds. */
export const KEY_DEADLINE_MS = 10_000;
/** How many encrypted keys are opened at once, in all and for one organization: each takes a core for its time. */
const KEYS_RUNNING = { all: 2, each: 1 };
/** How many may wait, in all and for one organization; each is as large as a private key may be. */
const KEYS_WAITING = { all: 64, each: 2 };

/** Why a private key is refused; `message` quotes nothing of it. */
export interface KeyFault {
  readonly key: "private_key_data" | "private_key_passphrase";
  readonly type: "missing" | "value_error";
  readonly message: string;
}

/** What opens keys: inline where it takes no time, elsewhere where it does. */
export interface KeyOpeners {
  readonly inline: (job: KeyJob) => KeyVerdict;
  readonly elsewhere: (job: KeyJob) => Promise<KeyVerdict>;
}

const pool = createKeyPool({ running: KEYS_RUNNING, waiting: KEYS_WAITING, deadlineMs: KEY_DEADLINE_MS });

/** The openers of this process, for one who takes turns with others. */
export const keyOpeners = (turn: KeyTurn): KeyOpeners => ({ inline: openKey, elsewhere: (job) => pool(job, turn) });

const refuse = (message: string): KeyFault => ({ key: "private_key_data", type: "value_error", message });

/**
 * Checks that a private key is one that SSH can use and that the passphrase opens it; null where it is. An empty
 * passphrase is none; one for a key that is not encrypted is not looked at. Every limit is checked before a parser
 * sees the key. Throws what its openers throw.
 */
export async function checkPrivateKey(text: string, passphrase: string, openers: KeyOpeners): Promise<KeyFault | null> {
  const armour = readArmour(text);
  if (typeof armour === "string") return refuse(armour);
  const form = inspectKey(armour);
  if (typeof form === "string") return refuse(form);
  if (form.encrypted && passphrase === "") {
    return { key: "private_key_passphrase", type: "missing", message: "The private key is encrypted; give its passphrase" };
  }
  const verdict = form.encrypted ? await openers.elsewhere({ text, passphrase, form }) : openers.inline({ text, passphrase: "", form });
  return FAULTS[verdict];
}

const FAULTS: Record<KeyVerdict, KeyFault | null> = {
  opened: null,
  locked: { key: "private_key_passphrase", type: "value_error", message: "The passphrase does not open the private key" },
  damaged: refuse(DAMAGED),
  unusable: refuse(UNUSABLE),
  "too large": refuse(TOO_LARGE),
};
