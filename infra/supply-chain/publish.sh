#!/usr/bin/env bash
# Push images to a registry, sign each by its digest, and attach its SBOM and provenance, all by one key; then verify.
#
#   REGISTRY=registry.internal:5000 KEY=cosign.key PUBLIC_KEY=cosign.pub infra/supply-chain/publish.sh [FUNCTION...]
#
# TAG (default: dev) is the local images' tag, VERSION (TAG) the one that they get there, SBOMS (dist/sbom) where
# sbom.py wrote, BASE (python:3.12-slim) what they were made upon. KEY is whatever cosign takes: a file, env://NAME or a
# KMS; its password is in COSIGN_PASSWORD. BUILDER, SOURCE and INVOCATION are URIs for the provenance. Signatures go to
# the registry only, into no public log.
# Prints REGISTRY/agentflow/FUNCTION@DIGEST, one line each: what manifests should name.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

fail() { echo "publish.sh: $*" >&2; exit 2; }
[ -n "${REGISTRY-}" ] || fail "where to? set REGISTRY=HOST[:PORT][/PATH]"
[ -n "${KEY-}" ] && [ -n "${PUBLIC_KEY-}" ] || fail "set KEY and PUBLIC_KEY (cosign generate-key-pair makes them)"
[[ $KEY == *://* ]] || [ -r "$KEY" ] || fail "cannot read the key $KEY"
[ -r "$PUBLIC_KEY" ] || fail "cannot read the public key $PUBLIC_KEY"
command -v cosign >/dev/null || fail "no cosign: infra/from-trixie.sh cosign"
tag=${TAG:-dev}
version=${VERSION:-$tag}
sboms=${SBOMS:-dist/sbom}
python=${PYTHON:-python3}
[ $# -gt 0 ] || set -- plan dispatch invoke_llm run_tool account_cost api relay bridge

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quietly() { "$@" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; fail "$1 $2 of $image failed"; }; }

for name in "$@"; do
    image=agentflow/${name//_/-}
    there=$REGISTRY/$image
    sbom=$sboms/${name//_/-}.cdx.json
    id=$(docker image inspect -f '{{.Id}}' "$image:$tag" 2>/dev/null) || fail "no image $image:$tag: make images TAG=$tag"
    [ -r "$sbom" ] || fail "no SBOM of $image at $sbom: make sbom TAG=$tag"
    grep -q "\"bom-ref\": \"$id\"" "$sbom" || fail "$sbom is of another image than $image:$tag: make sbom TAG=$tag"
    "$python" "$here/provenance.py" "$image:$tag" --base "${BASE:-python:3.12-slim}" ${BUILDER:+--builder "$BUILDER"} \
        ${SOURCE:+--source "$SOURCE"} ${INVOCATION:+--invocation "$INVOCATION"} --out "$work/provenance.json" || exit 2
    docker tag "$image:$tag" "$there:$version"
    quietly docker push "$there:$version"
    digest=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\) .*/\1/p' "$work/log")
    [ -n "$digest" ] || fail "the registry named no digest for $there:$version"
    quietly cosign sign --yes --key "$KEY" --tlog-upload=false "$there@$digest"
    quietly cosign attest --yes --key "$KEY" --tlog-upload=false --type cyclonedx --predicate "$sbom" "$there@$digest"
    quietly cosign attest --yes --key "$KEY" --tlog-upload=false --type slsaprovenance1 \
        --predicate "$work/provenance.json" "$there@$digest"
    "$here/verify.sh" "$there@$digest" "$PUBLIC_KEY" >"$work/log" || fail "what was just signed does not verify"
    docker image rm --no-prune "$there:$version" >/dev/null
    echo "$there@$digest"
done
