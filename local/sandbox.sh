#!/bin/sh
# Have the image that tool code runs in: without it run_tool waits, and says so.
#
#   local/sandbox.sh [FILE]     FILE of settings defaults to local/.env; what the environment sets comes first, as for compose
#
# Does nothing where the engine that run_tool uses has the image, or where tools are to be plain processes.
set -eu
cd "$(dirname "$0")"

file=${1:-.env}
setting() { sed -n "s/^$1=//p" "$file" | tail -n 1; }
sandbox=${SANDBOX:-$(setting SANDBOX)}
image=${SANDBOX_IMAGE:-$(setting SANDBOX_IMAGE)}
socket=${DOCKER_SOCKET:-$(setting DOCKER_SOCKET)}
image=${image:-python:3.12-slim}
[ "$sandbox" != process ] || exit 0

engine() { docker --host "unix://${socket:-/var/run/docker.sock}" "$@"; }
if ! engine image inspect "$image" >/dev/null 2>&1 && ! engine pull --quiet "$image"; then
    echo "sandbox.sh: no image $image for tools, and no registry to pull it from; for a stand-in:" \
        "infra/docker/tool-image.sh $image" >&2
    exit 1
fi
