-- Claims: a call of a tool that declares `effects: once` is written down before it is made.
--
--   * Who makes a call inserts its claim first, in a transaction of its own, and only while the request's twin is there.
--     Whoever finds a claim does not make the call.
--   * As long as the claimant is at work it moves "until" on. What has become of a call whose claim is over is not known,
--     and that is what is recorded.
--   * A claim goes in the transaction that records the attempt or halts it. It does not live in the outbox: a request that
--     is parked loses its twin and gets it back, and would be made again.

set local role agentflow_owner;
set local search_path = agentflow;

create table claims (
  tenant_id   uuid not null,
  run_id      uuid not null,
  key         text not null,                       -- of the request: step.attempt
  epoch       integer not null,                    -- of the step
  claimant    uuid not null,                       -- one for each time somebody sets about a call
  until       timestamptz not null,
  primary key (tenant_id, run_id, key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0);

alter table claims enable row level security;
alter table claims force row level security;
create policy one_tenant on claims to agentflow_api
  using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
  with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy named_tenants on claims to agentflow_engine
  using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
  with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null);
create policy keeper on claims to agentflow_keeper using (true) with check (true);

grant select, insert, update, delete on claims to agentflow_engine;
grant select (tenant_id, run_id), delete on claims to agentflow_keeper;
