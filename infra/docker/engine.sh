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

# An engine that was killed leaves pid files, and the next one takes whoever bears the number for itself.
forget_dead() {
    local name=$1 file=$2 pid
    [ -r "$file" ] || return 0
    pid=$(cat "$file")
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$name" ] || grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status"; then
        rm -f "$file"
    fi
}

start() {
    if answers; then return; fi
    [ "$(id -u)" = 0 ] || { echo "engine.sh: must run as root to start dockerd" >&2; exit 1; }
    mkdir -p "$state"
    forget_dead dockerd /var/run/docker.pid
    forget_dead containerd /var/run/docker/containerd/containerd.pid
    setsid nohup dockerd >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    for _ in $(seq 120); do
        if answers; then return; fi
        # Not by name: for a moment the process is still the shell that becomes dockerd.
        if ! kill -0 "$(cat "$pid_file")" 2>/dev/null; then break; fi
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
