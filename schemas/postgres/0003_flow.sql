-- Flow control: limits are data, and what has to wait for one waits in the outbox.
--
--   * A request under a limit is written with its gate, not admitted and never due. The gatekeeper admits it and sends
--     it; the transaction that consumes it deletes it, and so frees what it used. There is no counter to contend for:
--     what is in use is the rows that are admitted.
--   * A run under a limit has, from its planning to its end, a row of its own (consumer 'gate', key 'slot').
--   * Rows without a gate have nulls here and are in neither index: what is not limited pays nothing.

set local role agentflow_owner;
set local search_path = agentflow;

-- What may be in progress at once and start per second; scopes are described in core/limits.py. The operator's
-- (nil) tenant limits all tenants together, and one tenant with scope tenant:<id>.
create table limits (
  tenant_id    uuid not null references tenants,
  scope        text collate "C" not null check (length(scope) between 1 and 160),
  concurrency  integer check (concurrency >= 0),             -- null: unlimited
  per_second   double precision check (per_second > 0),      -- null: unlimited
  burst        integer check (burst > 0),                    -- null: one second's worth
  weight       integer not null default 1 check (weight between 1 and 1000),
  updated_at   timestamptz not null default clock_timestamp(),
  primary key (tenant_id, scope)
);

-- Who leads: whoever raised the epoch last. Nobody admits anything under another one. One row, the operator's.
create table gatekeeper (
  tenant_id  uuid primary key references tenants,
  epoch      bigint not null,
  seen_at    timestamptz not null default clock_timestamp()
) with (fillfactor = 10);

insert into gatekeeper (tenant_id, epoch) values ('00000000-0000-0000-0000-000000000000', 0);

alter table outbox
  add column gate text,                            -- what it waits before: model:<alias>, tool:<name>, workflow:<name>
  add column priority smallint check (priority between 0 and 9),
  add column admitted boolean,                     -- null: has no gate
  add constraint gated check ((gate is null) = (priority is null) and (gate is null) = (admitted is null));

create index outbox_waiting on outbox (tenant_id, gate, priority desc, created_at) where not admitted;
create index outbox_in_use on outbox (tenant_id, gate) where admitted;

do $$
declare t text;
begin
  foreach t in array array['limits', 'gatekeeper'] loop
    execute format('alter table agentflow.%I enable row level security', t);
    execute format('alter table agentflow.%I force row level security', t);
    execute format($p$create policy one_tenant on agentflow.%I to agentflow_api
      using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
      with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    execute format($p$create policy named_tenants on agentflow.%I to agentflow_engine
      using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      $p$, t);
    execute format('create policy relay on agentflow.%I to agentflow_relay using (true) with check (true)', t);
  end loop;
end $$;

grant select, insert, update, delete on limits to agentflow_api;
grant select on limits to agentflow_engine, agentflow_relay;
grant select, update on gatekeeper to agentflow_relay;
