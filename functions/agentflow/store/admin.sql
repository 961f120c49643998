-- What only an administrator does: run with the DSN that migrations are run with.

-- name: create_tenant
insert into agentflow.tenants (tenant_id, name) values (%(tenant)s, %(name)s) on conflict (tenant_id) do nothing;

-- name: limit_tenant
insert into agentflow.budgets (tenant_id, scope, limit_micro) values (%(tenant)s, 'tenant', %(limit)s)
on conflict (tenant_id, scope, period) do update set limit_micro = excluded.limit_micro;

-- name: lock_tenant
-- One price of a tenant is set at a time.
select tenant_id from agentflow.tenants where tenant_id = %(tenant)s for update;

-- name: set_price
insert into agentflow.prices (tenant_id, scope, version, card)
select %(tenant)s::uuid, %(scope)s, coalesce(max(version), 0) + 1, %(card)s::json
from agentflow.prices where tenant_id = %(tenant)s::uuid and scope = %(scope)s
returning version;

-- name: list_prices
select scope, version, card, set_at from agentflow.prices
where tenant_id = %(tenant)s and (scope = %(scope)s or %(scope)s::text is null)
order by scope, version desc;

-- name: insert_key
insert into agentflow.api_keys (tenant_id, key_id, hash, label, admin)
select tenant_id, %(key_id)s, %(hash)s, %(label)s, %(admin)s from agentflow.tenants where tenant_id = %(tenant)s;

-- name: revoke_key
update agentflow.api_keys set revoked_at = clock_timestamp()
where tenant_id = %(tenant)s and key_id = %(key_id)s and revoked_at is null;

-- name: live_key
select 1 from agentflow.api_keys where tenant_id = %(tenant)s and key_id = %(key_id)s and revoked_at is null;
