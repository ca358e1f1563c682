/** A fault of the keys that identities are verified with. Its message names settings, files and rules, never a value. */
export class AuthSetupError extends Error {
  override readonly name = "AuthSetupError";
}
