#!/bin/sh
# Compares the community broker with mosquitto and nats-server in one run; see
# test/broker/bench. Arguments are passed on: -only fanout,join -rounds 3
set -eu
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
go build -o "$out/broker" ./cmd/broker
go build -o "$out/bench" ./test/broker/bench
# The Go module of nats-server is pinned in test/broker/nats; without it the comparison goes on.
nats="$out/nats-server"
go build -C test/broker/nats -o "$nats" github.com/nats-io/nats-server/v2 || nats=
"$out/bench" -broker "$out/broker" -nats "$nats" "$@"
