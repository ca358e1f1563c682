import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { Webhook } from "standardwebhooks";
import { WebhookSecretError, webhookSigner } from "../../src/crypto/webhook-signature.ts";
import { canary } from "../support/canary.ts";
import { connect, freshDatabase } from "../support/postgres.ts";
import { rest, type Service, serviceEnv, startService, token } from "../support/service.ts";
import { type Delivery, startWebhookEndpoint, webhookSecret } from "../support/webhook-endpoint.ts";

const OUT = { CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8", CREDENTIALS_REFRESH_SWEEP_MS: "50" };
const sftp = (password: string) => ({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });
const revisions = (all: readonly Delivery[]): number[] => all.filter(({ status }) => status === 204).map(({ body }) => Number(JSON.parse(body).data.revision));
const create = (service: Service, user: string, body: unknown) => rest(service, "POST", "/integrations/credentials", { token: user, body });

test("what happens to a credential is told, signed as Standard Webhooks, in order and without a secret", async () => {
  await using database = await freshDatabase();
  await using endpoint = await startWebhookEndpoint();
  const [old, secret, planted] = [webhookSecret(), webhookSecret(), canary("webhook")];
  await using service = await startService(serviceEnv(database, { ...OUT, CREDENTIALS_WEBHOOK_URL: endpoint.url, CREDENTIALS_WEBHOOK_SECRET: `${secret},${old}` }));
  const [organization, other] = [randomUUID(), randomUUID()];
  const [user, stranger] = await Promise.all([token("user", organization), token("user", other)]);
  const { json: created } = await create(service, user, sftp(planted));
  await create(service, stranger, sftp(planted));
  const { provider: _, ...change } = sftp(planted);
  await rest(service, "PATCH", `/integrations/credentials/${created.id}`, { token: user, body: change });
  await rest(service, "DELETE", `/integrations/credentials/${created.id}`, { token: user });
  await endpoint.until((all) => all.length >= 4);
  const mine = endpoint.deliveries.filter(({ body }) => body.includes(organization));
  const messages = mine.map(({ body, headers }) => [new Webhook(secret).verify(body, headers), new Webhook(old).verify(body, headers)][0] as any);
  expect(messages.map(({ type, data }) => [type, data.revision, data.credential_id])).toEqual(["created", "updated", "deleted"].map((kind, n) => [`credential.${kind}`, String(n + 1), created.id]));
  expect(messages[0]).toEqual({
    type: "credential.created",
    timestamp: expect.stringMatching(/^\d{4}-.*Z$/),
    data: { organization_id: organization, revision: "1", credential_id: created.id, provider: "sftp", credential_type: "user_password", status: "active", status_reason: null, status_since: created.created_at },
  });
  expect(new Set(endpoint.deliveries.map(({ headers }) => headers["webhook-id"])).size).toBe(4);
  expect(() => new Webhook(webhookSecret()).verify(mine[0]?.body ?? "", mine[0]?.headers ?? {})).toThrow();
  expect(JSON.stringify(endpoint.deliveries) + service.output()).not.toContain(planted);
  expect(service.output()).not.toContain(secret.slice(6));
});

test("a token that ends and that nobody can renew is announced, refused, and told once", async () => {
  await using database = await freshDatabase();
  await using endpoint = await startWebhookEndpoint();
  await using service = await startService(serviceEnv(database, { ...OUT, CREDENTIALS_WEBHOOK_URL: endpoint.url, CREDENTIALS_WEBHOOK_SECRET: webhookSecret() }));
  const organization = randomUUID();
  const user = await token("user", organization);
  const { json: created } = await create(service, user, { provider: "google", credential_type: "oauth2", credentials: { access_token: "t", refresh_token: "r", expires_in: 3600 } });
  const statuses = () => endpoint.deliveries.map(({ body }) => JSON.parse(body)).map(({ data }) => [data.status, data.status_reason]);
  await using superuser = await connect(database.superuserUrl);
  await superuser.query("update credential_refresh set due_at = now()");
  await endpoint.until((all) => all.length >= 2);
  const detail = () => rest(service, "GET", `/integrations/credentials/${created.id}`, { token: user });
  const { json: expiring } = await detail();
  expect([expiring.status, expiring.status_reason, expiring.updated_at, expiring.etag]).toEqual(["expiring", "not_renewable", created.updated_at, "r1"]);
  expect(expiring.status_since > created.created_at).toBe(true);
  await superuser.query("update credential set token_expires_at = now()");
  await superuser.query("update credential_refresh set due_at = now()");
  await endpoint.until((all) => all.length >= 3);
  expect(statuses()).toEqual([["active", null], ["expiring", "not_renewable"], ["reauth_required", "access_token_expired"]]);
  expect((await detail()).json).toMatchObject({ status: "reauth_required", status_reason: "access_token_expired", modified_by: created.modified_by });
  const { rows } = await superuser.query("select due_at, lease_token from credential_refresh");
  expect(rows).toEqual([{ due_at: null, lease_token: null }]);
});

test("two replicas deliver each event at least once and in order, through refusals, silence and the death of one of them", async () => {
  await using database = await freshDatabase();
  // Every third attempt is refused, every seventh is left without an answer.
  await using endpoint = await startWebhookEndpoint((_, n) => (n % 7 === 3 ? undefined : n % 3 === 1 ? 503 : 204));
  const env = serviceEnv(database, { ...OUT, CREDENTIALS_WEBHOOK_URL: endpoint.url, CREDENTIALS_WEBHOOK_SECRET: webhookSecret(), CREDENTIALS_WEBHOOK_TIMEOUT_MS: "200" });
  await using first = await startService(env);
  await using second = await startService(env);
  const organization = randomUUID();
  const user = await token("user", organization);
  for (let n = 0; n < 3; n++) await create(n % 2 === 0 ? first : second, user, sftp("p"));
  await endpoint.until((all) => all.length >= 1);
  await first.stop("SIGKILL");
  await create(second, user, sftp("p"));
  endpoint.answer(() => 204);
  await endpoint.until((all) => new Set(revisions(all)).size === 4);
  // At least once: a repetition is of the last one that was taken, never of one before.
  const taken = revisions(endpoint.deliveries);
  expect(taken.toSorted((a, b) => a - b)).toEqual(taken);
  const ids = Map.groupBy(endpoint.deliveries, ({ body }) => JSON.parse(body).data.revision as string);
  for (const [, attempts] of ids) expect(new Set(attempts.map(({ headers }) => headers["webhook-id"])).size).toBe(1);
}, 60_000);

test("a secret that is too short, too long or no base64 is refused by its rule and never quoted", () => {
  for (const wrong of ["plain", "whsec_", `whsec_${Buffer.alloc(23, 7).toString("base64")}`, `whsec_${Buffer.alloc(65, 7).toString("base64")}`, "whsec_not*base64", `${webhookSecret()},`]) {
    const failure = (() => {
      try {
        return webhookSigner(wrong);
      } catch (error) {
        return error;
      }
    })();
    expect(failure).toBeInstanceOf(WebhookSecretError);
    expect(String(failure)).not.toContain(wrong.slice(6) || "\0");
  }
});
