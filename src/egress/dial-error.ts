import { DialError, type DialReason } from "../domain/check.ts";
import { EgressError, type EgressReason } from "./error.ts";

/**
 * What a test hears of each reason. Whatever the network decides and is refused sounds the same; a fault of the host's own text and a port that is not
 * listed say nothing of the network, and are told. A name that does not exist is told apart from a refused one, because a misspelt name is the most
 * frequent mistake; so one can learn which names the resolver of this machine knows, but nothing of where they lead.
 */
const HEARD: Readonly<Record<EgressReason, DialReason>> = {
  "refused-name": "host_malformed",
  "refused-port": "port_not_allowed",
  "refused-address": "address_not_allowed",
  "refused-request": "address_not_allowed",
  "dns-not-found": "name_not_found",
  "dns-failed": "name_lookup_failed",
  "connect-refused": "connection_refused",
  "connect-timeout": "connection_timed_out",
  unreachable: "host_unreachable",
  "connection-lost": "connection_reset",
  deadline: "deadline_exceeded",
  "too-many-bytes": "too_much_data",
  // Nothing but the end of the test's time cancels.
  cancelled: "deadline_exceeded",
  "tls-expired": "connection_reset",
  "tls-not-yet-valid": "connection_reset",
  "tls-wrong-name": "connection_reset",
  "tls-self-signed": "connection_reset",
  "tls-unknown-authority": "connection_reset",
  "tls-failed": "connection_reset",
  "protocol-error": "connection_reset",
};

/** What stopped a connection or a request, in the words that providers know. */
export const dialError = (error: unknown): DialError => new DialError(error instanceof EgressError ? HEARD[error.reason] : "host_unreachable");
