-- Days that are over need no shards: nobody writes them any more, and sixteen rows for one make reports slow. The keeper
-- folds them into one, day by day. It reads these sums for that, and nothing else that tells what was done.

set local role agentflow_owner;
set local search_path = agentflow;

grant select, insert, update on spend, run_spend to agentflow_keeper;
