import type { Socket } from "node:net";
import type { Client } from "pg";

/** Longest time that a server may take to close a connection, ms. */
const GOODBYE_MS = 1_000;

/** The driver's own connection, which its types leave out. */
interface Wired {
  readonly connection: { readonly stream: Socket };
}

/** Closes a connection, also where nobody is at its other end any more: it would hold up a stop until the system gives it up. Never rejects. */
export async function hangUp(client: Client): Promise<void> {
  const timer = setTimeout(() => (client as unknown as Wired).connection.stream.destroy(), GOODBYE_MS);
  await client.end().catch(() => {});
  clearTimeout(timer);
}
