#!/bin/sh
# What the entrypoints of the real images do, as far as local/compose.yaml relies on it.
set -eu

if [ "$SERVER" = nats ]; then
    case "${1-}" in -*) set -- nats-server "$@" ;; esac
    exec "$@"
fi

[ "$#" -gt 0 ] || set -- postgres
export PGDATA="${PGDATA:-/var/lib/postgresql/18/docker}"
user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?must be set for a new database}"
    mkdir -p "$PGDATA"
    rm -rf "${PGDATA:?}"/* # of a first start that was interrupted: PG_VERSION is moved in last
    fresh=$PGDATA.new
    rm -rf "$fresh"
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb -D "$fresh" -U "$user" --pwfile /tmp/password --auth-local trust --auth-host scram-sha-256 \
        --encoding UTF8 --locale C.UTF-8 >/dev/null
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$fresh/pg_hba.conf"
    {
        echo "listen_addresses = '*'"
        echo "unix_socket_directories = '/var/run/postgresql'"
    } >>"$fresh/postgresql.conf"
    [ "$database" = postgres ] || echo "create database \"$database\"" | postgres --single -D "$fresh" postgres >/dev/null
    chmod 700 "$fresh"
    rmdir "$PGDATA"
    mv "$fresh" "$PGDATA"
fi
exec "$@"
