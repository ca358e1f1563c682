import type { CheckOptions } from "../domain/check.ts";
import type { CredentialTypeName, ProviderName, SecretDocument } from "../domain/credential.ts";

/** A secret to be tried against the real system. */
export interface ProbeTask {
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  /** As the provider accepted it. */
  readonly document: SecretDocument;
  readonly options: CheckOptions;
}

/** Where tests may go, as the operator says. */
export interface ProbeEgress {
  readonly profile: "development" | "production";
  /** CIDR ranges that are not global and may be reached all the same; see `parseAllowList`. */
  readonly allow: readonly string[];
  /** Prefixes of the network's own NAT64; see `parseNat64`. */
  readonly nat64?: readonly string[];
  /** Ports that a provider's tests may use, by provider; one that is not named may use any. */
  readonly ports: Readonly<Record<string, readonly number[]>>;
}

/** What a child is told: one line of JSON. */
export interface ProbeOrder {
  readonly task: ProbeTask;
  readonly egress: ProbeEgress;
  /** When the test's time is over, as `sharedClockMs` tells it: the time that the child needs to start is part of the test's. */
  readonly endsAt: number;
}

/** The system's monotonic clock, ms. Unlike `performance.now()` it says the same in every process. */
export const sharedClockMs = (): number => Number(process.hrtime.bigint() / 1_000_000n);

/** Descriptor of the child's end of the channel on which it is told its task and answers. */
export const CHANNEL_FD = 3;

/** What ends the order and the answer; JSON text has none inside. */
export const NEWLINE = 0x0a;
