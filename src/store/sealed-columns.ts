/** How a column with sealed bytes comes through a rotation of keys. */
export type SealedColumn =
  /** Sealed under an organization key: a rotation of that key seals it anew. */
  | { readonly under: "organization_key"; readonly moved: "anew" }
  /** An organization key, wrapped under a master key: a rotation of master keys wraps it anew. */
  | { readonly under: "master_key"; readonly moved: "anew" }
  /** Sealed under an organization key, and left to end by itself within so many seconds: the old key is not retired until the last of them is gone. */
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
  "credential_previous.sealed": { under: "organization_key", moved: "anew" },
  "oauth_authorization.sealed": { under: "organization_key", moved: "outlived", seconds: 600, reason: "an authorization in progress ends after ten minutes" },
  "organization_key.wrapped": { under: "master_key", moved: "anew" },
  "key_registry.canary": { under: "master_key", moved: "never", reason: "shows that this very master key is the one that was registered" },
};

/**
 * Tables whose column `sealed` a rotation of an organization key seals anew, in the order in which it does. Each has `key_version`,
 * generated from the bytes, and an index that leads with the organization and it. The same test compares these with the above.
 */
export const SECRET_TABLES = ["credential", "credential_previous"] as const;
export type SecretTable = (typeof SECRET_TABLES)[number];

/** Tables and columns whose values are outlived. Each has `organization_id`. A key is not retired while one of them names it. */
export const OUTLIVED_COLUMNS: readonly (readonly [table: string, column: string])[] = Object.entries(SEALED_COLUMNS)
  .filter(([, { moved }]) => moved === "outlived")
  .map(([name]) => name.split(".") as [string, string]);
