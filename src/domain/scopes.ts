/** Scopes that are about who signed in, and that providers do not name again, or by other names. */
const IDENTITY: ReadonlySet<string> = new Set(["openid", "email", "profile", "offline_access"]);

/**
 * Which of the scopes are not among those that were granted. Providers put the URL of an API before a scope's name or leave it away, write
 * it in other letters, and name what a resource's whole consent (`/.default`) stands for.
 */
export function missingScopes(wanted: readonly string[], granted: readonly string[]): string[] {
  const had = granted.map((scope) => scope.toLowerCase());
  return wanted.filter((scope) => {
    const name = scope.toLowerCase();
    if (IDENTITY.has(name) || name.endsWith("/.default")) return false;
    return !had.some((given) => given === name || given.endsWith(`/${name}`) || name.endsWith(`/${given}`));
  });
}
