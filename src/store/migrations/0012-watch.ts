import type { Knex } from "knex";

/** Stored in the database; never changes. */
export const name = "0012_watch";

const SQL = `
alter table credential_event
  add column credential_revision integer,
  drop constraint credential_event_kind_must_be_known,
  add constraint credential_event_kind_must_be_known check (kind in ('created', 'updated', 'rotated', 'deleted', 'restored', 'status_changed'));
comment on table credential_event is 'What happened to credentials, in order: the outbox of webhooks and of the watch feed. Written in the transaction of what happened, never changed, and removed from the oldest on once its time is over.';
comment on column credential_event.credential_revision is 'The credential''s own revision after the event; null for events of before it was kept.';

alter table credential_event_head
  add column pruned bigint not null default 0,
  add column changed_in xid8 not null default pg_current_xact_id(),
  add constraint credential_event_head_pruned_must_not_be_ahead check (pruned between 0 and revision);
comment on column credential_event_head.pruned is 'Newest event that was removed because its time was over; nobody can go on from before it.';
comment on column credential_event_head.changed_in is 'Transaction that wrote the newest event, by which the watch feed finds the organizations in which something happened, however many there are.';
create index credential_event_head_changed_idx on credential_event_head (changed_in);
create function note_event_head() returns trigger language plpgsql as $$
begin
  new.changed_in := pg_current_xact_id();
  return new;
end $$;
comment on function note_event_head() is 'Notes the transaction that wrote the newest event, by whatever statement it came.';
create trigger credential_event_head_changed before update of revision on credential_event_head for each row
  when (old.revision is distinct from new.revision) execute function note_event_head();
`;

/** What following an organization's events needs, and their end. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
