import type { Knex } from "knex";

/** Stored in the database; never changes. */
export const name = "0011_trail";

const SQL = `
alter table audit_event add column calls integer,
  add constraint audit_event_calls_must_be_positive check (calls >= 1);
comment on column audit_event.calls is 'Calls that the record stands for, where they are not recorded one by one; null for the one that request_id names.';
create function audit_record_digest(
  organization_id uuid, occurred_at timestamptz, request_id text, actor_kind text, actor_id text, action text,
  outcome text, reason text, credential_id uuid, flow_id text, run_id text, subject_id uuid, key_id uuid, calls integer
) returns bytea language sql stable parallel safe
return case when calls is null
  then audit_record_digest(organization_id, occurred_at, request_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id, subject_id, key_id)
  else sha256(convert_to(json_build_array(organization_id, (extract(epoch from occurred_at) * 1000)::bigint, request_id, actor_kind, actor_id, action,
    outcome, reason, credential_id, flow_id, run_id, subject_id, key_id, calls)::text, 'UTF8')) end;
comment on function audit_record_digest(uuid, timestamptz, text, text, text, text, text, text, uuid, text, text, uuid, uuid, integer) is
  'As the one with thirteen fields, which it equals where the last is null; else the JSON array has fourteen.';

-- Every index of a record is paid for by the call that waits for it, so resolving pays for one: the others leave it out, hold one
-- link of sixteen, or keep a summary of many pages that costs an insertion nothing.
create index audit_event_credential_idx on audit_event (organization_id, credential_id, link, position) where credential_id is not null;
create index audit_event_action_idx on audit_event (organization_id, action, link, position) where action <> 'resolve_credential';
create index audit_event_outcome_idx on audit_event (organization_id, outcome, link, position) where outcome <> 'allowed';
create index audit_event_time_idx on audit_event (organization_id, occurred_at, link) where position = 1 and link % 16 = 0;
create index audit_event_word_idx on audit_event using brin (request_id text_bloom_ops, run_id text_bloom_ops, flow_id text_bloom_ops, actor_id text_bloom_ops)
  with (pages_per_range = 32, autosummarize = on);

create function refuse_credential_in_use(organization uuid, credential uuid, within_seconds integer) returns boolean language plpgsql volatile as $$
begin
  if within_seconds > 0 then
    -- Whoever has recorded a use, and has not committed it, holds this lock. The query below sees what was committed by then.
    perform from audit_head h where h.organization_id = organization for update;
    if (select e.occurred_at >= clock_timestamp() - make_interval(secs => within_seconds) from audit_event e
        where e.organization_id = organization and e.credential_id = credential and e.action = 'resolve_credential' and e.outcome = 'allowed'
        order by e.link desc, e.position desc limit 1) then
      raise exception using errcode = '23514', message = 'the credential was used lately', table = 'credential', constraint = 'credential_must_not_be_in_use';
    end if;
  end if;
  return true;
end $$;
comment on function refuse_credential_in_use(uuid, uuid, integer) is
  'Raises where the credential was resolved within so many seconds; 0 does not ask. Afterwards no use can be recorded before the end of the transaction.';
`;

/** What finding records, and records of many calls, need. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
