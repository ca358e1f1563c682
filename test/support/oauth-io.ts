import { DialError } from "../../src/domain/check.ts";
import type { OauthEndpoints, OauthIo } from "../../src/domain/oauth.ts";
import { secret } from "../../src/domain/secret.ts";
import { createDialer } from "../../src/egress/dialer.ts";
import { createGuardedFetch } from "../../src/egress/fetch.ts";
import { createAddressPolicy } from "../../src/egress/policy.ts";
import { OIDC_CLIENT, type Oidc } from "./oidc.ts";

/** What a provider is asked through, and what was asked. */
export type TestIo = OauthIo & { readonly asked: { readonly method: string; readonly url: string; readonly body: string }[]; abort(): void };

/** A way to a provider on loopback over the service's own guarded fetch; no client of the service's where `own` is false. */
export function oauthIo(idp: Pick<Oidc, "origin" | "ca">, { own = true, now = () => new Date(), tenant = "organizations" }: { own?: boolean; now?: () => Date; tenant?: string } = {}): TestIo {
  const dialer = createDialer({ policy: createAddressPolicy({ profile: "development", allow: ["127.0.0.0/8"] }), refusalBandMs: 0 });
  const fetch = createGuardedFetch({ dialer, development: true, ...(idp.ca === undefined ? {} : { ca: idp.ca }) });
  const endpoints: OauthEndpoints = { googleIssuer: idp.origin, microsoftAuthority: idp.origin, microsoftTenant: tenant };
  return scriptedIo((ask, signal) => fetch({ ...ask, signal }), { own, now, endpoints });
}

/** A way out on which a function answers. */
export function scriptedIo(
  answer: (ask: Parameters<OauthIo["request"]>[0], signal: AbortSignal) => ReturnType<OauthIo["request"]>,
  { own = true, now = () => new Date(), endpoints }: { own?: boolean; now?: () => Date; endpoints?: OauthEndpoints } = {},
): TestIo {
  const controller = new AbortController();
  const asked: TestIo["asked"] = [];
  return {
    asked,
    abort: () => controller.abort(),
    signal: controller.signal,
    now,
    endpoints,
    client: own ? { id: OIDC_CLIENT.id, secret: secret(OIDC_CLIENT.secret) } : undefined,
    async request(ask) {
      asked.push({ method: ask.method, url: ask.url, body: ask.body ?? "" });
      return answer(ask, controller.signal);
    },
  };
}

/** Nothing may go out on this one. */
export const closedIo = (): TestIo => scriptedIo(() => Promise.reject(new DialError("address_not_allowed")));
