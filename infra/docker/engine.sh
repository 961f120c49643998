#!/usr/bin/env bash
# Start and stop the Docker engine by hand, where no init system does (CI machines, containers).
#
#   infra/docker/engine.sh start   returns when the engine answers; does nothing when one answers already
#   infra/docker/engine.sh stop    stops the engine that `start` started, never another one
set -euo pipefail

state=${ENGINE_STATE:-/run/agentflow-engine}
pid_file=$state/pid
log=$state/dockerd.log

answers() { timeout 10 docker info >/dev/null 2>&1; }
# A pid may have been reused by a stranger: the command's name is checked before every signal.
ours() { [ -r "$pid_file" ] && [ "$(cat "/proc/$(cat "$pid_file")/comm" 2>/dev/null)" = dockerd ]; }

start() {
    if answers; then return; fi
    [ "$(id -u)" = 0 ] || { echo "engine.sh: must run as root to start dockerd" >&2; exit 1; }
    mkdir -p "$state"
    setsid nohup dockerd >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    for _ in $(seq 120); do
        if answers; then return; fi
        if ! ours; then break; fi
        sleep 0.5
    done
    echo "engine.sh: dockerd did not come up; the end of $log:" >&2
    tail -n 20 "$log" >&2
    stop
    exit 1
}

stop() {
    if ours; then
        local pid; pid=$(cat "$pid_file")
        kill -TERM "$pid" 2>/dev/null || true
        for _ in $(seq 60); do
            if ! ours; then break; fi
            sleep 0.5
        done
        if ours; then kill -KILL "$pid"; fi
    fi
    rm -f "$pid_file"
}

case "${1-}" in
    start | stop) "$1" ;;
    *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
