#!/usr/bin/env bash
# Make the image that container drivers run Python tools in, without a registry.
#
#   infra/docker/tool-image.sh [TAG]     TAG defaults to Settings.sandbox_image
#
# Does nothing when TAG exists. Where a registry can be reached, `docker pull` gives the real image and this script is
# not needed. The stand-in is a minimal Debian with its own Python (bookworm: 3.11), which is labelled as such:
# `docker inspect -f '{{.Config.Labels}}' TAG`.
set -euo pipefail

tag=${1:-python:3.12-slim}
suite=${DEBIAN_SUITE:-bookworm}
# The archive this machine's own packages come from.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | sort -u | sed -n 1p)}

if docker image inspect "$tag" >/dev/null 2>&1; then exit 0; fi
[ "$(id -u)" = 0 ] || { echo "tool-image.sh: must run as root (debootstrap makes device nodes)" >&2; exit 1; }
if ! command -v debootstrap >/dev/null; then
    timeout 300 apt-get -qq -o Acquire::Retries=3 update
    DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq -y -o DPkg::Lock::Timeout=120 --no-install-recommends \
        install debootstrap >/dev/null
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
root=$work/root
if ! timeout 900 debootstrap --variant=minbase --include=python3 "$suite" "$root" "$mirror" >"$work/log" 2>&1; then
    echo "tool-image.sh: debootstrap failed; the end of its log:" >&2
    tail -n 20 "$work/log" >&2
    exit 1
fi
# Tools need the interpreter and its library; documentation and package indexes would only make every start slower.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info}/*
ln -sf python3 "$root/usr/bin/python"
tar -C "$root" -c . | timeout 300 docker import \
    -c 'CMD ["python3"]' -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c 'ENV LANG=C.UTF-8' \
    -c "LABEL agentflow.stand-in=debian-$suite" - "$tag" >/dev/null
docker image inspect -f "$tag: {{.Size}} bytes, stand-in made of Debian $suite" "$tag"
