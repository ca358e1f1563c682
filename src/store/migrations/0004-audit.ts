import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0004_audit";

const SQL = `
create table audit_event (
  organization_id uuid not null,
  link bigint not null,
  position integer not null,
  occurred_at timestamptz(3) not null,
  request_id text not null,
  actor_kind text not null,
  actor_id text not null,
  action text not null,
  outcome text not null,
  reason text,
  credential_id uuid,
  flow_id text,
  run_id text,
  hash bytea not null,
  constraint audit_event_pkey primary key (organization_id, link, position),
  constraint audit_event_place_must_be_positive check (link >= 1 and position >= 1),
  constraint audit_event_actor_kind_must_be_known check (actor_kind in ('user', 'service_account', 'operator')),
  constraint audit_event_outcome_must_be_known check (outcome in ('allowed', 'refused', 'cancelled', 'failed')),
  constraint audit_event_must_have_a_reason_unless_allowed check ((outcome = 'allowed') = (reason is null)),
  constraint audit_event_hash_must_be_32_bytes check (length(hash) = 32)
);
comment on table audit_event is 'Who did what with which credential. Append-only: nothing in it is ever changed.';
comment on column audit_event.link is 'Link of the organization''s chain: the records that one transaction committed together. Counts from 1 without gaps.';
comment on column audit_event.position is 'Place in the link, from 1.';
comment on column audit_event.request_id is 'ULID of the request.';
comment on column audit_event.actor_id is 'User, service account, or an operator''s subject.';
comment on column audit_event.outcome is 'A call that was allowed and did not end as its caller wished has a second record, which is cancelled or failed.';
comment on column audit_event.reason is 'Why it was refused, cancelled or failed; null where it was allowed.';
comment on column audit_event.hash is 'Hash of the link: sha256(hash of the link before ‖ sha256(digests of the link''s records, in order)); 32 zero bytes come before link 1.';

create table audit_head (
  organization_id uuid not null,
  link bigint not null,
  digest bytea not null,
  hash bytea not null,
  constraint audit_head_pkey primary key (organization_id),
  constraint audit_head_link_must_be_positive check (link >= 1),
  constraint audit_head_hashes_must_be_32_bytes check (length(digest) = 32 and length(hash) = 32)
);
comment on table audit_head is 'The newest link of each organization''s chain. Its row is locked until the link is committed, which gives the links their order.';
comment on column audit_head.digest is 'sha256(digests of the link''s records, in order).';
comment on column audit_head.hash is 'Hash of the link, as in audit_event.';

create function audit_record_digest(
  organization_id uuid, occurred_at timestamptz, request_id text, actor_kind text, actor_id text, action text,
  outcome text, reason text, credential_id uuid, flow_id text, run_id text
) returns bytea language sql stable parallel safe
return sha256(convert_to(json_build_array(
  organization_id, (extract(epoch from occurred_at) * 1000)::bigint, request_id, actor_kind, actor_id, action,
  outcome, reason, credential_id, flow_id, run_id)::text, 'UTF8'));
comment on function audit_record_digest is 'Digest of one record: SHA-256 of the UTF-8 text of a JSON array of its fields, time in milliseconds since 1970.';
${tenantTable("audit_event")}
${tenantTable("audit_head")}
`;

/** The audit trail and its chain. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
