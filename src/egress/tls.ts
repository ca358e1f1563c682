import { isIP } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import { EgressError, egressError, type EgressReason } from "./error.ts";
import type { GuardedSocket } from "./socket.ts";

/** How the other end proves who it is. */
export interface TlsIdentity {
  /** The name or address that the certificate must carry, as `parseHost` gives it. */
  readonly name: string;
  /** Authorities that are trusted instead of the system's, PEM. */
  readonly ca?: string | Buffer | undefined;
}

/** OpenSSL's and Node's codes for certificates that are not accepted. */
const REASONS: Readonly<Record<string, EgressReason>> = {
  CERT_HAS_EXPIRED: "tls-expired",
  CERT_NOT_YET_VALID: "tls-not-yet-valid",
  ERR_TLS_CERT_ALTNAME_INVALID: "tls-wrong-name",
  DEPTH_ZERO_SELF_SIGNED_CERT: "tls-self-signed",
  SELF_SIGNED_CERT_IN_CHAIN: "tls-unknown-authority",
  UNABLE_TO_GET_ISSUER_CERT: "tls-unknown-authority",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "tls-unknown-authority",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "tls-unknown-authority",
  CERT_UNTRUSTED: "tls-unknown-authority",
  // An authority that calls itself what a trusted one is called, with another key.
  CERT_SIGNATURE_FAILURE: "tls-unknown-authority",
};

/** What an error of a TLS handshake means. Also for drivers that do their own TLS on a guarded socket. */
export function tlsReason(error: unknown): EgressReason {
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
  if (Object.hasOwn(REASONS, code)) return REASONS[code] as EgressReason;
  return code === "ECONNRESET" || code === "EPIPE" ? "connection-lost" : "tls-failed";
}

/** TLS 1.2 or later over a guarded socket, with the certificate verified in full. Throws `EgressError`; the guarded socket stays the caller's to end. */
export function secure(socket: GuardedSocket, { name, ca }: TlsIdentity): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const secured = connect({
      socket,
      host: name,
      // A server name is never an address (RFC 6066 section 3); `host` is what the certificate is checked for then.
      ...(isIP(name) === 0 ? { servername: name } : {}),
      ...(ca === undefined ? {} : { ca }),
      // Said outright, because the environment can switch the default off.
      rejectUnauthorized: true,
      minVersion: "TLSv1.2",
      ALPNProtocols: ["http/1.1"],
    });
    const fail = (error?: unknown) => {
      secured.destroy();
      reject(socket.failure ?? egressError(error, error === undefined ? "connection-lost" : tlsReason(error)));
    };
    const closed = () => fail();
    // Stays, so that what fails later is never unheard.
    secured.on("error", fail);
    secured.once("close", closed);
    secured.once("secureConnect", () => {
      secured.removeListener("close", closed);
      resolve(secured);
    });
    if (socket.destroyed) fail(socket.failure ?? new EgressError("connection-lost"));
  });
}
