-- What was spent on what: rolled up by day in the transaction that settles, so that reports read few rows however many
-- calls there were, and go on saying what a month has cost when its runs are removed.
--
--   * spend has a row per day, task, what was called, at which price and for which named budget; run_spend one per day and workflow (task '') and
--     one per task that may cost something: what ended runs have come to, and what the next one is expected to cost from.
--   * Days are the tenant's own. A settlement counts on the day on which it is made, as it does for budgets.
--   * Several writers at once never wait for each other's row: each connection writes rows of its own shard.
--   * The ledger is the truth, and is what the audit chain covers: spend follows from its settlements, and no hash from
--     spend. Steps that cost nothing write nothing here, but for the tokens of models that are free.

set local role agentflow_owner;
set local search_path = agentflow;

alter table tenants add column if not exists zone text not null default 'UTC';  -- an IANA name

create table spend (
  tenant_id           uuid not null,
  day                 date not null,
  workflow            text collate "C" not null,
  version             integer not null,
  task                text collate "C" not null,      -- of the document; '' where it is not known any more
  kind                text collate "C" not null,      -- llm or tool; workflow: child runs, whose own calls count as well
  provider            text collate "C" not null,
  name                text collate "C" not null,      -- the model, the tool, the other workflow
  price               text collate "C" not null,      -- version of the price list
  budget              text collate "C" not null,      -- the named budget that the run is charged to; '': none
  shard               smallint not null,
  agent               text collate "C" not null,
  calls               bigint not null,
  input_tokens        bigint not null,
  output_tokens       bigint not null,
  cache_read_tokens   bigint not null,                -- of input_tokens
  cache_write_tokens  bigint not null,                -- of input_tokens
  reasoning_tokens    bigint not null,                -- of output_tokens
  ms                  bigint not null,
  cost_micro          bigint not null check (cost_micro >= 0),
  held_micro          bigint not null check (held_micro >= 0),  -- what had been held for these calls
  primary key (tenant_id, day, workflow, version, task, kind, provider, name, price, budget, shard)
) with (fillfactor = 60);

create table run_spend (
  tenant_id             uuid not null,
  day                   date not null,
  workflow              text collate "C" not null,
  version               integer not null,
  task                  text collate "C" not null,    -- '': the run as a whole
  shard                 smallint not null,
  runs                  bigint not null,              -- that have ended
  succeeded             bigint not null,
  starts                bigint not null,              -- of the task, that there could have been at most with these inputs
  calls                 bigint not null,
  input_tokens          bigint not null,
  output_tokens         bigint not null,
  cost_micro            bigint not null check (cost_micro >= 0),
  expected_runs         bigint not null,              -- of the runs: those of which it was said what they would cost
  expected_micro        bigint not null,
  expected_cost_micro   bigint not null,              -- what these have cost
  primary key (tenant_id, workflow, version, task, day, shard)
) with (fillfactor = 60);

create index run_spend_days on run_spend (tenant_id, day);

-- What the keeper has not folded yet (0015).
create index spend_unfolded on spend (tenant_id, day) where shard <> 0;
create index run_spend_unfolded on run_spend (tenant_id, day) where shard <> 0;

alter table retention add column spend text check (spend ~ '^(forever|[1-9][0-9]{0,4}d)$');  -- never shorter than ledger

do $$
declare t text;
begin
  foreach t in array array['spend', 'run_spend'] loop
    execute format('alter table agentflow.%I enable row level security', t);
    execute format('alter table agentflow.%I force row level security', t);
    execute format($p$create policy one_tenant on agentflow.%I to agentflow_api
      using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
      with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    execute format($p$create policy named_tenants on agentflow.%I to agentflow_engine
      using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      $p$, t);
    execute format('create policy keeper on agentflow.%I to agentflow_keeper using (true) with check (true)', t);
  end loop;
end $$;

grant select on spend, run_spend to agentflow_api;
grant select, insert, update on spend, run_spend to agentflow_engine;
grant select (tenant_id, day), delete on spend, run_spend to agentflow_keeper;
