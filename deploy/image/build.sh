#!/bin/sh
# Builds container images: deploy/image/build.sh OUT VERSION ARCHITECTURES, into OUT/banmesh_VERSION_ARCHITECTURE.image.tar
# Equal sources and versions give equal bytes; the date in them is that of the last commit, or SOURCE_DATE_EPOCH.
set -eu
out=$1 version=$2 architectures=$3
top=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
go=$("$top/deploy/go.sh")
export GOTOOLCHAIN=local CGO_ENABLED=0
time=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct 2>/dev/null || echo 0)}
# A tag has letters, digits, dots, hyphens and underscores.
tag=$(echo "${version#v}" | sed 's/[^0-9A-Za-z._-]/./g')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$top"
for arch in $architectures; do
	mkdir -p "$work/$arch"
	for program in banmesh gate; do
		name=$program
		[ $program != gate ] || name=banmesh-gate
		GOOS=linux GOARCH=$arch GOAMD64= "$go" build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$tag" -o "$work/$arch/$name" "./cmd/$program"
	done
	"$go" run ./deploy/image -arch "$arch" -version "$tag" -time "$time" -programs "$work/$arch" -out "$out/banmesh_${tag}_$arch.image.tar"
done
