-- How long a tenant's rows are kept, as the operator sets it: run with the administrator's DSN.

-- name: read
select t.tenant_id, r.runs, r.ledger, r.inbox, r.parked, r.spend, coalesce(r.fixed, false) as fixed
from agentflow.tenants t left join agentflow.retention r using (tenant_id)
where t.tenant_id = %(tenant)s;

-- name: write
insert into agentflow.retention (tenant_id, runs, ledger, inbox, parked, spend, fixed)
select tenant_id, %(runs)s, %(ledger)s, %(inbox)s, %(parked)s, %(spend)s, %(fixed)s
from agentflow.tenants where tenant_id = %(tenant)s
on conflict (tenant_id) do update
set runs = excluded.runs, ledger = excluded.ledger, inbox = excluded.inbox, parked = excluded.parked,
    spend = excluded.spend, fixed = excluded.fixed, updated_at = clock_timestamp();
