/**
 * Measures what other calls notice of renewals: ResolveCredential of credentials that have nothing to do with them, alone and while forty
 * tokens that expired together are asked for, again and again, of a provider that takes its time. Rounds alternate; the ratio of a round is
 * what to compare.
 *
 *   npm run bench -- refresh [--seconds 60] [--rounds 3]
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, credentials, type Metadata } from "@grpc/grpc-js";
import { ResolveCredentialRequest, ResolveCredentialResponse } from "../gen/flow/credentials/v1/credential_service.ts";
import { CredentialType, Provider } from "../gen/flow/credentials/v1/resources.ts";
import { type Beside, measureBeside } from "./lib/beside.ts";
import { resolveCredential } from "./lib/loads.ts";
import type { Measured } from "./lib/process.ts";
import { unary } from "./lib/unary.ts";
import { createdId, creationOf, type World } from "./lib/world.ts";

/** Tokens that expire together, and the time from one such burst to the next, ms: the pace that the sweep has by default. */
const [BURST, EVERY_MS] = [40, 2_000];
/** How long the provider takes, ms. */
const PROVIDER_MS = 300;
/** Credentials that are created at a time. */
const LANES = 32;

/** A provider, and what is set so that renewals go there and only calls bring them about. */
export async function startProvider(): Promise<AsyncDisposable & { readonly settings: Record<string, string>; calls(): number }> {
  let calls = 0;
  const server = createServer((request, response) => {
    request.resume().once("end", async () => {
      calls += 1;
      await sleep(PROVIDER_MS);
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ access_token: `token-${calls}`, token_type: "Bearer", expires_in: 3_600 }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    calls: () => calls,
    settings: { CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8", CREDENTIALS_GOOGLE_ISSUER: issuer, CREDENTIALS_REFRESH_SWEEP_MS: "3600000" },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Runs the rounds. The world must be filled. */
export async function measureRefresh(world: World, service: Measured, seconds: number, rounds: number): Promise<Beside & { readonly renewed: number }> {
  const cell = seconds / (2 * rounds + 1);
  const count = Math.ceil((cell * 1_000) / EVERY_MS) * BURST;
  const due: Due[][] = [];
  for (let round = 0; round < rounds; round += 1) due.push(await createExpired(world, service, count));
  let renewed = 0;
  const beside = await measureBeside(resolveCredential(world, service), cell, rounds, async (round) => {
    const client = new Client(service.target, credentials.createInsecure());
    const waiting = due[round] as Due[];
    const over = new AbortController();
    const bursts = async () => {
      while (waiting.length > 0 && !over.signal.aborted) {
        const pause = sleep(EVERY_MS, undefined, { signal: over.signal }).catch(() => {});
        const outcomes = await Promise.all(waiting.splice(0, BURST).map((one) => resolves(client, one)));
        renewed += outcomes.filter((one) => one).length;
        await pause;
      }
    };
    const going = bursts();
    return {
      async [Symbol.asyncDispose]() {
        over.abort();
        await going;
        client.close();
      },
    };
  });
  return { ...beside, renewed };
}

/** A credential whose token has ended, and who may resolve it. */
interface Due {
  readonly credentialId: string;
  readonly machine: Metadata;
}

async function createExpired(world: World, service: Measured, count: number): Promise<Due[]> {
  const client = new Client(service.target, credentials.createInsecure());
  const grant = { access_token: "ended", refresh_token: "refresh", expires_in: 0, client_id: "client", client_secret: "secret" };
  const message = creationOf(grant, Provider.PROVIDER_GOOGLE, CredentialType.CREDENTIAL_TYPE_OAUTH2);
  const made: Due[] = [];
  let index = 0;
  const lane = async () => {
    for (let n = index++; n < count; n = index++) {
      made.push({ credentialId: await unary(client, "CreateCredential", message, world.user(n), createdId), machine: world.machine(n) });
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  client.close();
  return made;
}

async function resolves(client: Client, { credentialId, machine }: Due): Promise<boolean> {
  const message = Buffer.from(ResolveCredentialRequest.encode({ credentialId }).finish());
  const { credentials: secret } = await unary(client, "ResolveCredential", message, machine, (bytes) => ResolveCredentialResponse.decode(bytes));
  return secret?.$case === "oauthToken" && secret.value.accessToken !== "ended";
}
