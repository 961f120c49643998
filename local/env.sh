#!/bin/sh
# Write local/.env from local/.env.example at the first start, with random secrets; one that is there stays as it is.
#
#   local/env.sh [FILE]     FILE defaults to local/.env
set -eu
cd "$(dirname "$0")"

file=${1:-.env}
if [ -e "$file" ]; then exit 0; fi
umask 077
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
socket=$(sed -n 's/^DOCKER_SOCKET=//p' .env.example)
gid=$(stat -L -c %g "${DOCKER_SOCKET:-$socket}" 2>/dev/null || echo 0)
while IFS= read -r line; do
    case $line in
        POSTGRES_PASSWORD= | NATS_PASSWORD= | KEY_PEPPER= | AUDIT_KEY= | GRAFANA_PASSWORD=) echo "$line$(secret)" ;;
        DOCKER_GID=) echo "$line$gid" ;;
        *) echo "$line" ;;
    esac
done <.env.example >"$file.new"
mv "$file.new" "$file"
echo "env.sh: wrote local/$file with new secrets" >&2
if docker volume inspect "${COMPOSE_PROJECT_NAME:-agentflow}_postgres" >/dev/null 2>&1; then
    echo "env.sh: there is a database of before, which knows other secrets: copy the local/.env that it was made with" \
        "here, or remove the data with: make down VOLUMES=1" >&2
fi
