import type { Knex } from "knex";

/** Stored in the database; never changes. */
export const name = "0015_kept_uses";

const SQL = `
create or replace function refuse_credential_in_use(organization uuid, credential uuid, within_seconds integer) returns boolean language plpgsql volatile as $$
begin
  if within_seconds > 0 then
    -- Whoever has recorded a use, and has not committed it, holds this lock. The query below sees what was committed by then.
    perform from audit_head h where h.organization_id = organization for update;
    if (select e.occurred_at >= clock_timestamp() - make_interval(secs => within_seconds) from audit_event e
        where e.organization_id = organization and e.credential_id = credential and e.action in ('resolve_credential', 'report_credential_uses') and e.outcome = 'allowed'
        order by e.link desc, e.position desc limit 1) then
      raise exception using errcode = '23514', message = 'the credential was used lately', table = 'credential', constraint = 'credential_must_not_be_in_use';
    end if;
  end if;
  return true;
end $$;
comment on function refuse_credential_in_use(uuid, uuid, integer) is
  'Raises where the credential was resolved, or uses of it were reported, within so many seconds; 0 does not ask. Afterwards no use can be recorded before the end of the transaction.';
`;

/** Uses of a secret that an executor kept are uses. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
