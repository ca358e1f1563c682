import { randomUUID } from "node:crypto";
import { describe, expect, test } from "vitest";
import { ACTIONS, type Action, type Caller } from "../../src/domain/access.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import { RateLimiter, type Rates } from "../../src/vault/rates.ts";

const RATES: Rates = { resolve: { perCaller: 5, perOrganization: 8 }, test: { perCaller: 1, perOrganization: 1 }, write: { perCaller: 1, perOrganization: 2 } };
const organizationId = randomUUID();
const machine = (organization = organizationId): Caller => ({ kind: "service_account", id: randomUUID(), organizationId: organization, role: null });

function limiter() {
  const clock = { now: 0 };
  const rates = new RateLimiter(RATES, () => clock.now);
  /** Calls that pass before one is refused, of so many; and the time after which the refused one may come again. */
  const passing = (caller: Caller, action: Action, most: number): { passed: number; waitMs: number | undefined } => {
    for (let passed = 0; passed < most; passed++) {
      try {
        rates.count(caller, action);
      } catch (error) {
        if (!(error instanceof CredentialError) || error.reason !== "RATE_LIMITED") throw error;
        return { passed, waitMs: error.retryAfterMs };
      }
    }
    return { passed: most, waitMs: undefined };
  };
  return { clock, rates, passing };
}

describe("a rate limiter", () => {
  test("lets ten seconds' worth pass at once, tells when there is room again, and keeps its word", () => {
    const { clock, passing } = limiter();
    const caller = machine();
    expect(passing(caller, "resolve_credential", 100)).toEqual({ passed: 50, waitMs: 200 });
    clock.now = 199;
    expect(passing(caller, "resolve_credential", 1).passed).toBe(0);
    clock.now = 201;
    expect(passing(caller, "resolve_credential", 2).passed).toBe(1);
    clock.now = 10_000_000;
    expect(passing(caller, "resolve_credential", 100).passed).toBe(50);
  });

  test("holds for an organization across its callers, and never for another one", () => {
    const { passing } = limiter();
    expect(passing(machine(), "resolve_credential", 100).passed).toBe(50);
    expect(passing(machine(), "resolve_credential", 100).passed).toBe(30);
    expect(passing(machine(), "resolve_credential", 1).passed).toBe(0);
    expect(passing(machine(randomUUID()), "resolve_credential", 100).passed).toBe(50);
  });

  test("counts resolving, testing and writing apart, and reading not at all", () => {
    const { passing } = limiter();
    const caller = machine();
    expect(passing(caller, "update_credential", 100).passed).toBe(10);
    expect(passing(caller, "delete_credential", 1).passed).toBe(0);
    expect(passing(caller, "test_credential", 100).passed).toBe(10);
    expect(passing(caller, "resolve_credential", 1).passed).toBe(1);
    for (const action of ["list_credentials", "get_credential", "list_integrations"] as const) expect(passing(caller, action, 10_000).passed).toBe(10_000);
  });

  test("takes nothing for a call that it refuses", () => {
    const { passing, clock } = limiter();
    const [greedy, modest] = [machine(), machine()];
    expect(passing(greedy, "update_credential", 1_000).passed).toBe(10);
    for (let n = 0; n < 100; n++) expect(passing(greedy, "update_credential", 1).passed).toBe(0);
    expect(passing(modest, "update_credential", 100).passed).toBe(10);
    clock.now = 1_000;
    expect(passing(greedy, "update_credential", 100).passed).toBe(1);
  });

  test("knows every action that a tenant or an administrator may take and that changes or reveals something", () => {
    const { passing } = limiter();
    const reads = Object.keys(ACTIONS).filter((action) => /^(list|get)_/.test(action));
    const operatorsOnly = Object.keys(ACTIONS).filter((action) => ACTIONS[action as Action].every((kind) => kind === "operator"));
    const unlimited = (Object.keys(ACTIONS) as Action[]).filter((action) => passing(machine(randomUUID()), action, 101).passed === 101);
    // What finishes an authorization was counted when it began: its state works once.
    expect(unlimited.toSorted()).toEqual([...new Set([...reads, ...operatorsOnly, "complete_authorization"])].toSorted());
  });
});
