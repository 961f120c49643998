-- Timers that a plan sets for itself: a state's time is over. "step" is the planner's number for it.

set local role agentflow_owner;
set local search_path = agentflow;

alter table timers drop constraint timers_kind_check,
  add constraint timers_kind_check check (kind in ('retry', 'timeout', 'wait', 'wall', 'hold', 'after'));
