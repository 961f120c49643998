-- What a tenant was told that models and tools cost it, in place of the alias table and the public price list.
--
--   * Only administrators tell it: whoever sets prices decides how far a budget goes.
--   * A version is never changed: holds, ledger and runs name it. Setting a price again makes the next one; a version
--     without a card takes back what was told.

set local role agentflow_owner;
set local search_path = agentflow;

create table prices (
  tenant_id   uuid not null references tenants,
  scope       text collate "C" not null
              check (scope ~ '^(model|tool):.' and length(scope) <= 206),  -- model:<alias or model>, tool:<name>
  version     integer not null check (version > 0),
  card        json,                                  -- core/price.py; null: as everybody else's
  set_at      timestamptz not null default clock_timestamp(),
  primary key (tenant_id, scope, version)
);

create function keep_prices() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  raise integrity_constraint_violation using message = 'a version of a price is never changed: set the next one';
end $$;

create trigger keep before update on prices for each row execute function keep_prices();
create trigger note_deed after insert or update or delete on prices for each row execute function note_deed();

alter table prices enable row level security;
alter table prices force row level security;
create policy one_tenant on prices to agentflow_api
  using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
  with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy named_tenants on prices to agentflow_engine
  using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
  with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null);

grant select on prices to agentflow_api, agentflow_engine;
