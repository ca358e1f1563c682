import { type ChannelCredentials, credentials } from "@grpc/grpc-js";

/** TLS of a client. Every part is PEM. */
export interface ClientTls {
  /** Certificate authorities that sign the server's certificate; the system's where absent. */
  readonly ca?: Buffer | string;
  /** The client's certificate chain, for mutual TLS; goes with `key`. */
  readonly certificate?: Buffer | string;
  /** The private key of that certificate. */
  readonly key?: Buffer | string;
}

const LOOPBACK = /^(?:unix:|unix-abstract:|(?:dns:(?:\/\/\/)?|ipv4:|ipv6:)?(?:127(?:\.\d{1,3}){3}|localhost|::1|\[::1\])(?::\d{1,5})?$)/;

/** Whether a target is this machine: a unix socket, or a loopback address. */
export const isLoopback = (target: string): boolean => LOOPBACK.test(target);

const pem = (part: Buffer | string | undefined): Buffer | null => (part === undefined ? null : Buffer.from(part));

/**
 * How a channel to the target is protected: TLS, except that plaintext is used where "insecure" asks for it, or where
 * nothing was said and the target is this machine.
 */
export function channelCredentials(target: string, tls: ClientTls | "insecure" | undefined): ChannelCredentials {
  if (tls === "insecure" || (tls === undefined && isLoopback(target))) return credentials.createInsecure();
  return credentials.createSsl(pem(tls?.ca), pem(tls?.key), pem(tls?.certificate));
}
