#!/bin/sh
# Downloads Debian packages, with what each needs and this machine lacks, and installs nothing: deploy/debs.sh DIRECTORY PACKAGE...
# A test installs them on a host that it boots. A directory that has the package already is left alone.
set -eu
mkdir -p "$1"
into=$(cd "$1" && pwd)
shift
updated=
for p in "$@"; do
	[ ! -e "$into/$p" ] || continue
	[ "$updated" ] || apt-get update -qq
	updated=yes
	temporary=$(mktemp -d "$into/.$p-XXXXXX")
	mkdir "$temporary/partial"
	apt-get install -y -qq --no-install-recommends --download-only --reinstall -o APT::Sandbox::User=root -o Dir::Cache::Archives="$temporary" "$p" >/dev/null
	rm -rf "$temporary/partial" "$temporary/lock"
	mv "$temporary" "$into/$p"
done
