import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0008_accounts";

const SQL = `
alter table service_account
  add column description text,
  add column status text not null default 'active',
  add column granted_providers text[],
  add column granted_credentials uuid[],
  add column updated_at timestamptz(3) not null default now(),
  add column modified_by text not null default 'operator',
  add column deleted_at timestamptz(3),
  add constraint service_account_description_must_be_short check (length(description) <= 1024),
  add constraint service_account_status_must_be_known check (status in ('active', 'inactive')),
  add constraint service_account_must_be_granted_both_or_everything check ((granted_providers is null) = (granted_credentials is null)),
  add constraint service_account_grants_must_be_bounded check (cardinality(granted_providers) <= 32 and cardinality(granted_credentials) <= 256),
  add constraint service_account_modified_by_must_be_an_id_or_a_word check (modified_by ~ '^([0-9a-f-]{36}|operator)$');
comment on column service_account.status is 'Only an active account is let in.';
comment on column service_account.granted_providers is 'Providers whose credentials it may touch, besides granted_credentials; both null for every credential of the organization.';
comment on column service_account.granted_credentials is 'Credentials it may touch, besides those of granted_providers.';
comment on column service_account.deleted_at is 'Hidden and refused since then; the row stays, so that its id is never anybody else.';
create index service_account_newest_idx on service_account (organization_id, created_at desc, id desc) where deleted_at is null;

create table service_account_key_label (
  organization_id uuid not null,
  id uuid not null,
  name text not null,
  description text,
  updated_at timestamptz(3) not null default now(),
  modified_by text not null,
  last_used_at timestamptz(3),
  constraint service_account_key_label_pkey primary key (organization_id, id),
  constraint service_account_key_label_key_fkey foreign key (organization_id, id) references service_account_key (organization_id, id) on delete restrict,
  constraint service_account_key_label_name_must_have_1_to_255_characters check (length(name) between 1 and 255),
  constraint service_account_key_label_description_must_be_short check (length(description) <= 1024),
  constraint service_account_key_label_modified_by_must_be_an_id_or_a_word check (modified_by ~ '^([0-9a-f-]{36}|operator)$')
);
comment on table service_account_key_label is 'What people call an API key, and when it was last used: what the look-up of a key has no need of.';
comment on column service_account_key_label.last_used_at is 'Written behind the calls, a moment late.';
insert into service_account_key_label (organization_id, id, name, modified_by) select organization_id, id, 'key', 'operator' from service_account_key;
${tenantTable("service_account_key_label")}
comment on table service_account_key is 'API keys and client certificates. Found by prefix before an organization is known, therefore without row-level security and without any secret.';
comment on column service_account_key.token_prefix is 'Public part of the key, by which it is found; of a certificate, crt_ and the beginning of its fingerprint.';
comment on column service_account_key.token_hash is 'SHA-256 of the key, which has 256 random bits; the key itself is not stored. Of a certificate, its fingerprint.';

alter table audit_event add column subject_id uuid, add column key_id uuid;
comment on column audit_event.subject_id is 'What it was done to, where that is no credential: a service account or an API key.';
comment on column audit_event.key_id is 'API key or certificate by which a service account proved who it is.';
create function audit_record_digest(
  organization_id uuid, occurred_at timestamptz, request_id text, actor_kind text, actor_id text, action text,
  outcome text, reason text, credential_id uuid, flow_id text, run_id text, subject_id uuid, key_id uuid
) returns bytea language sql stable parallel safe
return sha256(convert_to(case when subject_id is null and key_id is null
  then json_build_array(organization_id, (extract(epoch from occurred_at) * 1000)::bigint, request_id, actor_kind, actor_id, action,
    outcome, reason, credential_id, flow_id, run_id)
  else json_build_array(organization_id, (extract(epoch from occurred_at) * 1000)::bigint, request_id, actor_kind, actor_id, action,
    outcome, reason, credential_id, flow_id, run_id, subject_id, key_id) end::text, 'UTF8'));
comment on function audit_record_digest(uuid, timestamptz, text, text, text, text, text, text, uuid, text, text, uuid, uuid) is
  'As the one with eleven fields, which it equals where the last two are null; else the JSON array has thirteen.';

create table audit_signature (
  organization_id uuid not null,
  link bigint not null,
  hash bytea not null,
  key_id text not null,
  signed_at timestamptz(3) not null,
  signature bytea not null,
  constraint audit_signature_pkey primary key (organization_id, link),
  constraint audit_signature_link_must_be_positive check (link >= 1),
  constraint audit_signature_hash_must_be_32_bytes check (length(hash) = 32),
  constraint audit_signature_must_be_64_bytes check (length(signature) = 64)
);
comment on table audit_signature is 'Signed heads of the audit chains: a trail that ends before the newest of them has been cut.';
comment on column audit_signature.link is 'The link that was the newest when it was signed.';
comment on column audit_signature.hash is 'Hash of that link.';
comment on column audit_signature.key_id is 'Beginning of the SHA-256 of the public key, in hexadecimal.';
comment on column audit_signature.signature is 'Ed25519 over organization, link, hash and time.';
${tenantTable("audit_signature")}

create table audit_signing (
  organization_id uuid not null,
  constraint audit_signing_pkey primary key (organization_id)
);
comment on table audit_signing is 'Organizations that have an audit chain, so that the heads of all of them can be signed. Holds ids only.';
create function remember_audit_chain() returns trigger language plpgsql as $$
begin
  insert into audit_signing (organization_id) values (new.organization_id) on conflict do nothing;
  return null;
end $$;
comment on function remember_audit_chain() is 'Notes an organization when its chain begins; later links do not come here.';
alter table audit_head no force row level security;
insert into audit_signing (organization_id) select organization_id from audit_head;
alter table audit_head force row level security;
create trigger audit_head_begins after insert on audit_head for each row execute function remember_audit_chain();
`;

/** What people manage of service accounts, what narrows them, and signed heads of the audit chains. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
