-- Runs that are paused, and what a run may be waiting for besides calls, time and events: people and other runs.

set local role agentflow_owner;
set local search_path = agentflow;

alter table runs drop constraint runs_status_check,
  add constraint runs_status_check check (status in
    ('requested', 'planned', 'running', 'paused', 'succeeded', 'failed', 'cancelled'));

-- Which workflow has reached a goal that models plan for, by the goal's class and all that a plan may be made of.
create table templates (
  tenant_id   uuid not null references tenants,
  key         text not null,
  workflow    text not null,
  kept_at     timestamptz not null default clock_timestamp(),
  primary key (tenant_id, key)
);

alter table templates enable row level security;
alter table templates force row level security;
create policy one_tenant on templates to agentflow_api
  using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
  with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy named_tenants on templates to agentflow_engine
  using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
  with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null);

grant select, insert, update on templates to agentflow_engine;
grant select, delete on templates to agentflow_api;
grant insert on workflows to agentflow_engine;
