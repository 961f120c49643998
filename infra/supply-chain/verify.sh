#!/usr/bin/env bash
# Verify an image before it is used: its signature, its SBOM and its provenance, all by the key that you trust.
#
#   infra/supply-chain/verify.sh IMAGE@sha256:DIGEST cosign.pub
#
# SBOM_TO and PROVENANCE_TO name files that the verified documents are written to. Needs cosign, and jq for those files.
# Exit status 0: all three verify; 1: one does not; 2: nothing was verified.
set -euo pipefail

[ $# = 2 ] || { echo "usage: $0 IMAGE@sha256:DIGEST PUBLIC_KEY" >&2; exit 2; }
image=$1 key=$2
say() { echo "verify.sh: $image: $1" >&2; exit "$2"; }
[[ $image =~ @sha256:[0-9a-f]{64}$ ]] || say "name it by its digest: a tag may mean something else tomorrow" 2
[[ $key == *://* ]] || [ -r "$key" ] || say "cannot read the public key $key" 2
command -v cosign >/dev/null || say "no cosign on this machine: infra/from-trixie.sh cosign" 2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check() {
    local what=$1; shift
    cosign "$@" --key "$key" --private-infrastructure "$image" >"$work/$what" 2>"$work/log" && return
    reason=$(grep -v '^WARNING' "$work/log" | sed -n 's/^Error: //p' | head -n 1 | tr -d '\n')
    say "its $what does not verify by $key: ${reason:-cosign gave no reason}" 1
}
document() { head -n 1 "$work/$1" | jq -r .payload | base64 -d | jq .predicate; }
check signature verify
check SBOM verify-attestation --type cyclonedx
check provenance verify-attestation --type slsaprovenance1
[ -z "${SBOM_TO-}" ] || document SBOM >"$SBOM_TO"
[ -z "${PROVENANCE_TO-}" ] || document provenance >"$PROVENANCE_TO"
echo "$image: signature, SBOM and provenance verify by $key"
