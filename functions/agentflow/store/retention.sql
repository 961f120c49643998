-- Every statement of the keeper, by name, run as agentflow_keeper: it sees every tenant's rows, but of their columns
-- only keys, times and sizes. Each statement is a transaction of its own and touches a thousand rows at most. Where a
-- statement is about one week it says so in constants, so that no other week's partition is planned or opened.

-- name: lead
-- Of all hosts one at a time keeps house; the lock goes with the connection.
select pg_try_advisory_lock(7305801104022009), clock_timestamp();

-- name: provide
select agentflow.provide_partitions(clock_timestamp(), clock_timestamp() + %(weeks)s * interval '1 week');

-- name: last_done
select done_at, detail from agentflow.upkeep where tenant_id = %(tenant)s and chore = %(chore)s;

-- name: mark_done
insert into agentflow.upkeep (tenant_id, chore, detail) values (%(tenant)s, %(chore)s, %(detail)s)
on conflict (tenant_id, chore) do update set done_at = clock_timestamp(), detail = excluded.detail;

-- name: tenants
-- Every tenant, with what it has set.
select t.tenant_id, r.runs, r.ledger, r.inbox, r.parked
from agentflow.tenants t left join agentflow.retention r on r.tenant_id = t.tenant_id
order by t.tenant_id;

-- name: partitions
-- The weeks there are, with their sizes in bytes and rows (as last counted).
select p.relname as "table", c.relname as name, b.bound[1]::timestamptz as since, b.bound[2]::timestamptz as until,
       pg_total_relation_size(c.oid) as bytes, greatest(c.reltuples, 0)::bigint as rows
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
join pg_class p on p.oid = i.inhparent
cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') as b (bound)
where p.relnamespace = 'agentflow'::regnamespace and p.relkind = 'p' and b.bound is not null
order by since, name;

-- name: row_bytes
-- What a row of a table takes on average, with its indexes.
select (pg_total_relation_size(c.oid) / greatest(c.reltuples, 1))::bigint as bytes, c.reltuples::bigint as rows
from pg_class c where c.oid = ('agentflow.' || %(table)s)::regclass;

-- name: drop_partition
select agentflow.drop_partition(%(name)s);

-- ---------------------------------------------------------------------------------------------- runs

-- name: look_at_runs
-- A tenant's runs from the oldest on, and which of them may go: finished before then, with settled money, nothing on
-- its way and no timer. Those that may not are looked at again the next day: old runs that still wait are few.
-- (A subquery with a limit is looked up row by row; "exists" might be answered by reading all of a tenant's timers.)
with seen as materialized (
  select run_id, created_at, finished_at, held_micro, steps, seq, rev
  from agentflow.runs
  where tenant_id = %(tenant)s and created_at < %(before)s
    and created_at >= %(at)s::timestamptz and (created_at > %(at)s::timestamptz or run_id < %(run)s)
  order by created_at, run_id desc
  limit %(limit)s
)
select s.run_id, s.created_at, s.steps, s.seq, s.rev,
       coalesce(s.finished_at < %(before)s, false) and s.held_micro = 0
         and (select 1 from agentflow.outbox o where o.tenant_id = %(tenant)s and o.run_id = s.run_id limit 1) is null
         and (select 1 from agentflow.timers t where t.tenant_id = %(tenant)s and t.run_id = s.run_id limit 1) is null
         as due
from seen s
order by s.created_at, s.run_id desc;

-- name: remove_runs
-- Runs that nobody has written to since they were looked at. From here on they are gone; what is left of them in
-- steps and history is noted. Blobs that nobody else refers to begin to age.
with named as materialized (
  select k.run_id, k.rev from unnest(%(runs)s::uuid[], %(revs)s::int[]) as k (run_id, rev) order by k.run_id
), gone as (
  delete from agentflow.runs r
  using named k
  where r.tenant_id = %(tenant)s and r.run_id = k.run_id and r.rev = k.rev
    and r.finished_at < %(before)s and r.held_micro = 0
    and not exists (select from agentflow.outbox o where o.tenant_id = %(tenant)s and o.run_id = k.run_id)
    and not exists (select from agentflow.timers t where t.tenant_id = %(tenant)s and t.run_id = k.run_id)
  returning r.tenant_id, r.created_at, r.run_id
), noted as (
  insert into agentflow.leftovers (tenant_id, born, run_id)
  select tenant_id, created_at, run_id from gone
  on conflict do nothing
), unused as (
  delete from agentflow.blob_uses u
  using gone g
  where u.tenant_id = %(tenant)s and u.run_id = g.run_id
  returning u.ref
), aged as (
  update agentflow.blobs b
  set used_at = clock_timestamp()
  from (select distinct ref from unused) f
  where b.tenant_id = %(tenant)s and b.ref = f.ref
    and not exists (select from agentflow.blob_uses u
                    where u.tenant_id = %(tenant)s and u.ref = f.ref and not u.run_id = any (%(runs)s::uuid[]))
)
select run_id from gone;

-- name: tenants_with_runs
-- Who still has runs that were born in a week. While anybody has, its partitions stay.
select t.tenant_id from agentflow.tenants t
where exists (select from agentflow.runs r
              where r.tenant_id = t.tenant_id and r.created_at >= %(since)s and r.created_at < %(until)s);

-- ---------------------------------------------------------------------------------------------- leftovers

-- name: next_leftover
-- The first run whose rows have still to go, from a place on.
select tenant_id, born from agentflow.leftovers
where (tenant_id, born) >= (%(tenant)s, %(born)s::timestamptz)
order by tenant_id, born, run_id
limit 1;

-- name: read_leftovers
select born, run_id from agentflow.leftovers
where tenant_id = %(tenant)s and born >= %(since)s and born < %(until)s
order by born, run_id
limit %(limit)s;

-- name: delete_steps
-- Up to a thousand rows of runs that are gone, all of one tenant and one week.
with rest as materialized (
  select s.born, s.run_id, s.step, s.attempt
  from unnest(%(borns)s::timestamptz[], %(runs)s::uuid[]) as k (born, run_id)
  cross join lateral (
    select * from (
      select s.born, s.run_id, s.step, s.attempt from agentflow.steps s
      where s.tenant_id = %(tenant)s and s.born = k.born and s.run_id = k.run_id
        and s.born >= %(since)s and s.born < %(until)s
      limit %(limit)s
    ) s
  ) s
  limit %(limit)s
), gone as (
  delete from agentflow.steps s
  using rest r
  where s.tenant_id = %(tenant)s and s.born = r.born and s.run_id = r.run_id and s.step = r.step
    and s.attempt = r.attempt and s.born >= %(since)s and s.born < %(until)s
  returning 1
)
select count(*) as rows from gone;

-- name: delete_history
with rest as materialized (
  select h.born, h.run_id, h.seq
  from unnest(%(borns)s::timestamptz[], %(runs)s::uuid[]) as k (born, run_id)
  cross join lateral (
    select * from (
      select h.born, h.run_id, h.seq from agentflow.history h
      where h.tenant_id = %(tenant)s and h.born = k.born and h.run_id = k.run_id
        and h.born >= %(since)s and h.born < %(until)s
      limit %(limit)s
    ) h
  ) h
  limit %(limit)s
), gone as (
  delete from agentflow.history h
  using rest r
  where h.tenant_id = %(tenant)s and h.born = r.born and h.run_id = r.run_id and h.seq = r.seq
    and h.born >= %(since)s and h.born < %(until)s
  returning 1
)
select count(*) as rows from gone;

-- name: forget_leftovers
delete from agentflow.leftovers l
using unnest(%(borns)s::timestamptz[], %(runs)s::uuid[]) as k (born, run_id)
where l.tenant_id = %(tenant)s and l.born = k.born and l.run_id = k.run_id;

-- ---------------------------------------------------------------------------------------------- ledger and inbox

-- name: ledger_tenants
-- Who has entries of a week: from one tenant to the next, however many rows each has.
with recursive t (tenant_id) as (
  (select l.tenant_id from agentflow.ledger l
   where l.born >= %(since)s and l.born < %(until)s order by l.tenant_id limit 1)
  union all
  select (select l.tenant_id from agentflow.ledger l
          where l.tenant_id > t.tenant_id and l.born >= %(since)s and l.born < %(until)s order by l.tenant_id limit 1)
  from t where t.tenant_id is not null
)
select tenant_id from t where tenant_id is not null;

-- name: late_entry
-- Whether a tenant has an entry of that week that is to be kept: of a run that is still there, or younger.
select 1 from agentflow.ledger l
where l.tenant_id = %(tenant)s and l.born >= %(since)s and l.born < %(until)s
  and (l.at >= %(before)s
       or (select 1 from agentflow.runs r where r.tenant_id = %(tenant)s and r.run_id = l.run_id limit 1) is not null)
limit 1;

-- name: delete_entries
-- A page of a tenant's entries of one week is looked at, and those that are old and of no run any more go.
with page as materialized (
  select l.born, l.run_id, l.step, l.attempt, l.entry, l.at
  from agentflow.ledger l
  where l.tenant_id = %(tenant)s and l.born >= %(since)s and l.born < %(until)s
    and (l.born, l.run_id, l.step, l.attempt, l.entry)
      > (%(born)s::timestamptz, %(run)s::uuid, %(step)s::int, %(attempt)s::int, %(entry)s::text)
  order by l.born, l.run_id, l.step, l.attempt, l.entry
  limit %(limit)s
), gone as (
  delete from agentflow.ledger l
  using page p
  where l.tenant_id = %(tenant)s and l.born = p.born and l.run_id = p.run_id and l.step = p.step
    and l.attempt = p.attempt and l.entry = p.entry and l.born >= %(since)s and l.born < %(until)s
    and p.at < %(before)s
    and not exists (select from agentflow.runs r where r.tenant_id = %(tenant)s and r.run_id = p.run_id)
  returning 1
)
select p.born, p.run_id as run, p.step, p.attempt, p.entry, (select count(*) from gone) as rows
from page p order by p.born desc, p.run_id desc, p.step desc, p.attempt desc, p.entry desc limit 1;

-- name: inbox_tenants
with recursive t (tenant_id) as (
  (select i.tenant_id from agentflow.inbox i
   where i.at >= %(since)s and i.at < %(until)s order by i.tenant_id limit 1)
  union all
  select (select i.tenant_id from agentflow.inbox i
          where i.tenant_id > t.tenant_id and i.at >= %(since)s and i.at < %(until)s order by i.tenant_id limit 1)
  from t where t.tenant_id is not null
)
select tenant_id from t where tenant_id is not null;

-- name: delete_inbox
with rest as materialized (
  select i.consumer, i.event_id, i.at from agentflow.inbox i
  where i.tenant_id = %(tenant)s and i.at >= %(since)s and i.at < %(until)s
  limit %(limit)s
), gone as (
  delete from agentflow.inbox i
  using rest r
  where i.tenant_id = %(tenant)s and i.consumer = r.consumer and i.event_id = r.event_id and i.at = r.at
    and i.at >= %(since)s and i.at < %(until)s
  returning 1
)
select count(*) as rows from gone;

-- ---------------------------------------------------------------------------------------------- parked and blobs

-- name: delete_parked
with rest as materialized (
  select parked_id from agentflow.parked
  where tenant_id = %(tenant)s and parked_at < %(before)s
  order by parked_at
  limit %(limit)s
), gone as (
  delete from agentflow.parked p
  using rest r
  where p.tenant_id = %(tenant)s and p.parked_id = r.parked_id
  returning 1
)
select count(*) as rows from gone;

-- name: unused_blobs
-- Blobs that nobody has asked for since, oldest first. Most that are referred to are not in this index at all.
select b.ref, b.used_at from agentflow.blobs b
where b.tenant_id = %(tenant)s and b.used_at < %(before)s and b.used_at < 'infinity'
  and (b.used_at, b.ref) > (%(at)s::timestamptz, %(ref)s::text)
  and not exists (select from agentflow.blob_uses u where u.tenant_id = %(tenant)s and u.ref = b.ref)
order by b.used_at, b.ref
limit %(limit)s;

-- name: delete_blobs
-- Whoever lets a reference in locks the blob's row and makes it used: after a wait for that lock used_at is seen anew,
-- and the blob stays.
delete from agentflow.blobs b
using unnest(%(refs)s::text[]) as k (ref)
where b.tenant_id = %(tenant)s and b.ref = k.ref and b.used_at < %(before)s
  and not exists (select from agentflow.blob_uses u where u.tenant_id = %(tenant)s and u.ref = k.ref);

-- ---------------------------------------------------------------------------------------------- dry runs

-- name: count_entries
select count(*) as rows from agentflow.ledger l
where l.tenant_id = %(tenant)s and l.born >= %(since)s and l.born < %(until)s and l.at < %(before)s
  and not exists (select from agentflow.runs r where r.tenant_id = %(tenant)s and r.run_id = l.run_id);

-- name: count_inbox
select count(*) as rows from agentflow.inbox
where tenant_id = %(tenant)s and at >= %(since)s and at < %(until)s;

-- name: count_parked
select count(*) as rows from agentflow.parked where tenant_id = %(tenant)s and parked_at < %(before)s;
