-- The house: every table of AgentFlow, with forced row-level security from the first migration.
--
-- Rules that hold for every table below:
--   * tenant_id is in every primary, unique and foreign key, so no key tells one tenant of another's rows;
--   * row-level security is forced and the roles that log in own nothing;
--   * agentflow_api sees the one tenant of app.tenant_id, agentflow_engine the tenants of app.tenants (a batch may
--     span tenants), agentflow_relay every tenant's outbox and timers and nothing else;
--   * a transaction that names no tenant sees no row.
--   * what only the engine appends, under the lock of its run (history, ledger, outbox), has no foreign key: checking
--     one per row was a twelfth of a step's time.
-- Money is integer micro-dollars (_micro). Times are the database's.

do $$
declare r text;
begin
  if not exists (select from pg_roles where rolname = 'agentflow_owner') then
    create role agentflow_owner nologin;
  end if;
  foreach r in array array['agentflow_api', 'agentflow_engine', 'agentflow_relay'] loop
    if not exists (select from pg_roles where rolname = r) then
      execute format('create role %I login noinherit nosuperuser nobypassrls', r);
    end if;
  end loop;
  execute format('grant agentflow_owner to %I', current_user);
end $$;

create schema if not exists agentflow authorization agentflow_owner;
set local role agentflow_owner;
set local search_path = agentflow;

-- ---------------------------------------------------------------------------------------------- who

create table tenants (
  tenant_id   uuid primary key,
  name        text not null check (length(name) between 1 and 100),
  created_at  timestamptz not null default clock_timestamp()
);

-- The operator's own tenant: it keeps what belongs to nobody, such as messages that could not be read.
insert into tenants (tenant_id, name) values ('00000000-0000-0000-0000-000000000000', 'system');

create table api_keys (
  tenant_id   uuid not null references tenants,
  key_id      text not null check (length(key_id) between 1 and 64),
  hash        bytea not null,                      -- HMAC-SHA-256 of the secret with the pepper
  label       text not null default '',
  created_at  timestamptz not null default clock_timestamp(),
  revoked_at  timestamptz,
  primary key (tenant_id, key_id)
);

-- What a tenant may spend in all, and what it has spent and holds. No row means no limit and no account.
create table budgets (
  tenant_id    uuid not null references tenants,
  scope        text not null check (length(scope) between 1 and 128),
  limit_micro  bigint check (limit_micro >= 0),    -- null: unlimited
  spent_micro  bigint not null default 0 check (spent_micro >= 0),
  held_micro   bigint not null default 0 check (held_micro >= 0),
  frozen       boolean not null default false,     -- a provider billed more than was held
  primary key (tenant_id, scope),
  constraint never_over check (frozen or limit_micro is null or spent_micro + held_micro <= limit_micro)
) with (fillfactor = 50);

-- ---------------------------------------------------------------------------------------------- what

create table workflows (
  tenant_id   uuid not null references tenants,
  name        text not null,
  version     integer not null check (version > 0),
  hash        text not null,
  document    json not null,
  created_at  timestamptz not null default clock_timestamp(),
  primary key (tenant_id, name, version),
  unique (tenant_id, name, hash)
);

-- CloudEvent types that start runs; always the latest version of a workflow.
create table triggers (
  tenant_id   uuid not null,
  event_type  text not null,
  workflow    text not null,
  version     integer not null,
  primary key (tenant_id, event_type, workflow),
  foreign key (tenant_id, workflow, version) references workflows (tenant_id, name, version)
);

create table blobs (
  tenant_id   uuid not null references tenants,
  ref         text not null,                       -- blob:sha256:<hex>
  content     bytea not null,
  created_at  timestamptz not null default clock_timestamp(),
  primary key (tenant_id, ref)
);

-- ---------------------------------------------------------------------------------------------- runs

create table runs (
  tenant_id     uuid not null references tenants,
  run_id        uuid not null,
  workflow      text not null,
  version       integer,                           -- null until planned, when the request named none
  status        text not null check (status in
                  ('requested', 'planned', 'running', 'succeeded', 'failed', 'cancelled')),
  seq           integer not null default 0,        -- last history number
  epoch         integer not null default 0,        -- raised when running steps are halted
  steps         integer not null default 0,        -- steps started
  tokens        bigint not null default 0,
  limit_micro   bigint not null default 0,
  spent_micro   bigint not null default 0 check (spent_micro >= 0),
  held_micro    bigint not null default 0 check (held_micro >= 0),
  frozen        boolean not null default false,    -- a provider billed more than was held
  state         json,                              -- the planner's state, open steps, pins
  input         json,
  output        json,
  error         json,
  request_hash  text not null default '',          -- tells a replayed Idempotency-Key from a reused one
  trace         text,                              -- W3C traceparent of the request
  created_at    timestamptz not null default clock_timestamp(),
  updated_at    timestamptz not null default clock_timestamp(),
  finished_at   timestamptz,
  constraint never_over check (frozen or spent_micro + held_micro <= limit_micro),
  primary key (tenant_id, run_id),
  foreign key (tenant_id, workflow, version) references workflows (tenant_id, name, version)
) with (fillfactor = 40);

create index runs_newest on runs (tenant_id, created_at desc, run_id);

create table steps (
  tenant_id     uuid not null,
  run_id        uuid not null,
  step          integer not null check (step > 0),
  attempt       integer not null check (attempt > 0),
  epoch         integer not null,
  task          text not null,
  kind          text not null,
  status        text not null check (status in ('requested', 'succeeded', 'failed', 'halted')),
  input         json,
  output        json,
  error         json,
  usage         json,
  held_micro    bigint not null default 0,
  cost_micro    bigint not null default 0,
  requested_at  timestamptz not null default clock_timestamp(),
  completed_at  timestamptz,
  primary key (tenant_id, run_id, step, attempt),
  foreign key (tenant_id, run_id) references runs
) with (fillfactor = 70);

-- What a run has decided upon, in order; replaying it gives the same hashes.
create table history (
  tenant_id   uuid not null,
  run_id      uuid not null,
  seq         integer not null,
  name        text not null,                       -- catalogue name of the event decided upon
  data        json not null,                       -- without outputs: those live in steps
  hash        bytea not null,                      -- of (state, commands) after the decision
  at          timestamptz not null default clock_timestamp(),
  primary key (tenant_id, run_id, seq)
);

-- ---------------------------------------------------------------------------------------------- roads

-- Durable twins of events that left a function: a row lives until its consumer has committed (requests) or the
-- bus has acknowledged it (consumer 'facts'). Wipe the bus and the relay sends these again.
create table outbox (
  tenant_id   uuid not null,
  run_id      uuid not null,
  key         text not null,                       -- event id = run_id:key
  consumer    text not null,
  name        text not null,
  data        json not null,
  trace       text,
  tries       integer not null default 0,
  created_at  timestamptz not null default clock_timestamp(),
  due_at      timestamptz not null,                -- when the relay sends it again
  primary key (tenant_id, run_id, key, consumer)
) with (fillfactor = 70);

create index outbox_due on outbox (due_at);

-- Events that have no twin (published by clients, or repeated signals): handled once.
create table inbox (
  tenant_id   uuid not null references tenants,
  consumer    text not null,
  event_id    text not null,                       -- source + id
  at          timestamptz not null default clock_timestamp(),
  primary key (tenant_id, consumer, event_id)
);

create table timers (
  tenant_id   uuid not null,
  run_id      uuid not null,
  key         text not null,
  kind        text not null check (kind in ('retry', 'timeout', 'wait', 'wall', 'hold')),
  step        integer,
  attempt     integer,
  fire_at     timestamptz not null,
  primary key (tenant_id, run_id, key),
  foreign key (tenant_id, run_id) references runs
);

create index timers_due on timers (fire_at);

-- Steps that wait for a CloudEvent of a type.
create table subscriptions (
  tenant_id   uuid not null,
  event_type  text not null,
  run_id      uuid not null,
  step        integer not null,
  primary key (tenant_id, event_type, run_id, step),
  foreign key (tenant_id, run_id) references runs
);

create index subscriptions_run on subscriptions (tenant_id, run_id);

-- Messages that could not be handled, with their reason; retried on demand.
create table parked (
  tenant_id   uuid not null references tenants,
  parked_id   uuid not null,
  consumer    text not null,
  subject     text not null,
  reason      text not null,
  headers     json not null,
  payload     bytea not null,
  tries       integer not null,
  parked_at   timestamptz not null default clock_timestamp(),
  primary key (tenant_id, parked_id)
);

-- ---------------------------------------------------------------------------------------------- money

-- Append-only. A step's hold and its settlement are each written once.
create table ledger (
  tenant_id     uuid not null,
  run_id        uuid not null,
  step          integer not null,
  attempt       integer not null,
  entry         text not null check (entry in ('hold', 'settle', 'release')),
  amount_micro  bigint not null check (amount_micro >= 0),
  held_micro    bigint not null,                   -- what the entry adds to (+) or takes from (-) the hold
  usage         json,
  price         text not null,                     -- version of the price list
  at            timestamptz not null default clock_timestamp(),
  primary key (tenant_id, run_id, step, attempt, entry)
);

-- ---------------------------------------------------------------------------------------------- walls

do $$
declare t text;
begin
  for t in select tablename from pg_tables where schemaname = 'agentflow' loop
    execute format('alter table agentflow.%I enable row level security', t);
    execute format('alter table agentflow.%I force row level security', t);
    execute format($p$create policy one_tenant on agentflow.%I to agentflow_api
      using (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))
      with check (tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    -- array_position, not "= any": an index must never be entered by the tenant alone. Planned while the tables
    -- were empty, a batch would walk all of a tenant's rows instead of looking up its own by key.
    execute format($p$create policy named_tenants on agentflow.%I to agentflow_engine
      using (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      with check (array_position((select nullif(current_setting('app.tenants', true), ''))::uuid[], tenant_id) is not null)
      $p$, t);
  end loop;
end $$;

create policy relay on outbox to agentflow_relay using (true) with check (true);
create policy relay on timers to agentflow_relay using (true) with check (true);

grant usage on schema agentflow to agentflow_api, agentflow_engine, agentflow_relay;

grant select on tenants, budgets, workflows, triggers, runs, steps, history, ledger, blobs, timers, subscriptions, outbox
  to agentflow_api;
grant select, insert, update on api_keys to agentflow_api;
grant insert on workflows, blobs to agentflow_api;
grant select, insert, update, delete on triggers, parked to agentflow_api;

grant select on tenants, workflows, triggers to agentflow_engine;
grant select, insert on blobs, history, ledger, parked to agentflow_engine;
grant select, insert, delete on inbox to agentflow_engine;
grant select, insert, update on runs, steps, budgets to agentflow_engine;
grant select, insert, update, delete on outbox, timers, subscriptions to agentflow_engine;

grant select, insert, update on outbox to agentflow_relay;
grant select, update, delete on timers to agentflow_relay;  -- update: to lock rows, see skip locked
