-- Retention: what is old goes by the week, and nobody else's rows with it.
--
--   * The inbox, too, is partitioned by week: it remembers an event's id for as long as its partition is there.
--   * Partitions are provided weeks ahead, attached rather than created in place (that would lock out every reader),
--     and dropped whole. Only owners make and drop tables, hence two functions with the owner's rights: they take
--     names and times, no rows, and refuse everything but these four tables.
--   * agentflow_keeper removes rows of every tenant, and can read their keys and sizes only: no input, output, history
--     or price. What an archive needs is read as agentflow_engine, one tenant at a time.
--   * A run goes in one transaction: its row is deleted and noted in leftovers. Whatever is left of it in steps and
--     history goes with the week's partition, or key by key; a crash between leaves a note, never half a run.
--   * blob_uses counts who refers to a blob. It is filled by the insert that brings the reference (see use_blobs), so
--     that no way into the system can forget it.

do $$
begin
  if not exists (select from pg_roles where rolname = 'agentflow_keeper') then
    create role agentflow_keeper login noinherit nosuperuser nobypassrls;
  end if;
end $$;

set local role agentflow_owner;
set local search_path = agentflow;
set local timezone = 'UTC';

-- ---------------------------------------------------------------------------------------------- how long

-- How long a tenant's rows are kept; null: as the installation says. "fixed": by the operator, and the tenant can't
-- change it.
create table retention (
  tenant_id   uuid primary key references tenants,
  runs        text check (runs ~ '^(forever|[1-9][0-9]{0,4}d)$'),    -- finished runs, from their end
  ledger      text check (ledger ~ '^(forever|[1-9][0-9]{0,4}d)$'),  -- never shorter than runs
  inbox       text check (inbox ~ '^(forever|[1-9][0-9]{0,4}d)$'),   -- ids of clients' events
  parked      text check (parked ~ '^(forever|[1-9][0-9]{0,4}d)$'),  -- never shorter than runs
  fixed       boolean not null default false,
  updated_at  timestamptz not null default clock_timestamp()
);

-- Runs whose rows in steps and history have still to go. Only rows of runs that are gone are ever deleted there.
create table leftovers (
  tenant_id   uuid not null,
  born        timestamptz not null,
  run_id      uuid not null,
  removed_at  timestamptz not null default clock_timestamp(),
  primary key (tenant_id, born, run_id)
);

-- When a chore was last done, so that ten hosts do it once; for "archive" where to, so that nobody removes by hand what
-- the installation archives.
create table upkeep (
  tenant_id   uuid not null references tenants,
  chore       text not null check (chore in ('prune', 'archive')),
  detail      text not null default '',
  done_at     timestamptz not null default clock_timestamp(),
  primary key (tenant_id, chore)
);

create index parked_oldest on parked (tenant_id, parked_at);

-- ---------------------------------------------------------------------------------------------- inbox

alter table inbox no force row level security;   -- upon the owner, who copies it
alter table inbox rename to inbox_0001;
alter table inbox_0001 rename constraint inbox_pkey to inbox_0001_pkey;
alter table inbox_0001 rename constraint inbox_tenant_id_fkey to inbox_0001_tenant_id_fkey;

-- Events that have no twin (published by clients, or repeated signals): handled once. The key can't be unique across
-- partitions: whoever enters an event holds the lock of its id and has looked into all of them.
create table inbox (
  tenant_id   uuid not null references tenants,
  consumer    text not null,
  event_id    text not null,                       -- source + id
  at          timestamptz not null default clock_timestamp(),
  primary key (tenant_id, consumer, event_id, at)
) partition by range (at);

create table inbox_other partition of inbox default;

-- ---------------------------------------------------------------------------------------------- partitions

-- Partitions for every week between two times, for all that is partitioned; returns how many were made. Rows that had
-- to wait in the default partition for want of their week are moved into it, if they are few enough to be moved in a
-- moment; more stay where they are, and are found there as well.
create or replace function provide_partitions(since timestamptz, until timestamptz) returns integer
language plpgsql security definer
set search_path = agentflow, pg_temp
set timezone = 'UTC'
set lock_timeout = '200ms'
as $$
declare
  at_a_time constant integer := 20000;
  pair text[];
  parent text;
  part text;
  other text;
  week timestamptz;
  stray integer;
  made integer := 0;
begin
  if not coalesce(since < until and until - since < interval '10 years', false) then
    raise invalid_parameter_value using message = 'name two times, at most ten years apart';
  end if;
  perform pg_advisory_xact_lock(7305801104022007);
  foreach pair slice 1 in array array[['steps', 'born'], ['history', 'born'], ['ledger', 'born'], ['inbox', 'at']] loop
    parent := pair[1];
    other := parent || '_other';
    week := date_trunc('week', since);
    while week < until loop
      part := parent || to_char(week, '_IYYY"w"IW');
      if to_regclass(format('%I', part)) is null then
        -- Writers wait at the table for this moment: one that had been let through to the default partition would find
        -- its row refused there. Readers wait at the default partition.
        execute format('lock table only %I in share row exclusive mode', parent);
        execute format('lock table %I in access exclusive mode', other);
        execute format('select count(*) from (select from %I where %I >= $1 and %I < $2 limit %s) few',
                       other, pair[2], pair[2], at_a_time + 1)
          into stray using week, week + interval '1 week';
        if stray <= at_a_time then
          execute format('create table %I (like %I including all)', part, parent);
          if stray > 0 then
            -- Aside first: rows that are there when a partition is attached have their tenant checked behind the walls,
            -- where the owner sees none; rows that come later do not.
            execute format('create table %I (like %I)', part || '_aside', parent);
            execute format('with moved as (delete from %I where %I >= $1 and %I < $2 returning *) '
                           'insert into %I select * from moved', other, pair[2], pair[2], part || '_aside')
              using week, week + interval '1 week';
          end if;
          execute format('alter table %I attach partition %I for values from (%L) to (%L)',
                         parent, part, week, week + interval '1 week');
          if stray > 0 then
            execute format('insert into %I select * from %I', part, part || '_aside');
            execute format('drop table %I', part || '_aside');
          end if;
          made := made + 1;
        else
          raise warning '% holds more than % rows of %', other, at_a_time, part;
        end if;
      end if;
      week := week + interval '1 week';
    end loop;
  end loop;
  return made;
end $$;

-- Drops one week of one table. Whoever calls it has made sure that nothing in it is to be kept; the current week and
-- the default partitions are refused all the same.
create function drop_partition(part text) returns void
language plpgsql security definer
set search_path = agentflow, pg_temp
set timezone = 'UTC'
set lock_timeout = '100ms'
as $$
declare
  past timestamptz;
begin
  select (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz into past
  from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
  where c.relnamespace = 'agentflow'::regnamespace and c.relname = part
    and p.relname in ('steps', 'history', 'ledger', 'inbox');
  if not coalesce(past < clock_timestamp() - interval '1 day', false) then
    raise invalid_parameter_value using message = format('%s is not a partition of a week that is over', part);
  end if;
  execute format('drop table %I', part);
end $$;

select provide_partitions(least(min(at), clock_timestamp()), clock_timestamp() + interval '4 weeks') from inbox_0001;

insert into inbox select tenant_id, consumer, event_id, at from inbox_0001;
drop table inbox_0001;

-- ---------------------------------------------------------------------------------------------- blobs

-- When a blob was last given or asked for; infinity while something in blob_uses refers to it.
alter table blobs add column used_at timestamptz not null default clock_timestamp();

-- Who refers to a blob: a run by its input, or a workflow by its text (the nil run). Whoever lets a reference in
-- another way adds it here.
create table blob_uses (
  tenant_id   uuid not null,
  ref         text not null,
  run_id      uuid not null,
  primary key (tenant_id, ref, run_id)
);

create index blob_uses_run on blob_uses (tenant_id, run_id);
create index blobs_unused on blobs (tenant_id, used_at, ref) where used_at < 'infinity';

-- Notes every reference in a text. The blobs' rows are locked on the way, in order: a sweep that was about to take one
-- finds it used.
create function use_blobs(tenant uuid, run uuid, content text) returns void
language plpgsql
set search_path = agentflow, pg_temp
as $$
declare
  refs text[] := array(select distinct m[1] from regexp_matches(content, 'blob:sha256:[0-9a-f]{64}', 'g') m);
begin
  insert into blob_uses (tenant_id, ref, run_id) select tenant, r, run from unnest(refs) r on conflict do nothing;
  update blobs b set used_at = 'infinity'
  from (select tenant_id, ref from blobs where tenant_id = tenant and ref = any (refs) order by ref for update) l
  where b.tenant_id = l.tenant_id and b.ref = l.ref;
end $$;

create function use_blobs_of_run() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  perform use_blobs(new.tenant_id, new.run_id, new.input::text);
  return null;
end $$;

create function use_blobs_of_workflow() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  perform use_blobs(new.tenant_id, '00000000-0000-0000-0000-000000000000', new.document::text);
  return null;
end $$;

-- A look at the input is all that a run without files pays for: 0.4 µs.
create trigger use_blobs after insert on runs
  for each row when (position('blob:sha256:' in new.input::text) > 0) execute function use_blobs_of_run();
create trigger use_blobs after insert on workflows
  for each row when (position('blob:sha256:' in new.document::text) > 0) execute function use_blobs_of_workflow();

-- Row-level security is forced upon the owner, too: it could note nothing.
alter table runs no force row level security;
alter table workflows no force row level security;
alter table blobs no force row level security;

insert into blob_uses (tenant_id, ref, run_id)
select distinct r.tenant_id, m[1], r.run_id
from runs r, regexp_matches(r.input::text, 'blob:sha256:[0-9a-f]{64}', 'g') m
where position('blob:sha256:' in r.input::text) > 0
union
select w.tenant_id, m[1], '00000000-0000-0000-0000-000000000000'
from workflows w, regexp_matches(w.document::text, 'blob:sha256:[0-9a-f]{64}', 'g') m
where position('blob:sha256:' in w.document::text) > 0;

update blobs b set used_at = 'infinity'
where exists (select from blob_uses u where u.tenant_id = b.tenant_id and u.ref = b.ref);

alter table runs force row level security;
alter table workflows force row level security;
alter table blobs force row level security;

-- ---------------------------------------------------------------------------------------------- walls

do $$
declare t text;
begin
  foreach t in array array['inbox', 'retention', 'leftovers', 'upkeep', 'blob_uses'] loop
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
  foreach t in array array['tenants', 'runs', 'steps', 'history', 'ledger', 'inbox', 'outbox', 'timers', 'parked',
                           'blobs', 'blob_uses', 'retention', 'leftovers', 'upkeep'] loop
    execute format('create policy keeper on agentflow.%I to agentflow_keeper using (true) with check (true)', t);
  end loop;
end $$;

-- What the operator has fixed is no business of the tenant's.
create policy not_fixed_new on retention as restrictive for insert to agentflow_api with check (not fixed);
create policy not_fixed on retention as restrictive for update to agentflow_api using (not fixed) with check (not fixed);

revoke execute on function drop_partition(text), provide_partitions(timestamptz, timestamptz) from public;
grant execute on function provide_partitions(timestamptz, timestamptz)
  to agentflow_engine, agentflow_relay, agentflow_keeper;
grant execute on function drop_partition(text) to agentflow_keeper;

grant usage on schema agentflow to agentflow_keeper;
grant select (tenant_id) on tenants to agentflow_keeper;
grant select on retention, leftovers, upkeep, blob_uses to agentflow_keeper;
grant select (tenant_id, run_id, workflow, created_at, finished_at, held_micro, steps, seq, rev) on runs to agentflow_keeper;
grant select (tenant_id, born, run_id, step, attempt) on steps to agentflow_keeper;
grant select (tenant_id, born, run_id, seq) on history to agentflow_keeper;
grant select (tenant_id, born, run_id, step, attempt, entry, at) on ledger to agentflow_keeper;
grant select (tenant_id, consumer, event_id, at) on inbox to agentflow_keeper;
grant select (tenant_id, run_id) on outbox, timers to agentflow_keeper;
grant select (tenant_id, parked_id, parked_at) on parked to agentflow_keeper;
grant select (tenant_id, ref, used_at), update (used_at) on blobs to agentflow_keeper;
grant delete on runs, steps, history, ledger, inbox, parked, blobs, blob_uses, leftovers to agentflow_keeper;
grant insert on leftovers to agentflow_keeper;
grant insert, update on upkeep to agentflow_keeper;

grant select, insert, delete on inbox to agentflow_engine;
grant select (tenant_id, ref, used_at), update (used_at) on blobs to agentflow_engine;
grant select, insert on blob_uses to agentflow_engine;
grant update (used_at) on blobs to agentflow_api;
grant select, insert on blob_uses to agentflow_api;
grant select, insert, update on retention to agentflow_api;
