#!/bin/sh
# Builds Traefik from its module, with the versions that its own go.mod names: test/compat/traefik.sh OUTPUT
set -eu
version=v3.6.12
sum=h1:6pe4s7aaDTQs+AsF7KP3sM/xnq7zOVvibRQe5tw9eFo=
go=${GO:-go}
out=$(realpath -m "$1")
facts=$(cd / && GOFLAGS=-mod=mod "$go" mod download -json github.com/traefik/traefik/v3@$version)
field() { printf '%s\n' "$facts" | sed -n "s/^.*\"$1\": \"\(.*\)\",\{0,1\}$/\1/p"; }
[ "$(field Sum)" = "$sum" ] || { echo "Traefik $version is not what was reviewed: $(field Sum)" >&2; exit 1; }
mkdir -p "$(dirname "$out")"
GOWORK=off CGO_ENABLED=0 "$go" build -C "$(field Dir)" -trimpath -o "$out" ./cmd/traefik
