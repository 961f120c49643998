-- What only an administrator does: run with the DSN that migrations are run with.

-- name: create_tenant
insert into agentflow.tenants (tenant_id, name) values (%(tenant)s, %(name)s) on conflict (tenant_id) do nothing;

-- name: limit_tenant
insert into agentflow.budgets (tenant_id, scope, limit_micro) values (%(tenant)s, 'tenant', %(limit)s)
on conflict (tenant_id, scope) do update set limit_micro = excluded.limit_micro;

-- name: insert_key
insert into agentflow.api_keys (tenant_id, key_id, hash, label)
select tenant_id, %(key_id)s, %(hash)s, %(label)s from agentflow.tenants where tenant_id = %(tenant)s;

-- name: revoke_key
update agentflow.api_keys set revoked_at = clock_timestamp()
where tenant_id = %(tenant)s and key_id = %(key_id)s and revoked_at is null;

-- name: live_key
select 1 from agentflow.api_keys where tenant_id = %(tenant)s and key_id = %(key_id)s and revoked_at is null;
