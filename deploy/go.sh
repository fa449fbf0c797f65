#!/bin/sh
# Prints the path of a Go command that can build this project, after installing one where there is none: Debian's own Go is too
# old to build it, but new enough to fetch the toolchain as a module, checksummed like every other.
set -eu
version=1.26.8
want="go version go1.26"

for go in "${GO:-}" "$(command -v go 2>/dev/null || true)" /usr/local/go/bin/go; do
	[ -n "$go" ] && [ -x "$go" ] || continue
	case $(GOTOOLCHAIN=local "$go" version 2>/dev/null) in
	"$want"*) echo "$go"; exit 0 ;;
	"go version go1."[0-9].* | "go version go1.1"* | "go version go1.2"[0-5]*) old=$go ;;
	"go version go"*) echo "$go"; exit 0 ;; # newer
	esac
done

if [ -z "${old:-}" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "Go 1.26 or later is needed. As root, 'apt-get install golang-go' is enough: the rest comes by itself." >&2
		exit 1
	fi
	apt-get update -qq >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go ca-certificates >&2
	old=$(command -v go)
fi

case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
armv6l | armv7l) arch=armv6l ;;
i?86) arch=386 ;;
*) arch=$(uname -m) ;;
esac
module=golang.org/toolchain@v0.0.1-go$version.linux-$arch
cd /
GO111MODULE=on GOFLAGS= "$old" mod download "$module" >&2
root=$("$old" env GOMODCACHE)/$module
chmod -R u+w "$root"
chmod 0755 "$root"/bin/* "$root"/pkg/tool/*/* 2>/dev/null || true
echo "$root/bin/go"
