#!/bin/sh
# Part of the Dockerfile: turn installed files into the content of a layer that is the same whenever it is made.
#
#   layer.sh TARGET PATH...     copies PATHs to below TARGET, compiled, without what no function ever opens
#
# Files have no date (1980-01-01, the first that zip files know) and one owner; bytecode names its source by no date and
# is never checked against it, which also makes starts quicker.
set -eu

target=$1; shift
export PYTHONHASHSEED=0

for path in "$@"; do
    mkdir -p "$target$(dirname "$path")"
    cp -a "$path" "$target$(dirname "$path")/"
done
# Tests, sources of compiled modules and stubs; of the standard library what needs a screen or installs things.
find "$target" -depth -type d \( -name __pycache__ -o -name tests -o -name test -path '*/python3*/test' \
    -o -name idlelib -o -name tkinter -o -name turtledemo -o -name lib2to3 -o -name ensurepip \) -exec rm -rf {} +
find "$target" -path '*/site-packages/*' -type f \
    \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' -o -name '*.c' -o -name '*.h' \) -delete
# botocore describes 400 services; secrets.py, archive/ and models/ use these.
for data in "$target"/opt/agentflow/lib/python3*/site-packages/botocore/data; do
    [ -d "$data" ] || continue
    find "$data" -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name secretsmanager ! -name sts ! -name sso \
        ! -name sso-oidc ! -name signin ! -name bedrock-runtime -exec rm -rf {} +
done
# CEL's extensions: plans have none of them (core/cel.py).
find "$target" -path '*/cel_expr_python/ext' -exec rm -rf {} +
# The paths in bytecode are those of the image, not of this folder.
/opt/agentflow/bin/python -m compileall -q -j 1 --invalidation-mode unchecked-hash -s "$target" -p / "$target"
# The base image has the sources of its own library, and what it has installed there is its own.
find "$target" -path "$target/opt/agentflow" -prune -o -path '*/*-packages/*' -type f -exec rm -f {} +
find "$target" -path "$target/opt/agentflow" -prune -o ! -type d ! -name '*.pyc' -exec rm -f {} +
find "$target" -depth -type d -empty -delete
find "$target" -exec chown -h 0:0 {} +
find "$target" ! -type l -exec chmod u=rwX,go=rX {} +
# Each folder that leads there belongs to the layer, too: its date would otherwise be that of the build.
find "$target" -depth -exec touch -h -d @315532800 {} +
