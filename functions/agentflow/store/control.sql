-- Every statement of the API, by name, run as agentflow_api. Row-level security confines each to the one tenant
-- that its transaction has named, which is why none says so itself. Lists are keyset-paginated.

-- name: name_tenant
-- The tenant whose rows this transaction may see, who is asking (for the audit chain), and the longest any of its
-- statements may take.
select set_config('app.tenant_id', %(tenant)s, true), set_config('app.actor', %(actor)s, true),
       set_config('statement_timeout', '10s', true);

-- name: read_key
select hash from agentflow.api_keys where key_id = %(key_id)s and revoked_at is null;

-- name: lock_workflow
-- One registration of a workflow at a time, so that versions and triggers follow each other.
select pg_advisory_xact_lock(hashtextextended(%(tenant)s || '/' || %(name)s, 0));

-- name: find_version
select version from agentflow.workflows where name = %(name)s and hash = %(hash)s;

-- name: insert_version
insert into agentflow.workflows (tenant_id, name, version, hash, document)
select %(tenant)s::uuid, %(name)s, coalesce(max(version), 0) + 1, %(hash)s, %(document)s::json
from agentflow.workflows where name = %(name)s
returning version;

-- name: clear_triggers
delete from agentflow.triggers where workflow = %(name)s;

-- name: insert_trigger
insert into agentflow.triggers (tenant_id, event_type, workflow, version)
values (%(tenant)s, %(event_type)s, %(name)s, %(version)s);

-- name: newest_version
select version from agentflow.workflows
where name = %(name)s and version >= coalesce(%(first)s::int, 1) and version <= coalesce(%(last)s::int, 2147483647)
order by version desc limit 1;

-- name: read_workflow
select name, version, hash, document, created_at from agentflow.workflows
where name = %(name)s and (version = %(version)s or %(version)s::int is null)
order by version desc limit 1;

-- name: list_workflows
-- The newest version of each, by name: one index descent per workflow, however many versions there are.
with recursive page (name, n) as (
  (select name, 1 from agentflow.workflows where name > %(after)s order by name limit 1)
  union all
  select (select w.name from agentflow.workflows w where w.name > page.name order by w.name limit 1), n + 1
  from page where page.name is not null and n < %(limit)s
)
select w.name, w.version, w.hash, w.created_at
from page
cross join lateral (
  select * from agentflow.workflows v where v.name = page.name order by v.version desc limit 1
) w
order by page.n;

-- name: insert_blobs
insert into agentflow.blobs (tenant_id, ref, content)
select %(tenant)s::uuid, c.ref, c.content from unnest(%(refs)s::text[], %(contents)b::bytea[]) as c (ref, content)
order by c.ref
on conflict (tenant_id, ref) do update set used_at = greatest(blobs.used_at, clock_timestamp());

-- name: find_blobs
-- What is found is touched, so that it is there when the run that asks for it comes.
update agentflow.blobs b set used_at = greatest(b.used_at, clock_timestamp())
from (select tenant_id, ref from agentflow.blobs where ref = any (%(refs)s) order by ref for update) f
where b.tenant_id = f.tenant_id and b.ref = f.ref
returning b.ref;

-- name: read_run
select run_id, workflow, version, status, seq, steps, tokens, limit_micro, spent_micro, held_micro, budget, input,
       output, error, request_hash, created_at, updated_at, finished_at, state -> 'parent' as parent,
       (select json_build_object('run', f.o -> 'run', 'at', f.o -> 'at', 'reused', f.o -> 'reused')
        from (select state -> 'forked' as o) f where f.o is not null) as forked_from
from agentflow.runs where run_id = %(run)s;

-- name: read_run_status
select run_id, workflow, version, status, request_hash from agentflow.runs where run_id = %(run)s;

-- name: list_runs
-- Newest first. Looks at no more than "scan" rows, so that a filter that hits little costs no more than one that
-- hits much: a page may be short, and the last row says how far the look went.
with seen as materialized (
  select run_id, workflow, version, status, steps, tokens, limit_micro, spent_micro, held_micro, budget,
         created_at, updated_at, finished_at
  from agentflow.runs
  where created_at <= coalesce(%(at)s::timestamptz, 'infinity')
    and (created_at is distinct from %(at)s::timestamptz or run_id > %(run)s::uuid)
  order by created_at desc, run_id
  limit %(scan)s
), hits as (
  select * from seen
  where (%(status)s::text is null or status = %(status)s) and (%(workflow)s::text is null or workflow = %(workflow)s)
  order by created_at desc, run_id
  limit %(limit)s
), edge as (
  select * from seen order by created_at, run_id desc limit 1
)
select 1 as part, 0 as scanned, hits.* from hits
union all
select 2 as part, (select count(*)::int from seen), edge.* from edge
order by part, created_at desc, run_id;

-- name: list_steps
-- Closed attempts are rows; an open one is in its run's state ([task, attempt, epoch, waits, at_ms, input] by step), and
-- what it was given in its request. A recorded one, and one that waits for its next attempt, is closed.
with closed as (
  select step, attempt, epoch, task, kind, status, input, output, error, usage, held_micro, cost_micro, requested_at,
         completed_at, null::uuid as reused
  from agentflow.steps
  where born = (select created_at from agentflow.runs where run_id = %(run)s) and run_id = %(run)s
    and (step, attempt) > (%(step)s, %(attempt)s)
  order by step, attempt
  limit %(limit)s
), open as (
  select o.key::int as step, (o.value ->> 1)::int as attempt, (o.value ->> 2)::int as epoch, o.value ->> 0 as task,
         case o.value ->> 3 when 'timer' then 'wait' when 'event' then 'event' when 'person' then 'human'
              when 'child' then 'workflow' when 'resume' then 'paused' when 'budget' then 'budget' when 'approval' then 'budget'
              when 'planner' then case when r.state #> array['agents', 'by', o.key] is null then 'compensate' else 'agent' end
              else case t.name when 'llm.requested' then 'llm' else 'tool' end end as kind,
         'requested' as status, coalesce(t.data -> 'input', o.value -> 5) as input, null::json as output,
         null::json as error, null::json as usage, coalesce((t.data ->> 'hold_micro')::bigint, 0) as held_micro,
         0::bigint as cost_micro, timestamptz 'epoch' + (o.value ->> 4)::bigint * interval '1 millisecond' as requested_at,
         null::timestamptz as completed_at, null::uuid as reused
  from agentflow.runs r cross join lateral json_each(coalesce(r.state -> 'open', '{}')) as o
  left join agentflow.outbox t
    on t.tenant_id = r.tenant_id and t.run_id = r.run_id and t.key = o.key || '.' || (o.value ->> 1)
   and t.name in ('llm.requested', 'tool.requested')
  where r.run_id = %(run)s and o.value ->> 3 in ('call', 'timer', 'event', 'person', 'child', 'planner', 'resume', 'budget', 'approval')
)
select * from (
  select * from closed
  union all
  select * from open where (step, attempt) > (%(step)s, %(attempt)s)
) both_kinds
order by step, attempt
limit %(limit)s;

-- name: list_human
-- Steps that wait for a person, by run and step: they subscribe to what no event is.
with page as materialized (
  select tenant_id, run_id, step from agentflow.subscriptions
  where event_type = 'agentflow.human' and (run_id, step) > (%(after_run)s::uuid, %(after_step)s::int)
    and (%(run)s::uuid is null or run_id = %(run)s::uuid) and (%(step)s::int is null or step = %(step)s::int)
  order by run_id, step
  limit %(limit)s
)
select p.run_id as run, p.step, r.workflow, r.version, o.value ->> 0 as task, o.value -> 5 as input,
       case when o.value ->> 3 = 'approval' then r.state -> 'short' -> p.step::text end as short, r.limit_micro, r.spent_micro,
       r.held_micro,
       timestamptz 'epoch' + (o.value ->> 4)::bigint * interval '1 millisecond' as asked_at, t.fire_at as due_at
from page p
join agentflow.runs r on r.tenant_id = p.tenant_id and r.run_id = p.run_id
cross join lateral (select r.state -> 'open' -> p.step::text as value) o
left join agentflow.timers t on t.tenant_id = p.tenant_id and t.run_id = p.run_id and t.key = 'timeout:' || p.step
order by p.run_id, p.step;

-- name: read_reused
-- The runs whose results a fork goes on with ([run, last step], the youngest first), and the steps it has open itself.
select state -> 'forked' -> 'reused' as reused,
       array(select key::int from json_object_keys(coalesce(state -> 'open', '{}')) as key) as open
from agentflow.runs where run_id = %(run)s and state -> 'forked' is not null;

-- name: list_reused
-- Attempts of one of these runs, but for the steps that a younger one has made itself. They have cost the fork nothing.
-- "limit 1" has each step of each younger run looked up by its key.
select s.step, s.attempt, s.epoch, s.task, s.kind, s.status, s.input, s.output, s.error, null::json as usage,
       0::bigint as held_micro, 0::bigint as cost_micro, s.requested_at, s.completed_at, s.run_id as reused
from agentflow.steps s
where s.born = (select created_at from agentflow.runs where run_id = %(from)s) and s.run_id = %(from)s
  and (s.step, s.attempt) > (%(step)s, %(attempt)s) and s.step <= %(last)s and s.step <> all (%(open)s::int[])
  and not exists (
    select from unnest(%(younger)s::uuid[]) as y (run_id)
    cross join lateral (
      select from agentflow.steps o
      where o.born = (select created_at from agentflow.runs r where r.run_id = y.run_id) and o.run_id = y.run_id
        and o.step = s.step
      limit 1
    ) own
  )
order by s.step, s.attempt
limit %(limit)s;

-- name: count_reused
-- By task, how many steps these runs have started that a fork goes on with; not those that it starts anew.
select s.task, count(distinct s.step)::int as starts
from unnest(%(runs)s::uuid[], %(lasts)s::int[]) as k (run_id, last)
cross join lateral (
  select o.task, o.step from agentflow.steps o
  where o.born = (select created_at from agentflow.runs r where r.run_id = k.run_id) and o.run_id = k.run_id
    and o.step <= k.last and o.step <> all (%(open)s::int[])
) s
group by s.task;

-- name: list_results
-- All attempts of some steps, as replaying wants them.
select step, attempt, status, input, output, error from agentflow.steps
where born = (select created_at from agentflow.runs where run_id = %(run)s) and run_id = %(run)s
  and step = any (%(steps)s::int[])
order by step, attempt;

-- name: list_history
-- The run's birth, as a subquery, leads to its one partition and its place there.
select seq, name, data, at, encode(hash, 'hex') as hash from agentflow.history
where born = (select created_at from agentflow.runs where run_id = %(run)s) and run_id = %(run)s and seq > %(after)s
order by seq
limit %(limit)s;

-- name: list_parked
select parked_id, consumer, subject, reason, tries, length(payload) as size, parked_at
from agentflow.parked
where parked_id > %(after)s
order by parked_id
limit %(limit)s;

-- name: take_parked
delete from agentflow.parked where parked_id = %(parked)s
returning parked_id, consumer, subject, reason, headers, payload, tries, parked_at;

-- name: read_retention
select runs, ledger, inbox, parked, spend, fixed from agentflow.retention;

-- name: write_retention
-- Where the operator has fixed it, the walls let no row through.
insert into agentflow.retention (tenant_id, runs, ledger, inbox, parked, spend)
values (%(tenant)s::uuid, %(runs)s, %(ledger)s, %(inbox)s, %(parked)s, %(spend)s)
on conflict (tenant_id) do update
set runs = excluded.runs, ledger = excluded.ledger, inbox = excluded.inbox, parked = excluded.parked,
    spend = excluded.spend, updated_at = clock_timestamp();

-- name: list_limits
select scope, concurrency, per_second, burst, weight, updated_at from agentflow.limits
where scope > %(after)s
order by scope
limit %(limit)s;

-- name: read_limit
select scope, concurrency, per_second, burst, weight, updated_at from agentflow.limits where scope = %(scope)s;

-- name: write_limit
insert into agentflow.limits (tenant_id, scope, concurrency, per_second, burst, weight)
values (%(tenant)s::uuid, %(scope)s, %(concurrency)s, %(per_second)s, %(burst)s, %(weight)s)
on conflict (tenant_id, scope) do update
set concurrency = excluded.concurrency, per_second = excluded.per_second, burst = excluded.burst,
    weight = excluded.weight, updated_at = clock_timestamp()
returning scope, concurrency, per_second, burst, weight, updated_at;

-- name: delete_limit
delete from agentflow.limits where scope = %(scope)s returning scope;

-- name: list_budgets
-- What they are by now: a period that is over is rolled by whoever is charged next.
select b.scope, b.period, b.limit_micro, b.soft_micro, agentflow.spent_now(b.spent_micro, b.ends_at, now.at) as spent_micro,
       b.held_micro, b.frozen, case when b.ends_at <= now.at then agentflow.period_end(b.period, b.zone, now.at)
                               else b.ends_at end as resets_at
from agentflow.budgets b cross join (select clock_timestamp() as at) now
where (b.scope, b.period) > (%(scope)s, %(period)s)
order by b.scope, b.period
limit %(limit)s;

-- name: read_budgets
-- Of these scopes.
select b.scope, b.period, b.limit_micro, agentflow.spent_now(b.spent_micro, b.ends_at, now.at) as spent_micro, b.held_micro,
       b.frozen, (extract(epoch from case when b.ends_at <= now.at
         then agentflow.period_end(b.period, b.zone, now.at) else b.ends_at end) * 1000)::bigint as ends_ms
from agentflow.budgets b cross join (select clock_timestamp() as at) now
where b.scope = any (%(scopes)s)
order by b.scope, b.period;

-- name: has_budgets
select 1 as one from agentflow.budgets limit 1;

-- name: read_admin
select 1 as one from agentflow.api_keys where key_id = %(key_id)s and revoked_at is null and admin;

-- name: read_correction
select key, scope, run_id as run, step, amount_micro, why as reason, made_by as by, request_hash, made_at
from agentflow.corrections where key = %(key)s;

-- name: list_corrections
select key, scope, run_id as run, step, amount_micro, why as reason, made_by as by, made_at
from agentflow.corrections
where %(at)s::timestamptz is null or (made_at, key) < (%(at)s, %(key)s)
order by made_at desc, key desc
limit %(limit)s;

-- name: read_step
-- "alias": the model that its last call was held for, where that was not the task's own.
select task, kind, (
  select h.usage->>'model' from agentflow.ledger h
  where h.born = s.born and h.run_id = s.run_id and h.step = s.step and h.entry = 'hold'
  order by h.attempt desc limit 1
) as alias
from agentflow.steps s
where born = (select created_at from agentflow.runs where run_id = %(run)s) and run_id = %(run)s and step = %(step)s
limit 1;

-- name: read_spent
-- All that was spent in a scope, null where nothing ever was; child runs count where their own calls do.
select sum(cost_micro)::bigint as spent from agentflow.spend
where kind <> 'workflow' and %(scope)s::text in ('tenant', 'workflow:' || workflow, 'budget:' || budget);

-- name: list_prices
-- The newest of each scope, taken back or not.
select distinct on (scope) scope, version, card, set_at from agentflow.prices order by scope, version desc;

-- name: list_price_versions
select version, card, set_at from agentflow.prices where scope = %(scope)s order by version desc limit 100;

-- name: list_audit
-- Of runs only how many: an entry names up to two thousand.
select n, at, kind, encode(link, 'hex') as link,
       case when kind in ('runs', 'runs.removed')
            then json_build_object('runs', json_array_length(data::json -> 'runs')) else data::json end as data
from agentflow.audit
where n > %(after)s
order by n
limit %(limit)s;

-- name: list_costs
-- What was spent in days from "since" to "until", added up by period and by what "by" says; the newest period first. Child
-- runs count where their own calls do: what they have cost is said beside it. Days are the tenant's own. What runs have
-- come to (run_spend) includes their children, which are runs as well: by tenant it is what was spent.
with zoned as materialized (
  select zone from agentflow.tenants where tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid
), rows as (
  select day, workflow, task, agent, kind, provider, name, case when kind <> 'workflow' then price end as price, budget,
         case when kind = 'workflow' then 0 else calls end as calls, input_tokens, output_tokens, cache_read_tokens,
         cache_write_tokens, reasoning_tokens, case when kind = 'workflow' then 0 else ms end as ms,
         case when kind = 'workflow' then 0 else cost_micro end as cost_micro,
         case when kind = 'correction' then cost_micro else 0 end as corrected_micro,
         case when kind = 'workflow' and %(by)s <> 'tenant' then cost_micro else 0 end as children_micro, 0::bigint as runs,
         0::bigint as succeeded, case when kind <> 'workflow' and %(by)s = 'tenant' then cost_micro else 0 end as runs_micro,
         0::bigint as expected_runs, 0::bigint as expected_micro,
         0::bigint as expected_cost_micro
  from agentflow.spend
  where day >= coalesce(%(since)s::date, '-infinity') and day < coalesce(%(until)s::date, 'infinity')
    and (%(workflow)s::text is null or workflow = %(workflow)s)
    and case %(by)s when 'agent' then agent <> '' and kind <> 'workflow'
                    when 'model' then kind = 'llm' or (kind = 'correction' and provider <> '')
                    when 'tool' then kind = 'tool' or (kind = 'correction' and provider = '' and name <> '')
                    when 'budget' then budget <> '' and kind <> 'workflow'
                    when 'step' then true when 'workflow' then true when 'tenant' then true
                    else kind <> 'workflow' end
  union all
  select day, workflow, '', '', '', '', '', null, '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, runs, succeeded,
         case when %(by)s = 'tenant' then 0 else cost_micro end, expected_runs, expected_micro, expected_cost_micro
  from agentflow.run_spend
  where %(by)s in ('tenant', 'workflow') and task = ''
    and day >= coalesce(%(since)s::date, '-infinity') and day < coalesce(%(until)s::date, 'infinity')
    and (%(workflow)s::text is null or workflow = %(workflow)s)
), keyed as (
  select case %(period)s when 'day' then day when 'month' then date_trunc('month', day)::date end as since,
         case when %(by)s in ('workflow', 'step') then workflow else '' end as by_workflow,
         case when %(by)s = 'step' then task else '' end as by_task,
         case when %(by)s = 'agent' then agent else '' end as by_agent,
         case when %(by)s = 'model' then provider else '' end as by_provider,
         case when %(by)s in ('model', 'tool') then name when %(by)s = 'budget' then budget else '' end as by_name, rows.*
  from rows
), added as (
  select coalesce(since, '-infinity') as place, by_workflow, by_task, by_agent, by_provider, by_name,
         coalesce(since, %(since)s::date, min(day)) as since,
         case %(period)s when 'day' then since + 1 when 'month' then (since + interval '1 month')::date
                         else coalesce(%(until)s::date, max(day) + 1) end as until,
         sum(calls)::bigint as calls, sum(input_tokens)::bigint as input_tokens, sum(output_tokens)::bigint as output_tokens,
         sum(cache_read_tokens)::bigint as cache_read_tokens, sum(cache_write_tokens)::bigint as cache_write_tokens,
         sum(reasoning_tokens)::bigint as reasoning_tokens, sum(ms)::bigint as ms, sum(cost_micro)::bigint as cost_micro,
         sum(corrected_micro)::bigint as corrected_micro, sum(children_micro)::bigint as children_micro, sum(runs)::bigint as runs, sum(succeeded)::bigint as succeeded,
         sum(runs_micro)::bigint as runs_micro, sum(expected_runs)::bigint as expected_runs,
         sum(expected_micro)::bigint as expected_micro, sum(expected_cost_micro)::bigint as expected_cost_micro,
         array_agg(distinct price order by price) filter (where price is not null) as prices
  from keyed
  group by keyed.since, by_workflow, by_task, by_agent, by_provider, by_name
)
select a.place::text as place, a.by_workflow, a.by_task, a.by_agent, a.by_provider, a.by_name, a.calls, a.input_tokens,
       a.output_tokens, a.cache_read_tokens, a.cache_write_tokens, a.reasoning_tokens, a.ms, a.cost_micro, a.corrected_micro, a.children_micro,
       a.runs, a.succeeded, a.runs_micro, a.expected_runs, a.expected_micro, a.expected_cost_micro, a.prices,
       a.since as starts_on, a.until as ends_on, timezone(z.zone, a.since::timestamp) as starts_at,
       timezone(z.zone, a.until::timestamp) as ends_at
from added a cross join zoned z
where %(place)s::date is null or a.place < %(place)s
   or (a.place = %(place)s and (a.by_workflow, a.by_task, a.by_agent, a.by_provider, a.by_name)
        > (%(after_workflow)s::text collate "C", %(after_task)s::text, %(after_agent)s::text, %(after_provider)s::text,
           %(after_name)s::text))
order by a.place desc, a.by_workflow, a.by_task, a.by_agent, a.by_provider, a.by_name
limit %(limit)s;

-- name: read_today
select (clock_timestamp() at time zone zone)::date as today from agentflow.tenants
where tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid;

-- name: read_observed
-- What ended runs have come to by version and task: of the version that is asked for, and of the others of late.
select version, task, sum(runs)::bigint as runs, sum(starts)::bigint as starts, sum(calls)::bigint as calls,
       sum(input_tokens)::bigint as input_tokens, sum(output_tokens)::bigint as output_tokens,
       sum(cost_micro)::bigint as cost_micro
from agentflow.run_spend
where workflow = %(workflow)s and day > (clock_timestamp() - %(days)s * interval '1 day')::date
  and version <= %(version)s and version > %(version)s - 20
group by version, task;
