-- The audit chain: every row a run leaves behind is folded into the run's chain, and every run and every
-- deed of an operator into the tenant's. What is folded, and what that shows, is in store/chain.py.
--
--   * Rows bear the rev of the run that they were written with.
--   * What has happened is noted in the transaction in which it happens, by triggers where people change something, so
--     that it does not matter how they do it.
--   * Notes are sealed, in their order, within seconds: that is the tenant's chain. No transaction waits for another's
--     place in it.

set local role agentflow_owner;
set local search_path = agentflow;

alter table runs add column chain bytea;              -- null: the run is older than this
alter table steps add column rev integer;             -- of the run, with which the row was written
alter table ledger add column rev integer;
alter table history add column rev integer, add column link bytea;  -- and half of the chain then

-- What has still to be sealed: a run that has begun or changed after its end (rev, link: its chain then), or a deed.
create table unsealed (
  tenant_id   uuid not null,
  note        bigint generated always as identity,
  at          timestamptz not null default clock_timestamp(),
  kind        text not null check (length(kind) between 1 and 64),
  run_id      uuid,
  rev         integer,
  link        bytea,
  data        json,
  primary key (tenant_id, note)
) with (fillfactor = 100, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0);

-- A tenant's chain. Nobody may change it; data goes when nothing is left of the runs it names, and the chain goes on
-- without it.
create table audit (
  tenant_id   uuid not null,
  n           integer not null check (n > 0),
  at          timestamptz not null,                    -- when it was sealed
  kind        text not null,
  data        text,
  digest      bytea not null,                          -- of data
  link        bytea not null,
  primary key (tenant_id, n)
);

-- Entries that can lose their data.
create index audit_named on audit (tenant_id, n) where data is not null and kind in ('runs', 'runs.removed');

create table audit_heads (
  tenant_id   uuid primary key,
  n           integer not null,
  chain       bytea not null
) with (fillfactor = 50);

-- ---------------------------------------------------------------------------------------------- deeds

-- Notes what somebody has done to a row: as whom ("by": the role, and the API key where it was one), and the row as it
-- is from then on, but for what is secret or large.
create function note_deed() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
declare
  changed jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end)
                   - array['hash', 'document', 'spent_micro', 'held_micro', 'updated_at', 'created_at',
                           'headers', 'payload', 'reason'];
begin
  if tg_table_name = 'workflows' then
    changed := changed || jsonb_build_object('hash', new.hash);
  end if;
  insert into unsealed (tenant_id, kind, data)
  values (case when tg_op = 'DELETE' then old.tenant_id else new.tenant_id end,
          tg_table_name || '.' || lower(tg_op),
          json_build_object('by', concat_ws('/', session_user, nullif(current_setting('app.actor', true), '')),
                            'row', changed));
  return null;
end $$;

create trigger note_deed after insert or update or delete on tenants for each row execute function note_deed();
create trigger note_deed after insert or update or delete on api_keys for each row execute function note_deed();
create trigger note_deed after insert or update or delete on workflows for each row execute function note_deed();
create trigger note_deed after insert or update or delete on limits for each row execute function note_deed();
create trigger note_deed after insert or update or delete on retention for each row execute function note_deed();
-- What is spent changes all the time, and is in the ledger.
create trigger note_deed after insert or delete or update of limit_micro on budgets
  for each row execute function note_deed();
-- A parked message that somebody has had handled again, or thrown away; not those that have been kept long enough.
create trigger note_deed after delete on parked
  for each row when (current_user <> 'agentflow_keeper') execute function note_deed();

-- ---------------------------------------------------------------------------------------------- walls

do $$
declare t text;
begin
  foreach t in array array['unsealed', 'audit', 'audit_heads'] loop
    execute format('alter table agentflow.%I enable row level security', t);
    execute format('alter table agentflow.%I force row level security', t);
    execute format($p$create policy one_tenant on agentflow.%I to agentflow_api
      using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
      with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    execute format($p$create policy named_tenants on agentflow.%I to agentflow_engine
      using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      $p$, t);
    execute format('create policy relay on agentflow.%I to agentflow_relay using (true) with check (true)', t);
  end loop;
end $$;

-- The keeper notes what it removes, and reads nothing but which runs an entry names.
create policy keeper on unsealed to agentflow_keeper using (false) with check (true);
create policy keeper on audit to agentflow_keeper using (kind in ('runs', 'runs.removed'));

grant insert on unsealed to agentflow_api, agentflow_engine, agentflow_keeper;
grant select, delete on unsealed to agentflow_relay;
grant insert on audit to agentflow_relay;
grant select, insert, update on audit_heads to agentflow_relay;
grant select on unsealed, audit, audit_heads to agentflow_engine;
grant select on audit to agentflow_api;
grant select (tenant_id, n, at, kind, data), update (data) on audit to agentflow_keeper;
