-- What only grows is partitioned by time, and written once.
--
--   * steps holds closed attempts only: one insert, no update. An attempt that is still open is in its run's state and,
--     while its call is out, in the outbox.
--   * steps, history and ledger carry "born", the created_at of their run. All rows of a run are in one partition, an
--     insert knows its partition without looking, and keys begin with what grows with time: new rows go to the right
--     edge of each index, whatever the run ids are.
--   * runs.rev counts a run's writes: whoever writes names the one it has read.
--   * Foreign keys to runs go: the engine writes these rows under their run's lock or rev, and checking one per row was
--     a third of a step's time in PostgreSQL.

set local role agentflow_owner;
set local search_path = agentflow;
set local timezone = 'UTC';

alter table runs add column rev integer not null default 0;

-- Row-level security is forced upon the owner, too, and no policy is for it: it would see and copy nothing. What is
-- read here is open to it until the end; the new tables get their walls last.
alter table runs no force row level security;
alter table outbox no force row level security;
alter table steps no force row level security;
alter table history no force row level security;
alter table ledger no force row level security;

update runs set created_at = date_trunc('milliseconds', created_at);

alter table timers drop constraint timers_tenant_id_run_id_fkey;
alter table subscriptions drop constraint subscriptions_tenant_id_run_id_fkey;

-- A retry needs what the attempt was given, and finds it in the request.
update outbox o
set data = (o.data::jsonb || jsonb_build_object('input', coalesce(s.input::jsonb, '{}')))::json
from steps s
where o.name = 'llm.requested' and s.tenant_id = o.tenant_id and s.run_id = o.run_id
  and o.key = s.step || '.' || s.attempt;

alter table steps rename to steps_0001;
alter table history rename to history_0001;
alter table ledger rename to ledger_0001;
alter table steps_0001 rename constraint steps_pkey to steps_0001_pkey;
alter table history_0001 rename constraint history_pkey to history_0001_pkey;
alter table ledger_0001 rename constraint ledger_pkey to ledger_0001_pkey;

-- One attempt of a step, once it has its result.
create table steps (
  tenant_id     uuid not null,
  born          timestamptz not null,
  run_id        uuid not null,
  step          integer not null check (step > 0),
  attempt       integer not null check (attempt > 0),
  epoch         integer not null,
  task          text not null,
  kind          text not null,
  status        text not null check (status in ('succeeded', 'failed', 'halted')),
  input         json,
  output        json,
  error         json,
  usage         json,
  held_micro    bigint not null default 0,
  cost_micro    bigint not null default 0,
  requested_at  timestamptz not null,
  completed_at  timestamptz not null default clock_timestamp(),
  primary key (tenant_id, born, run_id, step, attempt)
) partition by range (born);

-- What a run has decided upon, in order; replaying it gives the same hashes.
create table history (
  tenant_id   uuid not null,
  born        timestamptz not null,
  run_id      uuid not null,
  seq         integer not null,
  name        text not null,                       -- catalogue name of the event decided upon
  data        json not null,                       -- without outputs: those live in steps
  hash        bytea not null,                      -- of (state, commands) after the decision
  at          timestamptz not null default clock_timestamp(),
  primary key (tenant_id, born, run_id, seq)
) partition by range (born);

-- Append-only. A step's hold and its settlement are each written once.
create table ledger (
  tenant_id     uuid not null,
  born          timestamptz not null,
  run_id        uuid not null,
  step          integer not null,
  attempt       integer not null,
  entry         text not null check (entry in ('hold', 'settle', 'release')),
  amount_micro  bigint not null check (amount_micro >= 0),
  held_micro    bigint not null,                   -- what the entry adds to (+) or takes from (-) the hold
  usage         json,
  price         text not null,                     -- version of the price list
  at            timestamptz not null default clock_timestamp(),
  primary key (tenant_id, born, run_id, step, attempt, entry)
) partition by range (born);

-- A row always finds a place, even if nobody has provided for its week.
create table steps_other partition of steps default;
create table history_other partition of history default;
create table ledger_other partition of ledger default;

-- Partitions for every week between two times. Whoever runs functions may call it: it has the owner's rights, because
-- only owners make tables, and touches no row.
create function provide_partitions(since timestamptz, until timestamptz) returns integer
language plpgsql security definer
set search_path = agentflow, pg_temp
set timezone = 'UTC'
as $$
declare
  week timestamptz := date_trunc('week', since);
  name text;
  made integer := 0;
begin
  perform pg_advisory_xact_lock(7305801104022007);
  while week < until loop
    foreach name in array array['steps', 'history', 'ledger'] loop
      if to_regclass(format('%I', name || to_char(week, '_IYYY"w"IW'))) is null then
        execute format('create table %I partition of %I for values from (%L) to (%L)',
                       name || to_char(week, '_IYYY"w"IW'), name, week, week + interval '1 week');
        made := made + 1;
      end if;
    end loop;
    week := week + interval '1 week';
  end loop;
  return made;
end $$;

revoke execute on function provide_partitions from public;
grant execute on function provide_partitions to agentflow_engine, agentflow_relay;

select provide_partitions(coalesce(min(created_at), clock_timestamp()), clock_timestamp() + interval '4 weeks') from runs;

-- An open attempt of the old shape stays what its run's state says of it.
insert into steps
select s.tenant_id, r.created_at, s.run_id, s.step, s.attempt, s.epoch, s.task, s.kind, s.status, s.input, s.output, s.error,
       s.usage, s.held_micro, s.cost_micro, s.requested_at, coalesce(s.completed_at, s.requested_at)
from steps_0001 s join runs r using (tenant_id, run_id)
where s.status <> 'requested';

insert into history
select h.tenant_id, r.created_at, h.run_id, h.seq, h.name, h.data, h.hash, h.at
from history_0001 h join runs r using (tenant_id, run_id);

insert into ledger
select l.tenant_id, r.created_at, l.run_id, l.step, l.attempt, l.entry, l.amount_micro, l.held_micro, l.usage, l.price, l.at
from ledger_0001 l join runs r using (tenant_id, run_id);

drop table steps_0001, history_0001, ledger_0001;
alter table runs force row level security;
alter table outbox force row level security;

-- Partitions are reached through their tables alone: nobody has a right on one.
do $$
declare t text;
begin
  foreach t in array array['steps', 'history', 'ledger'] loop
    execute format('alter table agentflow.%I enable row level security', t);
    execute format('alter table agentflow.%I force row level security', t);
    execute format($p$create policy one_tenant on agentflow.%I to agentflow_api
      using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
      with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    execute format($p$create policy named_tenants on agentflow.%I to agentflow_engine
      using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      $p$, t);
  end loop;
end $$;

grant select on steps, history, ledger to agentflow_api, agentflow_engine;
grant insert on steps, history, ledger to agentflow_engine;
