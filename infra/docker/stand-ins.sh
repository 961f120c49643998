#!/usr/bin/env bash
# Make stand-ins for the images that local/compose.yaml needs besides ours, where no registry can be reached.
#
#   infra/docker/stand-ins.sh
#
# Python, PostgreSQL, NATS and moto, under the real tags; what is there already is left alone, unless it is a stand-in by
# an earlier recipe. Where a registry can be reached nobody needs this: compose pulls the real ones. There are none for the
# observability profile.
set -euo pipefail
cd "$(dirname "$0")/../.."

base=${BASE:-python:3.12-slim}
infra/docker/tool-image.sh "$base"

mirror=()
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST; do
    if [ -n "${!name-}" ] && [[ ${!name} != *file:* ]]; then mirror+=(--build-arg "$name"); fi
done
# Of what the servers' images are made: one that was made of something else is made anew.
recipe=$(cat infra/docker/stand-ins/* infra/docker/lock.py requirements.lock requirements-dev.lock | sha256sum | cut -c 1-12)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for server in postgres nats moto; do
    tag=$(sed -n "s/^ *image: \([a-z/]*\(pgvector\|nats\|moto\):.*\)/\1/p" local/compose.yaml | grep "${server/postgres/pgvector}:" | sed -n 1p)
    # Empty where there is no image, "real" for one that is not ours.
    there=$(docker image inspect -f '{{or (index .Config.Labels "agentflow.stand-in") "real"}}' "$tag" 2>/dev/null || true)
    if [ "$there" = real ] || [ "$there" = "$server-$recipe" ]; then continue; fi
    if ! DOCKER_BUILDKIT=0 docker build --file infra/docker/stand-ins/Dockerfile --build-arg "BASE=$base" \
        --build-arg "SERVER=$server" ${mirror[@]+"${mirror[@]}"} --label "agentflow.stand-in=$server-$recipe" --tag "$tag" . \
        >"$log" 2>&1; then
        echo "stand-ins.sh: $tag could not be built; the end of the log:" >&2
        tail -n 30 "$log" >&2
        exit 1
    fi
    docker image inspect -f "$tag: {{.Size}} bytes, stand-in" "$tag"
done
