#!/bin/sh
# Has nats-server take a renewed certificate: it reads its files at its start and on SIGHUP, and at no other time. Runs
# beside it in each pod of nats.yaml. TLS, PID_FILE and EVERY_S can be set by whoever tries it elsewhere.
#
# The first signal is sent in any case: nobody knows what was renewed while this was not there.
set -u
TLS=${TLS:-/etc/nats/tls} PID_FILE=${PID_FILE:-/run/nats/nats.pid} EVERY_S=${EVERY_S:-60}

taken=''
while :; do
    there=$(cat "$TLS/tls.crt" "$TLS/tls.key" "$TLS/ca.crt" | cksum)
    if [ "$there" != "$taken" ] && nats-server --signal "reload=$PID_FILE"; then
        taken=$there
        echo "reload: told the server to read its certificate"
    fi
    sleep "$EVERY_S"
done
