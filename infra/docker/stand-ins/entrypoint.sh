#!/bin/sh
# What the entrypoints of the real images do, as far as local/compose.yaml relies on it.
set -eu

if [ "$SERVER" = nats ]; then
    case "${1-}" in -*) set -- nats-server "$@" ;; esac
    exec "$@"
fi

if [ "$SERVER" = moto ]; then exec moto_server -H 0.0.0.0 "$@"; fi

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
    # Several words, as the real one takes them; without them, its locale would be the system's.
    # shellcheck disable=SC2086
    initdb -D "$fresh" -U "$user" --pwfile /tmp/password ${POSTGRES_INITDB_ARGS-} >/dev/null
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
