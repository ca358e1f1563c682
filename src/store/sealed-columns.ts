/** How a column with sealed bytes comes through a rotation of keys. */
export type SealedColumn =
  /** Sealed under an organization key: a rotation of that key seals it anew. */
  | { readonly under: "organization_key"; readonly moved: "anew" }
  /** An organization key, wrapped under a master key: a rotation of master keys wraps it anew. */
  | { readonly under: "master_key"; readonly moved: "anew" }
  /** Sealed under an organization key, and gone before it matters: the old key is not retired until the last of them has ended. */
  | { readonly under: "organization_key"; readonly moved: "outlived"; readonly seconds: number; readonly reason: string }
  /** Belongs to the one key it is sealed under, and goes with it. */
  | { readonly under: "master_key"; readonly moved: "never"; readonly reason: string };

/**
 * Every column of the type `ciphertext`, by `table.column`. A new one must be entered here: a test compares this table with
 * the schema. One that is to be moved needs its own code in `rotation-rows.ts`; one that lives for minutes only is
 * `outlived`, with the longest time that it can live.
 */
export const SEALED_COLUMNS: Readonly<Record<string, SealedColumn>> = {
  "credential.sealed": { under: "organization_key", moved: "anew" },
  "credential_previous.sealed": { under: "organization_key", moved: "outlived", seconds: 31 * 24 * 60 * 60, reason: "kept for 30 days at most, and purged within a day" },
  "oauth_authorization.sealed": { under: "organization_key", moved: "outlived", seconds: 600, reason: "an authorization in progress ends after ten minutes" },
  "organization_key.wrapped": { under: "master_key", moved: "anew" },
  "key_registry.canary": { under: "master_key", moved: "never", reason: "shows that this very master key is the one that was registered" },
};

/** How long a value that is outlived may live, s; an organization key is retired no sooner after its proof. */
export const SHORT_LIVED_SECONDS: number = Object.values(SEALED_COLUMNS).reduce((longest, column) => (column.moved === "outlived" ? Math.max(longest, column.seconds) : longest), 0);
