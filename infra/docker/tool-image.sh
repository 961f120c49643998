#!/usr/bin/env bash
# Make the Python image without a registry: what tools run in, and what our own images are built upon.
#
#   infra/docker/tool-image.sh [TAG]     TAG defaults to Settings.sandbox_image
#
# Does nothing when TAG exists, unless it is a stand-in by an earlier recipe. Where a registry can be reached,
# `docker pull` gives the real image and this script is not needed. The stand-in is a minimal Debian with its security
# updates, its own Python (bookworm: 3.11), venv and this machine's certificates, and is labelled as such:
# `docker inspect -f '{{.Config.Labels}}' TAG`.
set -euo pipefail

tag=${1:-python:3.12-slim}
suite=${DEBIAN_SUITE:-bookworm}
recipe=debian-$suite-venv-security
certificates=/etc/ssl/certs/ca-certificates.crt
# The archive this machine's own packages come from.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | sort -u | sed -n 1p)}
updates=${DEBIAN_SECURITY_MIRROR:-${mirror%/}-security}

# Empty where there is no image, "real" for one that is not ours.
there=$(docker image inspect -f '{{or (index .Config.Labels "agentflow.stand-in") "real"}}' "$tag" 2>/dev/null || true)
if [ "$there" = real ] || [ "$there" = "$recipe" ]; then exit 0; fi
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
if ! timeout 900 debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$suite" "$root" "$mirror" >"$work/log" 2>&1; then
    echo "tool-image.sh: debootstrap failed; the end of its log:" >&2
    tail -n 20 "$work/log" >&2
    exit 1
fi
# debootstrap knows one suite; what has been mended since is in two others.
printf 'deb %s main\n' "$mirror $suite" "$mirror $suite-updates" "$updates $suite-security" >"$root/etc/apt/sources.list"
if ! { chroot "$root" apt-get -qq -o Acquire::Retries=3 --error-on=any update \
    && DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -qq -y -o Acquire::Retries=3 upgrade; } >"$work/log" 2>&1; then
    echo "tool-image.sh: the security updates failed; the end of the log:" >&2
    tail -n 20 "$work/log" >&2
    exit 1
fi
# Tools need the interpreter and its library; documentation and package indexes would only make every start slower.
# Licences stay: who passes packages on, has to.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{man,locale,info}/*
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
ln -sf python3 "$root/usr/bin/python"
# What this machine trusts, builds on it have to trust: its packages may come through a proxy of its own.
if [ -r "$certificates" ]; then cp --remove-destination "$certificates" "$root$certificates"; fi
tar -C "$root" -c . | timeout 300 docker import \
    -c 'CMD ["python3"]' -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c 'ENV LANG=C.UTF-8' \
    -c "LABEL agentflow.stand-in=$recipe" - "$tag" >/dev/null
docker image inspect -f "$tag: {{.Size}} bytes, stand-in made of Debian $suite" "$tag"
