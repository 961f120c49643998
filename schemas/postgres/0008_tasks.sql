-- Runs that are paused, and what a run may be waiting for besides calls, time and events: people and other runs.

set local role agentflow_owner;
set local search_path = agentflow;

alter table runs drop constraint runs_status_check,
  add constraint runs_status_check check (status in
    ('requested', 'planned', 'running', 'paused', 'succeeded', 'failed', 'cancelled'));
