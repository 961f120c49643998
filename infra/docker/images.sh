#!/usr/bin/env bash
# Build the images of all functions, or of those that are named: agentflow/FUNCTION:TAG.
#
#   infra/docker/images.sh [FUNCTION...]
#
# TAG (default: dev), BASE (python:3.12-slim) and SOURCE_DATE_EPOCH (the commit's date) may be set; pip's mirror is taken
# from PIP_INDEX_URL and its kin; NO_CACHE=1 builds everything anew. Built twice from the same source upon the same base, an image has the same digest. The
# base is pulled where a registry can be reached; elsewhere infra/docker/tool-image.sh makes a stand-in.
set -euo pipefail
cd "$(dirname "$0")/../.."

tag=${TAG:-dev}
base=${BASE:-python:3.12-slim}
all=(plan dispatch invoke_llm run_tool account_cost api relay bridge)
[ $# -gt 0 ] || set -- "${all[@]}"
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# What no commit has, nobody can look up later: such an image is not published (infra/supply-chain/provenance.py).
if [ "$revision" != unknown ] && [ -n "$(git --no-optional-locks status --porcelain -- events functions schemas infra/docker pyproject.toml README.md requirements.lock)" ]; then
    revision=$revision-changed
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

mirror=()
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST; do
    # A file of this machine's is not there in a container.
    if [ -n "${!name-}" ] && [[ ${!name} != *file:* ]]; then mirror+=(--build-arg "$name"); fi
done
if ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull -q "$base"; then
    echo "images.sh: no $base, and no registry to pull it from; for a stand-in: infra/docker/tool-image.sh $base" >&2
    exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
made=()
for name in "$@"; do
    function=${name//-/_}
    [[ " ${all[*]} " == *" $function "* ]] || { echo "images.sh: there is no function $name: ${all[*]}" >&2; exit 2; }
    image=agentflow/${function//_/-}:$tag
    if ! DOCKER_BUILDKIT=0 docker build ${NO_CACHE:+--no-cache} --file infra/docker/Dockerfile --build-arg "BASE=$base" \
        --build-arg "FUNCTION=$function" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        ${mirror[@]+"${mirror[@]}"} --tag "$image" . >"$log" 2>&1; then
        echo "images.sh: $image could not be built; the end of the log:" >&2
        tail -n 30 "$log" >&2
        exit 1
    fi
    made+=("$image")
done
steps=$(docker history --quiet "$base" | wc -l)
docker save "${made[@]}" | python3 infra/docker/seal.py "$epoch" "$steps" | docker load >/dev/null
for image in "${made[@]}"; do
    docker image inspect -f "$image {{.Id}} {{.Size}} bytes" "$image"
done
