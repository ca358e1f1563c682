import { generateKeyPairSync, randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { credentials, Metadata } from "@grpc/grpc-js";
import { AdminServiceClient, type ListAuditEventsRequest, type ListAuditEventsResponse, type VerifyAuditResponse } from "../../gen/flow/credentials/v1/admin_service.ts";
import { connectionOf } from "../support/postgres.ts";
import { operatorToken, rest, startFresh, temporaryFolder, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let superuser: pg.Client;
let admin: AdminServiceClient;
let metadata: Metadata;
let organizationId: string;
const folder = temporaryFolder();
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };

beforeAll(async () => {
  const { privateKey } = generateKeyPairSync("ed25519");
  const file = `${folder.path}/audit.pem`;
  writeFileSync(file, privateKey.export({ format: "pem", type: "pkcs8" }));
  service = await startFresh({ CREDENTIALS_AUDIT_SIGNING_KEY_FILE: file, CREDENTIALS_AUDIT_SIGN_INTERVAL_MS: "100" });
  superuser = new pg.Client(connectionOf(service.database.superuserUrl));
  await superuser.connect();
  admin = new AdminServiceClient(service.grpc, credentials.createInsecure());
  metadata = new Metadata();
  metadata.set("authorization", `Bearer ${await operatorToken()}`);
});
afterAll(async () => {
  admin.close();
  await superuser.end();
  await service[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const promised = <T>(start: (done: (error: Error | null, response: T) => void) => unknown): Promise<T> =>
  new Promise((resolve, reject) => start((error, response) => (error ? reject(error) : resolve(response))));
const verify = (of = organizationId, afterLink = 0n) => promised<VerifyAuditResponse>((done) => admin.verifyAudit({ organizationId: of, afterLink }, metadata, done));
const list = (request: Partial<ListAuditEventsRequest>) =>
  promised<ListAuditEventsResponse>((done) => admin.listAuditEvents({ organizationId, pageSize: 0, pageToken: "", oldestFirst: false, ...request }, metadata, done));
const signed = async (): Promise<number> => Number((await superuser.query("select coalesce(max(link), 0) as link from audit_signature where organization_id = $1", [organizationId])).rows[0].link);

/** Ten records, one in each link: a creation, and nine readings that find nothing. */
beforeEach(async () => {
  organizationId = randomUUID();
  const user = await token("user", organizationId);
  await rest(service, "POST", "/integrations/credentials", { token: user, body: SFTP });
  for (let n = 0; n < 9; n++) await rest(service, "GET", `/integrations/credentials/${randomUUID()}`, { token: user, headers: { "x-flow-id": `flow-${n}`, "x-run-id": "run" } });
});

const untilSigned = () => vi.waitFor(async () => expect(await signed()).toBe(10), { timeout: 10_000 });

describe("a trail that nobody touched", () => {
  test("is found whole, from its beginning and from any link, and its head is signed", async () => {
    await untilSigned();
    expect(await verify()).toMatchObject({ fault: undefined, link: 10n, records: 10n, complete: true, hash: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect((await verify()).signedHeads).toBeGreaterThan(0n);
    expect(await verify(organizationId, 7n)).toMatchObject({ fault: undefined, link: 10n, records: 3n, complete: true });
    expect(await verify(randomUUID())).toMatchObject({ fault: undefined, link: 0n, records: 0n, complete: true });
  });

  test("is listed newest first, page by page, and by every filter", async () => {
    const pages: bigint[] = [];
    let pageToken = "";
    do {
      const { events, nextPageToken } = await list({ pageSize: 4, pageToken });
      pages.push(...events.map(({ link }) => link));
      pageToken = nextPageToken;
    } while (pageToken !== "");
    expect(pages).toEqual([10n, 9n, 8n, 7n, 6n, 5n, 4n, 3n, 2n, 1n]);
    const { events: all } = await list({});
    const [newest, created] = [all[0], all.at(-1)];
    expect(created).toMatchObject({ action: "create_credential", outcome: "allowed", actorKind: "user", position: 1, reason: undefined });
    const links = async (request: Partial<ListAuditEventsRequest>) => (await list(request)).events.map(({ link }) => link);
    expect(await links({ action: "create_credential" })).toEqual([1n]);
    expect(await links({ outcome: "refused", flowId: "flow-3" })).toEqual([5n]);
    expect(await links({ credentialId: created?.credentialId })).toEqual([1n]);
    expect(await links({ requestId: newest?.requestId })).toEqual([10n]);
    expect(await links({ runId: "run" })).toHaveLength(9);
    expect(await links({ actorId: randomUUID() })).toEqual([]);
    expect(await links({ from: newest?.occurredAt, until: new Date(Date.now() + 60_000) })).toContain(10n);
    expect(await links({ until: created?.occurredAt })).toEqual([]);
    expect((await list({ oldestFirst: true })).events.map(({ link }) => link)).toEqual(pages.toReversed());
  });

  test("refuses filters that nothing could fit", async () => {
    // Field 2 is `from`, field 1 of a time its seconds (protobuf encoding, varints).
    const farAway = Buffer.from([0x12, 0x09, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    const refusals = [
      list({ flowId: "a\0b" }), list({ requestId: "x".repeat(2_000) }), list({ pageToken: "nonsense" }),
      promised<Buffer>((done) => admin.makeUnaryRequest("/flow.credentials.v1.AdminService/ListAuditEvents", (it: Buffer) => it, (it: Buffer) => it, farAway, metadata, done as never)),
    ];
    expect(await Promise.all(refusals.map((refusal) => refusal.then(() => 0, ({ code }: { code: number }) => code)))).toEqual([3, 3, 3, 3]);
  });
});

describe("somebody who may write everything", () => {
  const damages: readonly [string, string, { link: bigint; kind: string }][] = [
    ["changes a record", "update audit_event set actor_id = 'someone else' where organization_id = $1 and link = 5", { link: 5n, kind: "altered" }],
    ["changes when it was", "update audit_event set occurred_at = occurred_at + interval '1 hour' where organization_id = $1 and link = 5", { link: 5n, kind: "altered" }],
    ["removes the flow of a record", "update audit_event set flow_id = null where organization_id = $1 and link = 5", { link: 5n, kind: "altered" }],
    ["names another key", "update audit_event set key_id = organization_id where organization_id = $1 and link = 5", { link: 5n, kind: "altered" }],
    ["deletes a record", "delete from audit_event where organization_id = $1 and link = 5", { link: 5n, kind: "missing" }],
    ["deletes the first record", "delete from audit_event where organization_id = $1 and link = 1", { link: 1n, kind: "missing" }],
    ["puts a record in", "insert into audit_event select organization_id, link, 2, occurred_at, request_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id, hash from audit_event where organization_id = $1 and link = 5", { link: 5n, kind: "altered" }],
    ["swaps two records", "update audit_event set link = 11 - link, hash = (select hash from audit_event o where o.organization_id = $1 and o.link = 11 - audit_event.link) where organization_id = $1 and link in (5, 6)", { link: 5n, kind: "altered" }],
    ["closes the gap after a deletion", "with gone as (delete from audit_event where organization_id = $1 and link = 5) update audit_event set link = link - 1 where organization_id = $1 and link > 5", { link: 5n, kind: "altered" }],
    ["cuts the end off", "delete from audit_event where organization_id = $1 and link > 7", { link: 8n, kind: "cut" }],
    ["deletes everything", "delete from audit_event where organization_id = $1", { link: 1n, kind: "cut" }],
  ];
  test.each(damages)("%s, and the first bad record is named", async (_, sql, fault) => {
    if (sql.includes("link = link - 1") || sql.includes("11 - link")) await superuser.query("alter table audit_event drop constraint if exists audit_event_pkey");
    await superuser.query(sql, [organizationId]);
    expect((await verify()).fault).toMatchObject(fault);
  });

  test("cuts the end off and moves the head back: the signed head tells", async () => {
    await untilSigned();
    await superuser.query("delete from audit_event where organization_id = $1 and link > 7", [organizationId]);
    await superuser.query("update audit_head h set link = 7, hash = e.hash from audit_event e where e.organization_id = h.organization_id and e.link = 7 and h.organization_id = $1", [organizationId]);
    expect((await verify()).fault).toMatchObject({ link: 8n, kind: "cut" });
  });

  test("writes the whole chain anew: the signed head tells", async () => {
    await untilSigned();
    await superuser.query("create table if not exists kept as select * from audit_event with no data");
    await superuser.query("truncate kept");
    await superuser.query("insert into kept select * from audit_event where organization_id = $1", [organizationId]);
    await superuser.query("delete from audit_event where organization_id = $1", [organizationId]);
    await superuser.query("delete from audit_head where organization_id = $1", [organizationId]);
    // As the service writes it, but with another actor.
    await superuser.query(
      `do $$ declare r record; before bytea := decode(repeat('00', 32), 'hex'); d bytea; begin
        for r in select * from kept order by link loop
          d := sha256(audit_record_digest(r.organization_id, r.occurred_at, r.request_id, r.actor_kind, 'forged', r.action, r.outcome, r.reason, r.credential_id, r.flow_id, r.run_id, null, null));
          before := sha256(before || d);
          insert into audit_event values (r.organization_id, r.link, 1, r.occurred_at, r.request_id, r.actor_kind, 'forged', r.action, r.outcome, r.reason, r.credential_id, r.flow_id, r.run_id, before, null, null);
        end loop;
        insert into audit_head select organization_id, link, hash, hash from audit_event where organization_id = (select organization_id from kept limit 1) order by link desc limit 1;
      end $$`,
    );
    const { fault } = await verify();
    expect(fault?.kind).toBe("signature");
  });

  test("signs with a key of their own: it is not known", async () => {
    await untilSigned();
    await superuser.query("update audit_signature set key_id = '0011223344556677' where organization_id = $1 and link = 10", [organizationId]);
    expect((await verify()).fault).toMatchObject({ link: 10n, kind: "unknown_key" });
  });

  test("moves a signed head to another organization: it is not of that chain", async () => {
    await untilSigned();
    const stranger = organizationId;
    organizationId = randomUUID();
    const user = await token("user", organizationId);
    await rest(service, "POST", "/integrations/credentials", { token: user, body: SFTP });
    await superuser.query("delete from audit_signature where organization_id = $1", [organizationId]);
    await superuser.query("insert into audit_signature select $1, 1, e.hash, s.key_id, s.signed_at, s.signature from audit_signature s, audit_event e where s.organization_id = $2 and s.link = 10 and e.organization_id = $1 on conflict (organization_id, link) do update set signature = excluded.signature, signed_at = excluded.signed_at", [organizationId, stranger]);
    expect((await verify()).fault).toMatchObject({ link: 1n, kind: "signature" });
  });
});

test("the application role cannot change the trail, its signed heads, or take them away", async () => {
  await untilSigned();
  const application = new pg.Client(connectionOf(service.database.applicationUrl));
  await application.connect();
  await application.query("select set_config('app.organizations', $1, false)", [`{${organizationId}}`]);
  for (const table of ["audit_event", "audit_signature"]) {
    for (const statement of [`update ${table} set link = 1`, `delete from ${table}`, `truncate ${table}`, `drop table ${table}`, `alter table ${table} disable trigger all`]) {
      await expect(application.query(statement), statement).rejects.toMatchObject({ code: "42501" });
    }
  }
  for (const statement of ["delete from audit_head", "truncate audit_head", "delete from audit_signing", "truncate audit_signing"]) await expect(application.query(statement), statement).rejects.toMatchObject({ code: "42501" });
  await application.end();
});
