#!/usr/bin/env bash
# Make stand-ins for the images that local/compose.yaml needs besides ours, where no registry can be reached.
#
#   infra/docker/stand-ins.sh
#
# Python, PostgreSQL and NATS, under the real tags; what is there already is left alone. Where a registry can be reached
# nobody needs this: compose pulls the real ones. There are none for the observability and aws profiles.
set -euo pipefail
cd "$(dirname "$0")/../.."

base=${BASE:-python:3.12-slim}
infra/docker/tool-image.sh "$base"

mirror=()
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST; do
    if [ -n "${!name-}" ] && [[ ${!name} != *file:* ]]; then mirror+=(--build-arg "$name"); fi
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for server in postgres nats; do
    tag=$(sed -n "s/^ *image: \(\(pgvector\/\)\{0,1\}\(pgvector\|nats\):.*\)/\1/p" local/compose.yaml | grep "${server/postgres/pgvector}" | sed -n 1p)
    if docker image inspect "$tag" >/dev/null 2>&1; then continue; fi
    if ! DOCKER_BUILDKIT=0 docker build --file infra/docker/stand-ins/Dockerfile --build-arg "BASE=$base" \
        --build-arg "SERVER=$server" ${mirror[@]+"${mirror[@]}"} --label "agentflow.stand-in=$server" --tag "$tag" . \
        >"$log" 2>&1; then
        echo "stand-ins.sh: $tag could not be built; the end of the log:" >&2
        tail -n 30 "$log" >&2
        exit 1
    fi
    docker image inspect -f "$tag: {{.Size}} bytes, stand-in" "$tag"
done
