#!/bin/sh
# Make .venv and install a lock file into it, with every hash checked, then this project, editable.
#
#   infra/venv.sh requirements.lock STAMP     STAMP is touched when all is done
#
# Needs Python >= 3.11 (PYTHON=... chooses one). An interrupted run is simply repeated; of two runs at once the
# second waits. uv, itself from the lock, installs in 2 seconds what takes pip 25; where uv cannot (a mirror or a
# proxy that only pip is told of), pip does it.
set -eu

lock_file=$1 stamp=$2 venv=.venv
cd "$(dirname "$0")/.."
say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# --- a Python ----------------------------------------------------------------------------------------------
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
python=''
for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$name" -c "$new_enough" >/dev/null 2>&1; then python=$name; break; fi
done
[ -n "$python" ] || fail "needs Python 3.11 or newer, and ${PYTHON:-python3} is" \
    "$(${PYTHON:-python3} --version 2>/dev/null || echo absent). Install one, or name one: make PYTHON=/path/to/python3.12"

# --- one at a time: the kernel drops the lock when this process and what it started are gone ----------------
exec 9>"$venv.lock"
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
# The run that we waited for may have done the work.
if [ -f "$stamp" ] && [ "$stamp" -nt "$lock_file" ] && [ "$stamp" -nt pyproject.toml ]; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# --- the environment ---------------------------------------------------------------------------------------
pip() { "$venv/bin/python" -m pip "$@"; }
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
cache=''
if ! [ -w "${HOME:-/nonexistent}" ]; then
    export PIP_NO_CACHE_DIR=1
    [ -n "${UV_CACHE_DIR:-}" ] || cache=--no-cache
fi
if ! "$venv/bin/python" -c "$new_enough" >/dev/null 2>&1 || ! pip --version >/dev/null 2>&1; then
    say "making $venv with $("$python" --version)"
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >"$work/log" 2>&1; then
        rm -rf "$venv"
        tail -n 3 "$work/log" >&2
        fail "'$python -m venv' failed; on Debian and Ubuntu: apt install python3-venv"
    fi
fi

# --- the packages ------------------------------------------------------------------------------------------
# uv's own lines of the lock: it is installed first.
awk '/^uv==/ { wanted = 1 } wanted { print } wanted && !/\\$/ { exit }' "$lock_file" >"$work/uv.txt"
uv_version=$(sed -n '1s/^uv==\([^ ]*\).*/\1/p' "$work/uv.txt")
with_uv() {
    # uv does not read pip's settings: a mirror that is set there must be used.
    if pip config list 2>/dev/null | grep -q '\.index-url='; then return 1; fi
    if ! "$venv/bin/uv" --version 2>/dev/null | grep -qF "uv $uv_version"; then
        pip install -q --require-hashes --only-binary :all: -r "$work/uv.txt" >"$work/log" 2>&1 || return 1
    fi
    # shellcheck disable=SC2086  # an empty $cache must vanish
    "$venv/bin/uv" pip install -q --no-config --system-certs $cache --python "$venv/bin/python" \
        --require-hashes -r "$lock_file" >"$work/log" 2>&1
}
say "installing $lock_file"
if ! with_uv; then
    [ ! -s "$work/log" ] || say "uv cannot ($(head -n 1 "$work/log")), so pip will: this takes longer"
    pip install -q --require-hashes -r "$lock_file" || fail "the packages of $lock_file could not be installed"
fi
# hatchling is in the lock: building the project needs no network.
pip install -q --no-build-isolation --no-deps -e . || fail "this project could not be installed"
touch "$stamp"
