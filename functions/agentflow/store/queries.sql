-- Every statement of the engine, by name. Set-wise: one row per element of the arrays, so that a batch of any size
-- is one statement each; see statements.py for what becomes of a single row. Every parameter carries a cast. All run as
-- agentflow_engine inside a transaction that has named its tenants. Rows of a run's partitions carry its "born".

-- name: applied_migrations
-- Which migrations the schema has, which of them took something away, and whether they were applied on another server,
-- so that a host does not begin before all that it knows is there, after what it uses has gone, or on a copy that was
-- put back from a backup. The list may be older than that it says so.
select m.name, coalesce((to_jsonb(m) ->> 'contract')::boolean, false),
       coalesce(to_jsonb(m) ->> 'system' <> s.system_identifier::text, false)
from public.agentflow_migrations m cross join pg_control_system() s
where m.name > '';

-- name: name_tenants
-- The tenants whose rows this transaction may see, and the database's clock in milliseconds.
select set_config('app.tenants', %b::text, true), (extract(epoch from clock_timestamp()) * 1000)::bigint;

-- name: lock_runs
-- Lock first, always in the order of run ids: every other row of a run is only touched under its run's lock.
select r.tenant_id, r.run_id, r.workflow, r.version, r.status, r.seq, r.epoch, r.steps, r.tokens,
       r.limit_micro, r.spent_micro, r.held_micro, r.frozen, r.budget, r.state, r.request_hash, r.trace,
       (extract(epoch from r.created_at) * 1000)::bigint, r.rev, r.chain
from unnest(%b::uuid[], %b::uuid[]) as k (tenant_id, run_id)
join agentflow.runs r using (tenant_id, run_id)
order by r.run_id
for update of r;

-- name: read_budgets
-- All of a tenant's accounts, as they are by now.
select b.tenant_id, b.scope, b.period, b.limit_micro, agentflow.spent_now(b.spent_micro, b.ends_at, now.at),
       b.held_micro, b.frozen, (extract(epoch from case when b.ends_at <= now.at
         then agentflow.period_end(b.period, b.zone, now.at) else b.ends_at end) * 1000)::bigint
from unnest(%b::uuid[]) as k (tenant_id)
cross join (select clock_timestamp() as at) now
join agentflow.budgets b on b.tenant_id = k.tenant_id
order by 1, 2, 3;

-- name: hold_budgets
-- The same, and nobody else charges them until this transaction is over: for who has been raced for them.
select b.tenant_id, b.scope, b.period, b.limit_micro, agentflow.spent_now(b.spent_micro, b.ends_at, now.at),
       b.held_micro, b.frozen, (extract(epoch from case when b.ends_at <= now.at
         then agentflow.period_end(b.period, b.zone, now.at) else b.ends_at end) * 1000)::bigint
from unnest(%b::uuid[]) as k (tenant_id)
cross join (select clock_timestamp() as at) now
join agentflow.budgets b on b.tenant_id = k.tenant_id
order by 1, 2, 3
for update of b;

-- name: read_limits
select l.tenant_id, l.scope, l.concurrency, l.per_second, l.burst, l.weight
from unnest(%b::uuid[]) as k (tenant_id)
join agentflow.limits l using (tenant_id);

-- name: read_prices
-- What tenants were told, each scope's newest; without a card it has been taken back.
select k.tenant_id, p.scope, p.version, p.card
from unnest(%b::uuid[]) as k (tenant_id)
join agentflow.prices p using (tenant_id)
where p.card is not null
  and not exists (select from agentflow.prices n
                  where n.tenant_id = p.tenant_id and n.scope = p.scope and n.version > p.version);

-- name: lock_inbox
-- One transaction at a time looks for an event: its key can't be unique across the weeks the inbox is partitioned by. In
-- the order in which rows are named one by one, so that nobody waits for each other.
select pg_advisory_xact_lock(hashtextextended(k.tenant_id::text || k.consumer || k.event_id, 7305801104022008))
from (
  select * from unnest(%b::uuid[], %b::text[], %b::text[]) as c (tenant_id, consumer, event_id)
  order by c.tenant_id, c.consumer collate "C", c.event_id collate "C"
) k;

-- name: enter_inbox
-- Keep the first of each event; what is not returned was handled before. Comes after lock_inbox, as a statement of its
-- own: it must see what was committed while the lock was waited for.
insert into agentflow.inbox (tenant_id, consumer, event_id)
select distinct c.tenant_id, c.consumer, c.event_id
from unnest(%b::uuid[], %b::text[], %b::text[]) as c (tenant_id, consumer, event_id)
where not exists (select from agentflow.inbox i
                  where i.tenant_id = c.tenant_id and i.consumer = c.consumer and i.event_id = c.event_id)
returning tenant_id, consumer, event_id;

-- name: leave_inbox
delete from agentflow.inbox i
using unnest(%b::uuid[], %b::text[], %b::text[]) as c (tenant_id, consumer, event_id)
where i.tenant_id = c.tenant_id and i.consumer = c.consumer and i.event_id = c.event_id;

-- name: has_twin
select 1 from agentflow.outbox where tenant_id = %b::uuid and run_id = %b::uuid and key = %b::text and consumer = %b::text;

-- name: read_workflow
select version, document from agentflow.workflows
where tenant_id = %b::uuid and name = %b::text and (version = %b::int or %b::int is null)
order by version desc limit 1;

-- name: newest_version
select version from agentflow.workflows
where tenant_id = %b::uuid and name = %b::text and version >= coalesce(%b::int, 1)
  and version <= coalesce(%b::int, 2147483647)
order by version desc limit 1;

-- name: read_triggers
select workflow, version from agentflow.triggers where tenant_id = %b::uuid and event_type = %b::text order by workflow;

-- name: read_subscribers
select run_id, step from agentflow.subscriptions where tenant_id = %b::uuid and event_type = %b::text order by run_id, step;

-- name: read_step_inputs
select s.run_id, s.step, s.input
from unnest(%b::uuid[], %b::timestamptz[], %b::uuid[], %b::int[], %b::int[]) as k (tenant_id, born, run_id, step, attempt)
join agentflow.steps s using (tenant_id, born, run_id, step, attempt);

-- name: insert_runs
-- Whoever comes second gets a unique violation, and finds the run when it looks again.
insert into agentflow.runs (tenant_id, run_id, rev, version, status, seq, epoch, steps, tokens, limit_micro,
                            spent_micro, held_micro, frozen, budget, state, output, error, chain, workflow, input,
                            request_hash, trace, created_at, updated_at, finished_at)
select c.tenant_id, c.run_id, c.rev, c.version, c.status, c.seq, c.epoch, c.steps, c.tokens, c.limit_micro,
       c.spent_micro, c.held_micro, c.frozen, c.budget, c.state::json, c.output::json, c.error::json, c.chain,
       c.workflow, c.input::json, c.request_hash, c.trace, c.created_at, clock_timestamp(), case when c.ended then clock_timestamp() end
from unnest(%b::uuid[], %b::uuid[], %b::int[], %b::int[], %b::text[], %b::int[], %b::int[], %b::int[], %b::bigint[],
            %b::bigint[], %b::bigint[], %b::bigint[], %b::bool[], %b::text[], %b::text[], %b::text[], %b::text[],
            %b::bool[], %b::bytea[], %b::text[], %b::text[], %b::text[], %b::text[], %b::timestamptz[])
  as c (tenant_id, run_id, rev, version, status, seq, epoch, steps, tokens, limit_micro, spent_micro, held_micro,
        frozen, budget, state, output, error, ended, chain, workflow, input, request_hash, trace, created_at);

-- name: update_runs
-- The fence: a run is written on top of the rev it was decided upon, or not at all. Fewer rows than named means that
-- somebody was faster, and dividing by zero undoes the whole transaction. Rows are locked in the order they are named.
with c as materialized (
  select *
  from unnest(%b::uuid[], %b::uuid[], %b::int[], %b::int[], %b::text[], %b::int[], %b::int[], %b::int[], %b::bigint[],
              %b::bigint[], %b::bigint[], %b::bigint[], %b::bool[], %b::text[], %b::text[], %b::text[], %b::text[],
              %b::bool[], %b::bytea[])
    as c (tenant_id, run_id, rev, version, status, seq, epoch, steps, tokens, limit_micro, spent_micro, held_micro,
          frozen, budget, state, output, error, ended, chain)
), written as (
  update agentflow.runs r
  set rev = c.rev, version = c.version, status = c.status, seq = c.seq, epoch = c.epoch, steps = c.steps,
      tokens = c.tokens, limit_micro = c.limit_micro, spent_micro = c.spent_micro, held_micro = c.held_micro,
      frozen = c.frozen, budget = c.budget, state = c.state::json, output = coalesce(c.output::json, r.output),
      error = coalesce(c.error::json, r.error), chain = c.chain, updated_at = clock_timestamp(),
      finished_at = case when c.ended then coalesce(r.finished_at, clock_timestamp()) end
  from c
  where r.tenant_id = c.tenant_id and r.run_id = c.run_id and r.rev = c.rev - 1
  returning 1
)
select 1 / ((select count(*) from written) = (select count(*) from c))::int;

-- name: insert_steps
-- An attempt that has its result. What it was given stands in its request, which is still in the outbox.
insert into agentflow.steps (tenant_id, born, run_id, step, attempt, epoch, task, kind, status, requested_at, input,
                             output, error, usage, held_micro, cost_micro, rev)
select c.tenant_id, c.born, c.run_id, c.step, c.attempt, c.epoch, c.task, c.kind, c.status, c.requested_at,
       coalesce(c.input::json,
                (select o.data -> 'input' from agentflow.outbox o
                 where o.tenant_id = c.tenant_id and o.run_id = c.run_id and o.key = c.key and o.consumer = c.consumer)),
       c.output::json, c.error::json, c.usage::json, c.held_micro, c.cost_micro, c.rev
from unnest(%b::uuid[], %b::timestamptz[], %b::uuid[], %b::int[], %b::int[], %b::int[], %b::text[], %b::text[],
            %b::text[], %b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[],
            %b::int[], %b::text[], %b::text[])
  as c (tenant_id, born, run_id, step, attempt, epoch, task, kind, status, requested_at, input, output, error, usage,
        held_micro, cost_micro, rev, key, consumer);

-- name: insert_history
insert into agentflow.history (tenant_id, born, run_id, seq, name, data, hash, rev, link)
select c.tenant_id, c.born, c.run_id, c.seq, c.name, c.data::json, c.hash, c.rev, c.link
from unnest(%b::uuid[], %b::timestamptz[], %b::uuid[], %b::int[], %b::text[], %b::text[], %b::bytea[], %b::int[],
            %b::bytea[])
  as c (tenant_id, born, run_id, seq, name, data, hash, rev, link);

-- name: note_runs
-- Runs that have begun or ended, for the tenant's chain; see audit.sql.
insert into agentflow.unsealed (tenant_id, kind, run_id, rev, link)
select c.tenant_id, 'run', c.run_id, c.rev, c.link
from unnest(%b::uuid[], %b::uuid[], %b::int[], %b::bytea[]) as c (tenant_id, run_id, rev, link);

-- name: insert_outbox
insert into agentflow.outbox (tenant_id, run_id, key, consumer, name, data, trace, due_at)
select c.tenant_id, c.run_id, c.key, c.consumer, c.name, c.data::json, c.trace,
       clock_timestamp() + c.due_ms * interval '1 millisecond'
from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::int[])
  as c (tenant_id, run_id, key, consumer, name, data, trace, due_ms)
on conflict do nothing;

-- name: insert_gated
-- What has to wait before a gate, never due until the gatekeeper admits it; and what stands for a run in progress.
insert into agentflow.outbox (tenant_id, run_id, key, consumer, name, data, trace, due_at, gate, priority, admitted)
select c.tenant_id, c.run_id, c.key, c.consumer, c.name, c.data::json, c.trace, 'infinity', c.gate, c.priority, c.admitted
from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::int[],
            %b::bool[])
  as c (tenant_id, run_id, key, consumer, name, data, trace, gate, priority, admitted)
on conflict do nothing;

-- name: delete_outbox
delete from agentflow.outbox o
using unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[]) as c (tenant_id, run_id, key, consumer)
where o.tenant_id = c.tenant_id and o.run_id = c.run_id and o.key = c.key and o.consumer = c.consumer;

-- name: insert_ledger
insert into agentflow.ledger (tenant_id, born, run_id, step, attempt, entry, amount_micro, held_micro, price, usage, rev)
select c.tenant_id, c.born, c.run_id, c.step, c.attempt, c.entry, c.amount_micro, c.held_micro, c.price, c.usage::json,
       c.rev
from unnest(%b::uuid[], %b::timestamptz[], %b::uuid[], %b::int[], %b::int[], %b::text[], %b::bigint[], %b::bigint[],
            %b::text[], %b::text[], %b::int[])
  as c (tenant_id, born, run_id, step, attempt, entry, amount_micro, held_micro, price, usage, rev);

-- name: insert_corrections
insert into agentflow.corrections (tenant_id, key, scope, run_id, step, amount_micro, why, made_by, request_hash)
select c.tenant_id, c.key, c.scope, c.run_id, c.step, c.amount_micro, c.why, c.made_by, c.request_hash
from unnest(%b::uuid[], %b::text[], %b::text[], %b::uuid[], %b::int[], %b::bigint[], %b::text[], %b::text[], %b::text[])
  as c (tenant_id, key, scope, run_id, step, amount_micro, why, made_by, request_hash);

-- name: correct_ledger
-- What was corrected of no run: an entry of the nil one, born when it is made.
insert into agentflow.ledger (tenant_id, born, run_id, step, attempt, entry, amount_micro, held_micro, price, usage)
select c.tenant_id, clock_timestamp(), '00000000-0000-0000-0000-000000000000', 0, 1, 'correct', c.amount_micro, 0, c.price,
       c.usage::json
from unnest(%b::uuid[], %b::bigint[], %b::text[], %b::text[]) as c (tenant_id, amount_micro, price, usage);

-- name: charge_budgets
-- Every row of every scope, locked in one order, after the runs; a period that is over begins anew. What does not fit,
-- and any hold on a frozen account, divides by zero, which undoes the transaction: what was decided without looking is
-- decided again. The table's own constraint would refuse it, too. "short" is what was refused for want of headroom; see
-- budgets.sql for what follows from it. "corrected" is what an administrator says was spent besides, or less: see
-- corrections.sql.
--
-- The moment that counts is read once everything is locked, and is left in app.charged_at for add_spend: what is charged
-- to one day's account is in that day's sums. Whoever had the locks before had an earlier one.
with c as materialized (
  select * from unnest(%b::uuid[], %b::text[], %b::bigint[], %b::bigint[], %b::bool[], %b::bool[], %b::bigint[], %b::bigint[])
    as c (tenant_id, scope, held, spent, freezes, holds, short, corrected)
), locked as materialized (
  select b.tenant_id, b.scope, b.period, b.limit_micro, b.spent_micro, b.held_micro, b.bound_micro, b.ends_at, b.zone,
         c.held, c.spent, c.freezes, c.holds, c.short, c.corrected
  from c join agentflow.budgets b on b.tenant_id = c.tenant_id and b.scope = c.scope
  order by 1, 2, 3
  for update of b
), now as materialized (
  select set_config('app.charged_at', clock_timestamp()::text, true)::timestamptz as at from (select count(*) from locked) l
), charged as materialized (
  select l.*, now.at, greatest(0, agentflow.spent_now(l.spent_micro, l.ends_at, now.at) + l.spent + l.corrected) as after
  from locked l cross join now
)
update agentflow.budgets b
set held_micro = b.held_micro + c.held / (not (c.holds and (b.frozen or coalesce(
      c.after + b.held_micro + c.held > b.limit_micro, false))))::int,
    spent_micro = c.after,
    bound_micro = case when b.limit_micro is not null then greatest(b.limit_micro, least(
      case when c.corrected <= 0 then b.bound_micro end, c.after + b.held_micro + c.held)) end,
    ends_at = case when b.ends_at <= c.at then agentflow.period_end(b.period, b.zone, c.at) else b.ends_at end,
    frozen = b.frozen or c.freezes,
    warned = coalesce(c.after >= b.soft_micro, false),
    short_micro = least(b.short_micro, c.short)
from charged c
where b.tenant_id = c.tenant_id and b.scope = c.scope and b.period = c.period;

-- name: add_spend
-- Each connection has a shard of its own, or shares it with few. Rows are locked in the order of their key.
insert into agentflow.spend as s
  (tenant_id, day, workflow, version, task, kind, provider, name, price, budget, shard, agent, calls, input_tokens,
   output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, ms, cost_micro, held_micro)
select c.tenant_id, (coalesce(nullif(current_setting('app.charged_at', true), '')::timestamptz, clock_timestamp())
        at time zone t.zone)::date, c.workflow, c.version, c.task, c.kind, c.provider, c.name, c.price,
       c.budget, pg_backend_pid() % 16, c.agent, c.calls, c.input_tokens, c.output_tokens, c.cache_read_tokens,
       c.cache_write_tokens, c.reasoning_tokens, c.ms, c.cost_micro, c.held_micro
from unnest(%b::uuid[], %b::text[], %b::int[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
            %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[],
            %b::bigint[], %b::bigint[])
  as c (tenant_id, workflow, version, task, kind, provider, name, price, budget, agent, calls, input_tokens,
        output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, ms, cost_micro, held_micro)
join agentflow.tenants t on t.tenant_id = c.tenant_id
on conflict (tenant_id, day, workflow, version, task, kind, provider, name, price, budget, shard) do update
set agent = excluded.agent, calls = s.calls + excluded.calls, input_tokens = s.input_tokens + excluded.input_tokens,
    output_tokens = s.output_tokens + excluded.output_tokens,
    cache_read_tokens = s.cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = s.cache_write_tokens + excluded.cache_write_tokens,
    reasoning_tokens = s.reasoning_tokens + excluded.reasoning_tokens, ms = s.ms + excluded.ms,
    cost_micro = s.cost_micro + excluded.cost_micro, held_micro = s.held_micro + excluded.held_micro;

-- name: add_run_spend
insert into agentflow.run_spend as s
  (tenant_id, day, workflow, version, task, shard, runs, succeeded, starts, calls, input_tokens, output_tokens, cost_micro,
   expected_runs, expected_micro, expected_cost_micro)
select c.tenant_id, (coalesce(nullif(current_setting('app.charged_at', true), '')::timestamptz, clock_timestamp()) at time zone t.zone)::date, c.workflow, c.version, c.task, pg_backend_pid() % 16, c.runs,
       c.succeeded, c.starts, c.calls, c.input_tokens, c.output_tokens, c.cost_micro, c.expected_runs, c.expected_micro,
       c.expected_cost_micro
from unnest(%b::uuid[], %b::text[], %b::int[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[],
            %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[])
  as c (tenant_id, workflow, version, task, runs, succeeded, starts, calls, input_tokens, output_tokens, cost_micro,
        expected_runs, expected_micro, expected_cost_micro)
join agentflow.tenants t on t.tenant_id = c.tenant_id
on conflict (tenant_id, workflow, version, task, day, shard) do update
set runs = s.runs + excluded.runs, succeeded = s.succeeded + excluded.succeeded, starts = s.starts + excluded.starts,
    calls = s.calls + excluded.calls, input_tokens = s.input_tokens + excluded.input_tokens,
    output_tokens = s.output_tokens + excluded.output_tokens, cost_micro = s.cost_micro + excluded.cost_micro,
    expected_runs = s.expected_runs + excluded.expected_runs, expected_micro = s.expected_micro + excluded.expected_micro,
    expected_cost_micro = s.expected_cost_micro + excluded.expected_cost_micro;

-- name: set_timers
insert into agentflow.timers (tenant_id, run_id, key, kind, step, attempt, fire_at)
select c.tenant_id, c.run_id, c.key, c.kind, c.step, c.attempt, clock_timestamp() + c.after_ms * interval '1 millisecond'
from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::int[], %b::int[], %b::bigint[])
  as c (tenant_id, run_id, key, kind, step, attempt, after_ms)
on conflict (tenant_id, run_id, key) do update set fire_at = excluded.fire_at, attempt = excluded.attempt;

-- name: wait_for_budget
-- A timer that is due when the period ends, or there is headroom in its scope before; in the order of "since".
insert into agentflow.timers (tenant_id, run_id, key, kind, step, attempt, fire_at, scope, period, needed_micro, since)
select c.tenant_id, c.run_id, c.key, 'budget', c.step, c.attempt, clock_timestamp() + c.after_ms * interval '1 millisecond',
       c.scope, c.period, c.needed_micro, c.since
from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::int[], %b::int[], %b::bigint[], %b::text[], %b::text[], %b::bigint[],
            %b::timestamptz[])
  as c (tenant_id, run_id, key, step, attempt, after_ms, scope, period, needed_micro, since)
on conflict (tenant_id, run_id, key) do update
set fire_at = excluded.fire_at, scope = excluded.scope, period = excluded.period, needed_micro = excluded.needed_micro;

-- name: clear_timers
delete from agentflow.timers t
using unnest(%b::uuid[], %b::uuid[], %b::text[]) as c (tenant_id, run_id, key)
where t.tenant_id = c.tenant_id and t.run_id = c.run_id and t.key = c.key;

-- name: look_again
-- The accounts that steps have stopped waiting for, whose timers are gone by now: see 0016_leaving.sql.
update agentflow.budgets b set short_micro = 0
from unnest(%b::uuid[], %b::text[]) as c (tenant_id, scope)
where b.tenant_id = c.tenant_id and b.scope = c.scope and b.short_micro is not null;

-- name: subscribe
insert into agentflow.subscriptions (tenant_id, run_id, step, event_type)
select * from unnest(%b::uuid[], %b::uuid[], %b::int[], %b::text[]) as c (tenant_id, run_id, step, event_type)
on conflict do nothing;

-- name: insert_workflows
-- Plans that models have written, each once: its name holds its hash.
insert into agentflow.workflows (tenant_id, name, version, hash, document)
select c.tenant_id, c.name, 1, c.hash, c.document::json
from unnest(%b::uuid[], %b::text[], %b::text[], %b::text[]) as c (tenant_id, name, hash, document)
on conflict do nothing;

-- name: keep_templates
insert into agentflow.templates (tenant_id, key, workflow)
select * from unnest(%b::uuid[], %b::text[], %b::text[]) as c (tenant_id, key, workflow)
order by 1, 2
on conflict (tenant_id, key) do update set workflow = excluded.workflow, kept_at = clock_timestamp();

-- name: read_template
select workflow from agentflow.templates where tenant_id = %b::uuid and key = %b::text;

-- name: unsubscribe
delete from agentflow.subscriptions s
using unnest(%b::uuid[], %b::uuid[], %b::int[]) as c (tenant_id, run_id, step)
where s.tenant_id = c.tenant_id and s.run_id = c.run_id and s.step = c.step;

-- name: end_timers
-- Nothing wakes a run that is over, but for holds that have not been settled.
delete from agentflow.timers t
using unnest(%b::uuid[], %b::uuid[]) as c (tenant_id, run_id)
where t.tenant_id = c.tenant_id and t.run_id = c.run_id and t.kind <> 'hold';

-- name: end_subscriptions
delete from agentflow.subscriptions s
using unnest(%b::uuid[], %b::uuid[]) as c (tenant_id, run_id)
where s.tenant_id = c.tenant_id and s.run_id = c.run_id;

-- name: insert_blobs
-- One that is there already is touched under its row's lock, so that no sweep takes it just now.
insert into agentflow.blobs (tenant_id, ref, content)
select distinct on (c.tenant_id, c.ref) c.tenant_id, c.ref, c.content
from unnest(%b::uuid[], %b::text[], %b::bytea[]) as c (tenant_id, ref, content)
order by c.tenant_id, c.ref
on conflict (tenant_id, ref) do update set used_at = greatest(blobs.used_at, clock_timestamp());

-- name: read_blob
select content from agentflow.blobs where tenant_id = %b::uuid and ref = %b::text;

-- name: park
insert into agentflow.parked (tenant_id, parked_id, consumer, subject, reason, headers, payload, tries)
values (%b::uuid, %b::uuid, %b::text, %b::text, %b::text, %b::text::json, %b::bytea, %b::int)
on conflict do nothing;

-- name: is_tenant
select 1 from agentflow.tenants where tenant_id = %b::uuid;

-- name: postpone
-- Calls that are still being made: their requests are not sent again for a while.
update agentflow.outbox o
set due_at = greatest(o.due_at, clock_timestamp() + c.ms * interval '1 millisecond')
from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::bigint[]) as c (tenant_id, run_id, key, consumer, ms)
where o.tenant_id = c.tenant_id and o.run_id = c.run_id and o.key = c.key and o.consumer = c.consumer;

-- name: claim
-- Before calls that cost money, or may not be repeated blindly: the first to claim one makes it. Only while the request
-- is open: its row is locked, so that it is not recorded or halted meanwhile. Whoever comes second leaves it alone until
-- the claim is over; then it is sent again. A claim that is not seen yet has just been made.
with wanted as (
  update agentflow.outbox o
  set due_at = greatest(o.due_at, coalesce((select k.until from agentflow.claims k
                                            where k.tenant_id = c.tenant_id and k.run_id = c.run_id and k.key = c.key),
                                           clock_timestamp() + c.ms * interval '1 millisecond'))
  from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::int[], %b::uuid[], %b::bigint[])
    as c (tenant_id, run_id, key, consumer, epoch, claimant, ms)
  where o.tenant_id = c.tenant_id and o.run_id = c.run_id and o.key = c.key and o.consumer = c.consumer
    and (o.data ->> 'epoch')::int = c.epoch
  returning c.*
), made as (
  insert into agentflow.claims (tenant_id, run_id, key, epoch, claimant, until)
  select tenant_id, run_id, key, epoch, claimant, clock_timestamp() + ms * interval '1 millisecond' from wanted
  on conflict do nothing
  returning run_id, key
)
select w.run_id, w.key,
       exists (select from made m where m.run_id = w.run_id and m.key = w.key) or k.claimant is not distinct from w.claimant,
       coalesce(k.until > clock_timestamp(), true)
from wanted w
left join agentflow.claims k on k.tenant_id = w.tenant_id and k.run_id = w.run_id and k.key = w.key;

-- name: renew_claims
-- Calls that are still being made.
update agentflow.claims k
set until = clock_timestamp() + c.ms * interval '1 millisecond'
from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::uuid[], %b::bigint[]) as c (tenant_id, run_id, key, claimant, ms)
where k.tenant_id = c.tenant_id and k.run_id = c.run_id and k.key = c.key and k.claimant = c.claimant;

-- name: read_claims
-- Of calls that nobody waits for any more: those that may have been made.
select c.run_id, c.key
from unnest(%b::uuid[], %b::uuid[], %b::text[]) as k (tenant_id, run_id, key)
join agentflow.claims c using (tenant_id, run_id, key);

-- name: release_claims
delete from agentflow.claims k
using unnest(%b::uuid[], %b::uuid[], %b::text[]) as c (tenant_id, run_id, key)
where k.tenant_id = c.tenant_id and k.run_id = c.run_id and k.key = c.key;
