#!/bin/sh
# Have the image that tool code runs in: without it run_tool waits, and says so.
#
#   local/sandbox.sh     with the settings of local/.env and the environment, as compose reads them
#
# Does nothing where the engine that run_tool uses has the image, or where tools are to be plain processes.
set -eu
cd "$(dirname "$0")"

settings=$(docker compose --file compose.yaml config run_tool)
setting() { printf '%s\n' "$settings" | sed -n "s/^ *$1: *//p" | sed "s/^[\"']\(.*\)[\"']\$/\1/" | head -n 1; }
sandbox=$(setting AGENTFLOW_SANDBOX)
image=$(setting AGENTFLOW_SANDBOX_IMAGE)
socket=$(printf '%s\n' "$settings" | sed -n '/ source: /h; / target: \/var\/run\/docker.sock$/{x; s/.* source: //p;}')
[ "$sandbox" != process ] || exit 0

# Compose's engine, unless run_tool is given the socket of another one of this machine.
engine() {
    if [ "$socket" != /var/run/docker.sock ] && [ -S "$socket" ]; then docker --host "unix://$socket" "$@"; else docker "$@"; fi
}
if ! engine version --format '{{.Server.Version}}' >/dev/null; then
    echo "sandbox.sh: the engine that run_tool is given does not answer (start it, or correct DOCKER_SOCKET in local/.env)" >&2
    exit 1
fi
if ! engine image inspect "$image" >/dev/null 2>&1 && ! engine pull --quiet "$image"; then
    echo "sandbox.sh: no image $image for tools, and no registry to pull it from; for a stand-in:" \
        "infra/docker/tool-image.sh $image" >&2
    exit 1
fi
