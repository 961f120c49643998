-- Every statement of the keeper, by name, run as agentflow_keeper: it sees every tenant's rows, but of their columns
-- only keys, times and sizes. Each statement is a transaction of its own and touches a thousand rows at most. Where a
-- statement is about one week it says so in constants, so that no other week's partition is planned or opened. What goes
-- is named by its key or lies between two keys; where it is joined, its tenant is joined along: entering an index by the
-- tenant alone is then no choice, however small a table was when it was last analysed.

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
select t.tenant_id, r.runs, r.ledger, r.inbox, r.parked, r.spend
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
  select %(tenant)s::uuid as tenant_id, k.run_id, k.rev
  from unnest(%(runs)s::uuid[], %(revs)s::int[]) as k (run_id, rev) order by k.run_id
), gone as (
  delete from agentflow.runs r
  using named k
  where r.tenant_id = k.tenant_id and r.run_id = k.run_id and r.rev = k.rev
    and r.finished_at < %(before)s and r.held_micro = 0
    and not exists (select from agentflow.outbox o where o.tenant_id = k.tenant_id and o.run_id = k.run_id)
    and not exists (select from agentflow.timers t where t.tenant_id = k.tenant_id and t.run_id = k.run_id)
  returning r.tenant_id, r.created_at, r.run_id, r.steps + r.seq as rows
), noted as (
  insert into agentflow.leftovers (tenant_id, born, run_id, rows)
  select tenant_id, created_at, run_id, rows from gone
  on conflict do nothing
), told as (
  insert into agentflow.unsealed (tenant_id, kind, data)
  select tenant_id, 'runs.removed', json_build_object('runs', json_agg(run_id)) from gone group by tenant_id
), unclaimed as (
  delete from agentflow.claims k
  using gone g
  where k.tenant_id = g.tenant_id and k.run_id = g.run_id
), unused as (
  delete from agentflow.blob_uses u
  using gone g
  where u.tenant_id = g.tenant_id and u.run_id = g.run_id
  returning u.tenant_id, u.ref
), aged as (
  update agentflow.blobs b
  set used_at = clock_timestamp()
  from (select distinct tenant_id, ref from unused) f
  where b.tenant_id = f.tenant_id and b.ref = f.ref
    and not exists (select from agentflow.blob_uses u
                    where u.tenant_id = f.tenant_id and u.ref = f.ref and not u.run_id = any (%(runs)s::uuid[]))
)
select run_id from gone;

-- name: tenants_with_runs
-- Who still has runs that were born in a week. While anybody has, its partitions stay.
select t.tenant_id from agentflow.tenants t
cross join lateral (
  select 1 from agentflow.runs r
  where r.tenant_id = t.tenant_id and r.created_at >= %(since)s and r.created_at < %(until)s
  limit 1
) r;

-- ---------------------------------------------------------------------------------------------- leftovers

-- name: next_leftover
-- The first run whose rows have still to go, from a place on.
select tenant_id, born from agentflow.leftovers
where (tenant_id, born) >= (%(tenant)s, %(born)s::timestamptz)
order by tenant_id, born, run_id
limit 1;

-- name: read_leftovers
-- The next ones that fill a transaction, and at least one.
select born, run_id from (
  select born, run_id, sum(rows) over (order by born, run_id) - rows as before
  from (
    select born, run_id, greatest(rows, 1) as rows from agentflow.leftovers
    where tenant_id = %(tenant)s and born >= %(since)s and born < %(until)s
    order by born, run_id
    limit %(limit)s
  ) page
) filled
where before < %(fill)s
order by born, run_id;

-- name: any_row
-- Whether a tenant has rows of a week at all.
select 1 from (
  (select 1 from agentflow.steps where tenant_id = %(tenant)s and born >= %(since)s and born < %(until)s limit 1)
  union all
  (select 1 from agentflow.history where tenant_id = %(tenant)s and born >= %(since)s and born < %(until)s limit 1)
) found
limit 1;

-- name: forget_week
-- A page of runs whose week has no rows any more.
with last as materialized (
  select * from (
    select born, run_id from agentflow.leftovers
    where tenant_id = %(tenant)s and born >= %(since)s and born < %(until)s
    order by born, run_id limit %(limit)s
  ) page
  order by born desc, run_id desc limit 1
)
delete from agentflow.leftovers
where tenant_id = %(tenant)s and born >= %(since)s and born < %(until)s
  and (born, run_id) <= ((select born from last), (select run_id from last));

-- name: delete_steps
-- What one run that is gone has left there, a thousand rows at most.
delete from agentflow.steps s
where s.tenant_id = %(tenant)s and s.born = %(born)s and s.run_id = %(run)s
  and s.step <= coalesce((select x.step from agentflow.steps x
                          where x.tenant_id = %(tenant)s and x.born = %(born)s and x.run_id = %(run)s
                          order by x.step, x.attempt offset %(limit)s limit 1), 2147483647);

-- name: delete_history
delete from agentflow.history h
where h.tenant_id = %(tenant)s and h.born = %(born)s and h.run_id = %(run)s
  and h.seq <= coalesce((select x.seq from agentflow.history x
                         where x.tenant_id = %(tenant)s and x.born = %(born)s and x.run_id = %(run)s
                         order by x.seq offset %(limit)s limit 1), 2147483647);

-- name: forget_leftover
-- A run of which nothing is left.
delete from agentflow.leftovers
where tenant_id = %(tenant)s and born = %(born)s and run_id = %(run)s
  and (select 1 from agentflow.steps s
       where s.tenant_id = %(tenant)s and s.born = %(born)s and s.run_id = %(run)s limit 1) is null
  and (select 1 from agentflow.history h
       where h.tenant_id = %(tenant)s and h.born = %(born)s and h.run_id = %(run)s limit 1) is null;

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
with last as materialized (
  select * from (
    select l.born, l.run_id, l.step, l.attempt, l.entry
    from agentflow.ledger l
    where l.tenant_id = %(tenant)s and l.born >= %(since)s and l.born < %(until)s
      and (l.born, l.run_id, l.step, l.attempt, l.entry)
        > (%(born)s::timestamptz, %(run)s::uuid, %(step)s::int, %(attempt)s::int, %(entry)s::text)
    order by l.born, l.run_id, l.step, l.attempt, l.entry
    limit %(limit)s
  ) page
  order by born desc, run_id desc, step desc, attempt desc, entry desc limit 1
), gone as (
  delete from agentflow.ledger l
  where l.tenant_id = %(tenant)s and l.born >= %(since)s and l.born < %(until)s
    and (l.born, l.run_id, l.step, l.attempt, l.entry)
      > (%(born)s::timestamptz, %(run)s::uuid, %(step)s::int, %(attempt)s::int, %(entry)s::text)
    and (l.born, l.run_id, l.step, l.attempt, l.entry)
      <= ((select born from last), (select run_id from last), (select step from last), (select attempt from last),
          (select entry from last))
    and l.at < %(before)s
    and (select 1 from agentflow.runs r where r.tenant_id = %(tenant)s and r.run_id = l.run_id limit 1) is null
  returning 1
)
select born, run_id as run, step, attempt, entry, (select count(*) from gone) as rows from last;

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
with last as materialized (
  select * from (
    select i.consumer, i.event_id, i.at from agentflow.inbox i
    where i.tenant_id = %(tenant)s and i.at >= %(since)s and i.at < %(until)s
    order by i.consumer, i.event_id, i.at
    limit %(limit)s
  ) page
  order by consumer desc, event_id desc, at desc limit 1
), gone as (
  delete from agentflow.inbox i
  where i.tenant_id = %(tenant)s and i.at >= %(since)s and i.at < %(until)s
    and (i.consumer, i.event_id, i.at)
      <= ((select consumer from last), (select event_id from last), (select at from last))
  returning 1
)
select count(*) as rows from gone;

-- ---------------------------------------------------------------------------------------------- audit

-- name: empty_audit
-- Of the next entries that name runs, those of which no run is there any more lose their data: from the beginning on, so
-- that "before entry n" says which. The chain stays, and it is noted.
with next as materialized (
  select n, data::json -> 'runs' as runs from agentflow.audit
  where tenant_id = %(tenant)s and kind in ('runs', 'runs.removed') and data is not null and at < %(before)s
  order by n limit %(limit)s
), kept as (
  select min(x.n) as n
  from next x
  cross join lateral json_array_elements(x.runs) e
  cross join lateral (
    select 1 from agentflow.runs r
    where r.tenant_id = %(tenant)s and r.run_id = (case json_typeof(e) when 'array' then e ->> 0 else e #>> '{}' end)::uuid
    limit 1
  ) r
), emptied as (
  update agentflow.audit a set data = null
  from next x
  where a.tenant_id = %(tenant)s and a.n = x.n and x.n < coalesce((select n from kept), 2147483647)
  returning a.n
), told as (
  insert into agentflow.unsealed (tenant_id, kind, data)
  select %(tenant)s, 'audit.emptied', json_build_object('before', max(n) + 1) from emptied having count(*) > 0
)
select count(*) as rows from emptied;

-- ---------------------------------------------------------------------------------------------- parked and blobs

-- name: delete_parked
-- The oldest, a thousand or so: those of the same moment go together.
with last as materialized (
  select max(parked_at) as at from (
    select parked_at from agentflow.parked
    where tenant_id = %(tenant)s and parked_at < %(before)s
    order by parked_at
    limit %(limit)s
  ) page
), gone as (
  delete from agentflow.parked p
  where p.tenant_id = %(tenant)s and p.parked_at < %(before)s and p.parked_at <= (select at from last)
  returning 1
)
select count(*) as rows from gone;

-- name: unused_blobs
-- Blobs that nobody has asked for since, oldest first. Most that are referred to are not in this index at all.
select b.ref, b.used_at from agentflow.blobs b
where b.tenant_id = %(tenant)s and b.used_at < %(before)s and b.used_at < 'infinity'
  and (b.used_at, b.ref) > (%(at)s::timestamptz, %(ref)s::text)
  and not exists (select from agentflow.blob_uses u where u.tenant_id = b.tenant_id and u.ref = b.ref)
order by b.used_at, b.ref
limit %(limit)s;

-- name: delete_blobs
-- Whoever lets a reference in locks the blob's row and makes it used: after a wait for that lock used_at is seen anew,
-- and the blob stays.
delete from agentflow.blobs b
where b.tenant_id = %(tenant)s and b.ref = any (%(refs)s::text[]) and b.used_at < %(before)s
  and (select 1 from agentflow.blob_uses u where u.tenant_id = %(tenant)s and u.ref = b.ref limit 1) is null;

-- ---------------------------------------------------------------------------------------------- spend

-- name: delete_spend
-- A tenant's sums of the first day there is before then: as many rows as tasks, models and shards, not as calls.
delete from agentflow.spend
where tenant_id = %(tenant)s and day < %(before)s
  and day = (select s.day from agentflow.spend s where s.tenant_id = %(tenant)s order by s.day limit 1);

-- name: delete_run_spend
delete from agentflow.run_spend
where tenant_id = %(tenant)s and day < %(before)s
  and day = (select s.day from agentflow.run_spend s where s.tenant_id = %(tenant)s order by s.day limit 1);

-- name: fold_spend
-- All shards of the first day before then that has several, as one row each.
with gone as (
  delete from agentflow.spend
  where tenant_id = %(tenant)s and shard <> 0
    and day = (select s.day from agentflow.spend s
               where s.tenant_id = %(tenant)s and s.shard <> 0 and s.day < %(before)s order by s.day limit 1)
  returning *
), kept as (
  insert into agentflow.spend as s (tenant_id, day, workflow, version, task, kind, provider, name, price, budget, shard,
    agent, calls, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, ms,
    cost_micro, held_micro)
  select tenant_id, day, workflow, version, task, kind, provider, name, price, budget, 0, max(agent) as agent,
    sum(calls)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cache_read_tokens)::bigint,
    sum(cache_write_tokens)::bigint, sum(reasoning_tokens)::bigint, sum(ms)::bigint, sum(cost_micro)::bigint,
    sum(held_micro)::bigint
  from gone group by tenant_id, day, workflow, version, task, kind, provider, name, price, budget
  on conflict (tenant_id, day, workflow, version, task, kind, provider, name, price, budget, shard) do update
  set calls = s.calls + excluded.calls, input_tokens = s.input_tokens + excluded.input_tokens, output_tokens =
    s.output_tokens + excluded.output_tokens, cache_read_tokens = s.cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = s.cache_write_tokens + excluded.cache_write_tokens, reasoning_tokens = s.reasoning_tokens +
    excluded.reasoning_tokens, ms = s.ms + excluded.ms, cost_micro = s.cost_micro + excluded.cost_micro, held_micro
    = s.held_micro + excluded.held_micro
)
select count(*) as rows from gone;

-- name: fold_run_spend
-- All shards of the first day before then that has several, as one row each.
with gone as (
  delete from agentflow.run_spend
  where tenant_id = %(tenant)s and shard <> 0
    and day = (select s.day from agentflow.run_spend s
               where s.tenant_id = %(tenant)s and s.shard <> 0 and s.day < %(before)s order by s.day limit 1)
  returning *
), kept as (
  insert into agentflow.run_spend as s (tenant_id, workflow, version, task, day, shard, runs, succeeded, starts,
    calls, input_tokens, output_tokens, cost_micro, expected_runs, expected_micro, expected_cost_micro)
  select tenant_id, workflow, version, task, day, 0, sum(runs)::bigint, sum(succeeded)::bigint,
    sum(starts)::bigint, sum(calls)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint,
    sum(cost_micro)::bigint, sum(expected_runs)::bigint, sum(expected_micro)::bigint,
    sum(expected_cost_micro)::bigint
  from gone group by tenant_id, workflow, version, task, day
  on conflict (tenant_id, workflow, version, task, day, shard) do update
  set runs = s.runs + excluded.runs, succeeded = s.succeeded + excluded.succeeded, starts = s.starts +
    excluded.starts, calls = s.calls + excluded.calls, input_tokens = s.input_tokens + excluded.input_tokens,
    output_tokens = s.output_tokens + excluded.output_tokens, cost_micro = s.cost_micro + excluded.cost_micro,
    expected_runs = s.expected_runs + excluded.expected_runs, expected_micro = s.expected_micro +
    excluded.expected_micro, expected_cost_micro = s.expected_cost_micro + excluded.expected_cost_micro
)
select count(*) as rows from gone;

-- ---------------------------------------------------------------------------------------------- dry runs

-- name: count_spend
select count(*) as rows from agentflow.spend where tenant_id = %(tenant)s and day < %(before)s;

-- name: count_run_spend
select count(*) as rows from agentflow.run_spend where tenant_id = %(tenant)s and day < %(before)s;

-- name: count_entries
select count(*) as rows from agentflow.ledger l
where l.tenant_id = %(tenant)s and l.born >= %(since)s and l.born < %(until)s and l.at < %(before)s
  and not exists (select from agentflow.runs r where r.tenant_id = %(tenant)s and r.run_id = l.run_id);

-- name: count_inbox
select count(*) as rows from agentflow.inbox
where tenant_id = %(tenant)s and at >= %(since)s and at < %(until)s;

-- name: count_parked
select count(*) as rows from agentflow.parked where tenant_id = %(tenant)s and parked_at < %(before)s;
