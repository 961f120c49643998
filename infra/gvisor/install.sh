#!/usr/bin/env bash
# Install the Docker engine and gVisor's runsc on Debian and register the runtime "runsc" with the engine.
#
#   sudo infra/gvisor/install.sh
#
# Idempotent: what is there already is left alone. Afterwards `docker run --runtime runsc --network none ...` works
# (infra/docker/engine.sh starts the engine where no init system does).
#
# Which runsc: bookworm's is from 2022 and needs the slow ptrace platform; trixie's package (2024-07) has no
# dependencies, runs on bookworm too and offers systrap (20 times faster system calls), so it is taken from there
# (infra/from-trixie.sh). It serves tests and development; for production use a current release (its local privilege escalations are fixed there).
#
# Why --network=none: under Docker these versions refuse to start with a network in the root network namespace, and a
# sandbox gets no network anyway; allowed hosts are reached through a proxy on a mounted socket.
set -euo pipefail

wanted=0.0~20240729
runtime_args='["--platform=systrap", "--network=none"]'
daemon_json=${DOCKER_DAEMON_JSON:-/etc/docker/daemon.json}
export DEBIAN_FRONTEND=noninteractive

fail() { echo "install.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "must run as root (it installs packages): sudo $0"
command -v apt-get >/dev/null || fail "needs Debian or Ubuntu; elsewhere follow gVisor's installation guide"

apt_fresh=''
apt_install() {
    [ -n "$apt_fresh" ] || timeout 300 apt-get -qq -o Acquire::Retries=3 update
    apt_fresh=yes
    timeout 900 apt-get -qq -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 --no-install-recommends \
        install "$@" >/dev/null
}

installed_runsc() { dpkg-query -W -f '${db:Status-Status} ${Version}' runsc 2>/dev/null | sed -n 's/^installed //p'; }

command -v dockerd >/dev/null && command -v docker >/dev/null && command -v iptables >/dev/null \
    || apt_install docker.io iptables

if ! dpkg --compare-versions "$(installed_runsc)" ge "$wanted" && ! runsc --version 2>/dev/null | grep -q release-; then
    if ! "$(dirname "$0")/../from-trixie.sh" runsc; then
        echo "install.sh: trixie is not reachable; taking this release's runsc, which needs ptrace" >&2
        apt_install runsc
        runtime_args='["--platform=ptrace", "--network=none"]'
    fi
fi
command -v runsc >/dev/null || fail "runsc is not on PATH after the installation"

# Add our runtime to daemon.json and keep whatever else is in it; "changed" tells whether the engine must reload.
changed=$(python3 - "$daemon_json" "$(command -v runsc)" "$runtime_args" <<'PYTHON'
import json, pathlib, sys
path, binary, arguments = pathlib.Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
config = json.loads(path.read_text()) if path.exists() and path.read_text().strip() else {}
runtime = {"path": binary, "runtimeArgs": arguments}
if config.get("runtimes", {}).get("runsc") != runtime:
    config.setdefault("runtimes", {})["runsc"] = runtime
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=2) + "\n")
    print("changed")
PYTHON
)
if [ -n "$changed" ] && [ -r /var/run/docker.pid ]; then
    engine=$(cat /var/run/docker.pid)
    # The engine reads its runtimes again on SIGHUP; running containers are not disturbed.
    if [ "$(cat "/proc/$engine/comm" 2>/dev/null)" = dockerd ]; then kill -HUP "$engine"; fi
fi
echo "docker $(dockerd --version | sed 's/^Docker version \([^,]*\).*/\1/'), runsc $(runsc --version | sed -n '1s/.* //p'), runtime args $runtime_args"
