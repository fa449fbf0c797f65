#!/bin/sh
# Unpacks Debian packages that cannot be installed without a network, or must not run: deploy/unpack.sh DIRECTORY PACKAGE...
# What they depend on is not installed. A directory that has the package already is left alone.
set -eu
into=$1
shift
for p in "$@"; do
	[ ! -e "$into/$p" ] || continue
	mkdir -p "$into"
	temporary=$(mktemp -d "$into/.$p-XXXXXX")
	(cd "$temporary" && apt-get download -qq -o APT::Sandbox::User=root "$p" && dpkg -x ./*.deb root)
	mv "$temporary/root" "$into/$p"
	rm -rf "$temporary"
done
