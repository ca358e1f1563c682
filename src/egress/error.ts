/** Every way in which going out can end without an answer, and the one sentence that says so. The names are stable. */
export const EGRESS_REASONS = {
  "refused-name": "The host is not a valid host name or IP address",
  "refused-port": "The port may not be used",
  "refused-address": "The host may not be reached from here",
  "refused-request": "The request may not be sent",
  "dns-not-found": "The host name does not exist",
  "dns-failed": "The host name could not be looked up",
  "connect-refused": "The host refused the connection",
  "connect-timeout": "The host did not answer the connection attempt",
  unreachable: "The network has no way to the host",
  "connection-lost": "The connection was lost",
  deadline: "The time allowed for the connection is over",
  "too-many-bytes": "The host sent more than is accepted",
  cancelled: "The connection was cancelled",
  "tls-expired": "The host's certificate has expired",
  "tls-not-yet-valid": "The host's certificate is not valid yet",
  "tls-wrong-name": "The host's certificate is for another name",
  "tls-self-signed": "The host's certificate is signed by itself",
  "tls-unknown-authority": "The host's certificate comes from an unknown authority",
  "tls-failed": "The TLS handshake failed",
  "protocol-error": "The host did not speak the expected protocol",
} as const;

/** A stable name for why going out failed. */
export type EgressReason = keyof typeof EGRESS_REASONS;

/** Which rule a host name, a port or a request breaks. Only their text decides, never the network. */
export type EgressRule =
  | "empty"
  | "too-long"
  | "characters"
  | "label"
  | "numeric"
  | "ip-literal"
  | "not-a-port"
  | "port-not-listed"
  | "scheme"
  | "form"
  | "headers";

/** Why going out failed. Says nothing of the target: neither its name nor its address nor what it sent. */
export class EgressError extends Error {
  override readonly name = "EgressError";
  readonly reason: EgressReason;
  /** The broken rule, where the target's own text is at fault. */
  readonly rule: EgressRule | undefined;

  constructor(reason: EgressReason, rule?: EgressRule) {
    super(EGRESS_REASONS[reason]);
    this.reason = reason;
    this.rule = rule;
  }
}

/** A fault of the operator's settings for going out. Its message names the setting, the entry's position and the rule, never a value. */
export class EgressSetupError extends Error {
  override readonly name = "EgressSetupError";
}

/** The error as it is where it is one of ours, else the reason given. */
export const egressError = (error: unknown, otherwise: EgressReason): EgressError => (error instanceof EgressError ? error : new EgressError(otherwise));
