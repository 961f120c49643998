-- What only an administrator does to budgets: run with the DSN that migrations are run with.

-- name: change_budget
update agentflow.budgets
set limit_micro = %(limit)s::bigint, soft_micro = %(soft)s::bigint, frozen = frozen and not %(thaw)s,
    warned = warned and coalesce(spent_micro >= %(soft)s::bigint, false)
where tenant_id = %(tenant)s and scope = %(scope)s and period = %(period)s;

-- name: lock_budgets
lock table agentflow.budgets in share row exclusive mode;

-- name: make_budget
-- With what is held in its scope, and with what its period has spent there already, by the sums that the reports read. Of
-- a run that was started by another, what that one holds and spends counts for its workflow only.
with now as materialized (
  select zone, clock_timestamp() as at from agentflow.tenants where tenant_id = %(tenant)s
), period as (
  select agentflow.period_end(%(period)s, zone, at) as ends_at,
         case %(period)s when 'day' then (at at time zone zone)::date
                         when 'month' then date_trunc('month', at at time zone zone)::date
                         else '-infinity' end as since
  from now
), held as (
  select sum(l.held_micro) as micro
  from agentflow.runs r join agentflow.ledger l on l.tenant_id = r.tenant_id and l.born = r.created_at and l.run_id = r.run_id
  where r.tenant_id = %(tenant)s and r.held_micro > 0
    and %(scope)s in ('tenant', 'workflow:' || r.workflow, 'budget:' || r.budget)
    and (%(scope)s = 'workflow:' || r.workflow or l.price <> 'workflow')
), spent as (
  select greatest(0, sum(s.cost_micro)) as micro  -- what is given back of an earlier period gives this one nothing
  from agentflow.spend s cross join period p
  where s.tenant_id = %(tenant)s and s.day >= p.since
    and %(scope)s in ('tenant', 'workflow:' || s.workflow, 'budget:' || s.budget)
    and (%(scope)s = 'workflow:' || s.workflow or s.kind <> 'workflow')
)
insert into agentflow.budgets (tenant_id, scope, period, limit_micro, soft_micro, held_micro, spent_micro, ends_at)
select %(tenant)s, %(scope)s, %(period)s, %(limit)s::bigint, %(soft)s::bigint, coalesce(held.micro, 0),
       coalesce(spent.micro, 0), period.ends_at
from period, held, spent;

-- name: read_budget
select scope, period, limit_micro, soft_micro, agentflow.spent_now(spent_micro, ends_at, clock_timestamp()) as spent_micro,
       held_micro, frozen, ends_at as resets_at
from agentflow.budgets where tenant_id = %(tenant)s and scope = %(scope)s and period = %(period)s;

-- name: remove_budget
delete from agentflow.budgets where tenant_id = %(tenant)s and scope = %(scope)s and period = %(period)s;

-- name: find_zone
select 1 from pg_timezone_names where name = %(zone)s;

-- name: set_zone
update agentflow.tenants set zone = %(zone)s where tenant_id = %(tenant)s;
