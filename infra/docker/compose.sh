#!/usr/bin/env bash
# Install `docker compose` on Debian, where the engine's own packages do not bring it.
#
#   sudo infra/docker/compose.sh
#
# Idempotent: a `docker compose` that is there is left alone. Bookworm has only the former, separate program (1.29);
# trixie's package of the plugin (2.26) runs on bookworm, too.
set -euo pipefail
cd "$(dirname "$0")/../.."

wanted=2.20
fail() { echo "compose.sh: $*" >&2; exit 1; }
there() { docker compose version --short 2>/dev/null | sed 's/^v//; s/[-+].*//'; }
new_enough() { [ -n "$(there)" ] && printf '%s\n%s\n' "$wanted" "$(there)" | sort -V -C; }

if ! new_enough; then
    [ "$(id -u)" = 0 ] || fail "must run as root (it installs a package): sudo $0"
    command -v apt-get >/dev/null || fail "needs Debian or Ubuntu; elsewhere see Docker's guide to the compose plugin"
    infra/from-trixie.sh docker-compose
    new_enough || fail "docker compose does not answer after the installation"
fi
echo "docker compose $(there)"
