-- What only an administrator does to budgets: run with the DSN that migrations are run with.

-- name: change_budget
update agentflow.budgets
set limit_micro = %(limit)s::bigint, soft_micro = %(soft)s::bigint, frozen = frozen and not %(thaw)s,
    warned = warned and coalesce(spent_micro >= %(soft)s::bigint, false)
where tenant_id = %(tenant)s and scope = %(scope)s and period = %(period)s;

-- name: lock_budgets
lock table agentflow.budgets in share row exclusive mode;

-- name: make_budget
-- With what is held in its scope. A run's hold for a run that it has started counts for its workflow only.
insert into agentflow.budgets (tenant_id, scope, period, limit_micro, soft_micro, held_micro)
select %(tenant)s::uuid, %(scope)s, %(period)s, %(limit)s::bigint, %(soft)s::bigint, coalesce((
  select sum(l.held_micro)
  from agentflow.runs r join agentflow.ledger l on l.tenant_id = r.tenant_id and l.born = r.created_at and l.run_id = r.run_id
  where r.tenant_id = %(tenant)s and r.held_micro > 0
    and (%(scope)s = 'tenant' or %(scope)s = 'workflow:' || r.workflow or %(scope)s = 'budget:' || r.budget)
    and (%(scope)s = 'workflow:' || r.workflow or l.price <> 'workflow')
), 0);

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
