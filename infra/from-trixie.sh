#!/usr/bin/env bash
# Install packages of Debian trixie on this machine (bookworm or later), without adding trixie to its sources.
#
#   sudo infra/from-trixie.sh PACKAGE...
#
# For programs that bookworm has not, or only as they were years ago, and that need nothing of trixie but themselves:
# kustomize, cosign, runsc, docker-compose. They come through apt, signed like every other package.
set -euo pipefail

# The archive this machine's own packages come from.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | sort -u | sed -n 1p)}
[ $# -gt 0 ] || { echo "usage: $0 PACKAGE..." >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "from-trixie.sh: must run as root (it installs packages): sudo $0 $*" >&2; exit 1; }

state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$state/sources.list"
apt=(timeout 300 apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root
    -o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$state/lists" -o "Dir::Cache=$state/cache")
"${apt[@]}" update
(cd "$state" && "${apt[@]}" download "$@")
dpkg -i "$state"/*.deb >/dev/null
