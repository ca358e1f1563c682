import type { CheckResult, DialReason, Finding } from "../../domain/check.ts";
import { CLOUD_FINDINGS } from "./doctor-cloud.ts";
import { POSTGRESQL_FINDINGS } from "./doctor-postgresql.ts";
import { SFTP_FINDINGS } from "./doctor-sftp.ts";
import { SMTP_FINDINGS } from "./doctor-smtp.ts";
import { type Pass, PASSES } from "./passes.ts";

/** What every test can find out on its way to the server. */
const CONNECTION_FINDINGS = {
  address_not_allowed: {
    layer: "address",
    message: "This address may not be reached from here.",
    nextStep: "Use a public host name or address, or ask your operator to allow the private network.",
  },
  host_malformed: {
    layer: "address",
    message: "The host is not written as a host name or an IP address is.",
    nextStep: "Give a name such as sftp.example.com, or an address such as 203.0.113.7 or 2001:db8::7, and nothing else.",
  },
  port_not_allowed: {
    layer: "address",
    message: "Tests may not use this port.",
    nextStep: "Use the usual port, or ask your operator which ports are allowed.",
  },
  name_not_found: { layer: "address", message: "The host name does not exist.", nextStep: "Check the spelling of the host name." },
  name_lookup_failed: {
    layer: "address",
    message: "The host name could not be looked up just now.",
    nextStep: "Try again in a minute; if it goes on, check the name servers of the domain.",
  },
  connection_refused: {
    layer: "connect",
    message: "The host is there, but nothing listens on this port.",
    nextStep: "Check the port, and that the server is running.",
  },
  connection_timed_out: {
    layer: "connect",
    message: "Nothing answered at this host and port.",
    nextStep: "Check host and port, and that the firewall lets our addresses in.",
  },
  host_unreachable: {
    layer: "connect",
    message: "No route leads to this host.",
    nextStep: "Check the address, and that the host's network is up.",
  },
  connection_reset: {
    layer: "connect",
    message: "The connection was cut off as soon as it was made.",
    nextStep: "Check that the firewall or load balancer before the server lets our addresses in.",
  },
  deadline_exceeded: {
    layer: "timeout",
    message: "The time for the test ran out before there was a connection.",
    nextStep: "Check that the host answers quickly, then try again.",
  },
  too_much_data: {
    layer: "protocol",
    message: "The server sent far more than a test needs, so it was stopped.",
    nextStep: "Check that host and port lead to the server you mean.",
  },
  check_failed: {
    layer: "protocol",
    message: "The test could not be finished.",
    nextStep: "Try again; if it goes on, tell support when you did.",
  },
} as const satisfies Record<DialReason | "check_failed", Finding>;

/** Every way in which a test of a server can fail, with what to say about it. The words are stable. */
export const FINDINGS = { ...CONNECTION_FINDINGS, ...SFTP_FINDINGS, ...POSTGRESQL_FINDINGS, ...SMTP_FINDINGS, ...CLOUD_FINDINGS } satisfies Readonly<Record<string, Finding>>;

/** One word of `FINDINGS`. */
export type Reason = keyof typeof FINDINGS;

/** Facts that go with a result. */
export type Details = CheckResult["details"];

/** The result of a test that found something wrong. */
export function failed(reason: Reason, details: Details = {}): CheckResult {
  return { success: false, reason, ...FINDINGS[reason], details: { ...details } };
}

/** The result of a test that found nothing wrong. */
export function passed(pass: Pass, details: Details): CheckResult {
  return { success: true, layer: null, reason: "ok", message: PASSES[pass], nextStep: "", details: { ...details } };
}
