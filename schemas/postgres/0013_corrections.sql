-- Corrections: what a provider's invoice, or a refund, changes about what was spent. Made by a tenant's administrator,
-- once for each key, and never changed.
--
--   * One of a run is an entry of its ledger, and in its chain; one of no run is an entry of the nil run's. Both are rows
--     here, which the tenant's chain covers as it does all deeds.
--   * A correction counts when it is made, as a settlement does. What is given back is never more than was spent: a
--     period's account that has less ends at nothing, and what was spent in an earlier one gives this one no headroom.
--   * One that adds more than an account admits is recorded all the same, since it has been billed: the account's bound
--     follows it, and nothing more is admitted until there is headroom again.

-- widens: amount
-- widens: cost

set local role agentflow_owner;
set local search_path = agentflow;

alter table api_keys add column admin boolean not null default false;  -- whether it may correct what was spent

alter table ledger
  drop constraint ledger_amount_micro_check1,  -- so named since its table's successor was made beside it
  add constraint amount check (amount_micro >= 0 or entry = 'correct') not valid;  -- the rows that there are passed a stricter one

alter table spend
  drop constraint spend_cost_micro_check,
  add constraint cost check (cost_micro >= 0 or kind = 'correction') not valid;

alter table run_spend drop constraint run_spend_cost_micro_check;  -- a shard may have the correction of another's run

create table corrections (
  tenant_id     uuid not null references tenants,
  key           text collate "C" not null check (length(key) between 1 and 200),  -- the Idempotency-Key
  scope         text not null check (scope in ('run', 'tenant') or scope ~ '^(workflow|budget):[a-z][a-z0-9_-]{0,63}$'),
  run_id        uuid check ((run_id is null) = (scope <> 'run')),
  step          integer check (step is null or run_id is not null),
  amount_micro  bigint not null check (amount_micro <> 0),
  why           text not null check (length(why) between 1 and 1000),
  made_by       text not null,                       -- the API key
  request_hash  text not null,                       -- tells a replayed key from a reused one
  made_at       timestamptz not null default clock_timestamp(),
  primary key (tenant_id, key)
);

create index corrections_made on corrections (tenant_id, made_at, key);

create function keep_corrections() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  raise integrity_constraint_violation using message = 'a correction is never changed: make another one';
end $$;

create trigger keep before update or delete on corrections for each row execute function keep_corrections();
create trigger note_deed after insert on corrections for each row execute function note_deed();

alter table corrections enable row level security;
alter table corrections force row level security;
create policy one_tenant on corrections to agentflow_api
  using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
  with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid));
create policy named_tenants on corrections to agentflow_engine
  using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
  with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null);

grant select on corrections to agentflow_api;
grant select, insert on corrections to agentflow_engine;
