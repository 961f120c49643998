-- What the harness asks of the database, by name: the only place that knows the tables' columns. Run as the superuser.

-- name: begin
begin isolation level repeatable read read only;

-- name: now
select clock_timestamp() as now;

-- name: open_runs
select tenant_id, run_id, workflow, status, state, input ->> 'token' as token from agentflow.runs where finished_at is null;

-- name: ended_runs
-- What may never change again, as one text.
select run_id, input ->> 'token' as token, md5(concat(status, '|', output::text, '|', error::text, '|', finished_at)) as digest
from agentflow.runs where finished_at > %(since)s;

-- name: closed_steps
select run_id, step, attempt,
       md5(concat(status, '|', output::text, '|', error::text, '|', usage::text, '|', cost_micro, '|', epoch)) as digest
from agentflow.steps where completed_at > %(since)s and status <> 'requested';

-- name: twins
select run_id, key, consumer, tries, extract(epoch from clock_timestamp() - created_at) as age_s,
       extract(epoch from due_at - clock_timestamp()) as due_s
from agentflow.outbox;

-- name: timer_keys
select run_id, key from agentflow.timers;

-- name: subscribed
select run_id, step from agentflow.subscriptions;

-- name: parked_payloads
select consumer, payload from agentflow.parked;

-- name: money_of_runs
-- Runs whose account is not the sum of their ledger, or which are over their limit.
select r.run_id, r.limit_micro, r.spent_micro, r.held_micro, coalesce(l.spent, 0) as ledger_spent,
       coalesce(l.held, 0) as ledger_held
from agentflow.runs r
left join (
  select run_id, sum(amount_micro) filter (where entry = 'settle') as spent, sum(held_micro) as held
  from agentflow.ledger group by run_id
) l using (run_id)
where r.spent_micro <> coalesce(l.spent, 0) or r.held_micro <> coalesce(l.held, 0)
   or (r.version is not null and not r.frozen and r.spent_micro + r.held_micro > r.limit_micro);

-- name: money_of_budgets
-- Accounts that are not the sum of their runs' ledgers in the period at hand, or over their bound. What a run holds for
-- another that it has started, and settles, counts for its workflow; for the rest that one's own entries do.
select b.tenant_id, b.scope, b.period, b.bound_micro, b.spent_micro, b.held_micro, coalesce(l.spent, 0) as runs_spent,
       coalesce(l.held, 0) as runs_held
from agentflow.budgets b
cross join lateral (
  select sum(e.amount_micro) filter (
           where e.entry = 'settle' and (b.ends_at is null or e.at >= b.ends_at - ('1 ' || b.period)::interval)
         ) as spent, sum(e.held_micro) as held
  from agentflow.ledger e join agentflow.runs r using (tenant_id, run_id)
  where e.tenant_id = b.tenant_id
    and case when b.scope = 'tenant' then e.price <> 'workflow'
             when b.scope like 'workflow:%%' then b.scope = 'workflow:' || r.workflow
             else b.scope = 'budget:' || r.budget and e.price <> 'workflow' end
) l
where b.spent_micro <> coalesce(l.spent, 0) or b.held_micro <> coalesce(l.held, 0)
   or (not b.frozen and b.bound_micro is not null and b.spent_micro + b.held_micro > b.bound_micro);

-- name: warned
-- Accounts whose soft limit was reached.
select tenant_id, scope, period from agentflow.budgets where spent_micro >= soft_micro;

-- name: runs
select tenant_id, run_id, workflow, version, status, seq, epoch, steps, limit_micro, spent_micro, held_micro, frozen, state,
       input, output, error, request_hash, created_at, finished_at,
       md5(concat(status, '|', output::text, '|', error::text, '|', finished_at)) as digest
from agentflow.runs;

-- name: steps
select tenant_id, run_id, step, attempt, epoch, task, kind, status, input, output, error, usage, held_micro, cost_micro,
       requested_at, completed_at,
       md5(concat(status, '|', output::text, '|', error::text, '|', usage::text, '|', cost_micro, '|', epoch)) as digest
from agentflow.steps order by run_id, step, attempt;

-- name: history
-- committed: when the transaction that wrote the line was committed.
select tenant_id, run_id, seq, name, data, hash, at, pg_xact_commit_timestamp(xmin) as committed
from agentflow.history order by run_id, seq;

-- name: ledger
select tenant_id, run_id, step, attempt, entry, amount_micro, held_micro, usage, price from agentflow.ledger;

-- name: spend
select tenant_id, workflow, sum(cost_micro)::bigint as cost_micro from agentflow.spend where kind <> 'workflow' group by 1, 2;

-- name: outbox
select tenant_id, run_id, key, consumer, name, tries, created_at, due_at::text as due_at from agentflow.outbox;

-- name: timers
select tenant_id, run_id, key, kind, fire_at from agentflow.timers;

-- name: subscriptions
select tenant_id, run_id, step, event_type from agentflow.subscriptions;

-- name: inbox
select tenant_id, consumer, event_id from agentflow.inbox;

-- name: parked
select tenant_id, consumer, subject, reason, tries, payload from agentflow.parked;

-- name: workflows
select tenant_id, name, version, document from agentflow.workflows;

-- name: tenant_tables
-- Every table whose rows belong to a tenant, partitions by their parent.
select c.relname as name from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
where n.nspname = 'agentflow' and c.relkind in ('r', 'p') and not c.relispartition order by 1;

-- name: other_tenants_rows
-- Rows that belong to one tenant and hold another's mark.
select tenant_id, left(t::text, 300) as row from agentflow.{table} t
where t::text like %(mark)s and tenant_id <> %(tenant)s;

-- name: other_runs_rows
-- Rows about a run that belongs to another tenant.
select t.tenant_id, t.run_id from agentflow.{table} t join agentflow.runs r on r.run_id = t.run_id
where r.tenant_id <> t.tenant_id;

-- name: run_tables
select c.relname as name from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attname = 'run_id' and not a.attisdropped
where n.nspname = 'agentflow' and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> 'runs' order by 1;

-- name: activity
select pid, usename, state, extract(epoch from clock_timestamp() - state_change) as seconds, left(query, 100) as query
from pg_stat_activity where datname = current_database() and usename like 'agentflow\_%%';

-- name: locks
select count(*) as n from pg_locks where locktype = 'advisory' and database = (select oid from pg_database
where datname = current_database());

-- name: insert_workflow
insert into agentflow.workflows (tenant_id, name, version, hash, document) values (%(tenant)s, %(name)s, 1, %(hash)s, %(document)s);

-- name: claims
select tenant_id, run_id, key, epoch from agentflow.claims;
