#!/bin/sh
# Builds packages: deploy/packages/build.sh OUT VERSION ARCHITECTURES FORMATS
# ARCHITECTURES are of amd64 arm64 armv7 386 riscv64, FORMATS of deb rpm apk archlinux.
# Equal sources and versions give equal bytes, wherever and whenever they are built: the date in them is that of the last commit,
# or SOURCE_DATE_EPOCH.
set -eu
out=$1 version=$2 architectures=$3 formats=$4
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
go=$("$top/deploy/go.sh")
export GOTOOLCHAIN=local CGO_ENABLED=0
time=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct 2>/dev/null || echo 0)}
PACKAGE_TIME=$(date -u -d "@$time" +%Y-%m-%dT%H:%M:%SZ)
# A version as every format takes it: letters of a commit begin a pre-release nowhere.
PACKAGE_VERSION=$(echo "${version#v}" | sed 's/[^0-9A-Za-z.+~]/./g')
case $PACKAGE_VERSION in [0-9]*.*) ;; *) PACKAGE_VERSION=0.0.0+$PACKAGE_VERSION ;; esac
export SOURCE_DATE_EPOCH="$time"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$here" && GOWORK=off GOFLAGS= "$go" build -trimpath -buildvcs=false -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm)
(cd "$top" && "$go" run ./deploy/docgen -share "$work/share" -version "$PACKAGE_VERSION")

cp -r "$here/scripts" "$work/scripts"
cp -r "$top/deploy/openrc" "$work/openrc"
find "$work/scripts" "$work/openrc" -exec touch -d "@$time" {} +

for arch in $architectures; do
	tree=$work/$arch
	mkdir -p "$tree/usr/bin" "$tree/usr/lib/systemd/system" "$tree/usr/lib/sysusers.d" "$tree/usr/lib/tmpfiles.d" "$tree/usr/share"
	goarch=$arch goarm=
	[ "$arch" != armv7 ] || { goarch=arm goarm=7; }
	for program in banmesh gate; do
		name=$program
		[ $program != gate ] || name=banmesh-gate
		(cd "$top" && GOOS=linux GOARCH=$goarch GOARM=$goarm GO386= GOAMD64= "$go" build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$PACKAGE_VERSION" -o "$tree/usr/bin/$name" "./cmd/$program")
	done
	ln -s banmesh "$tree/usr/bin/agent"
	ln -s banmesh "$tree/usr/bin/broker"
	for unit in "$top"/deploy/systemd/*.service "$top"/deploy/systemd/*.socket "$top"/deploy/systemd/*.timer "$top"/deploy/broker/*.service; do
		[ -e "$unit" ] || continue
		sed 's#/usr/local/bin/#/usr/bin/#' "$unit" >"$tree/usr/lib/systemd/system/$(basename "$unit")"
	done
	cp "$top/deploy/systemd/banmesh.sysusers" "$tree/usr/lib/sysusers.d/banmesh.conf"
	cp "$top/deploy/systemd/banmesh.tmpfiles" "$tree/usr/lib/tmpfiles.d/banmesh.conf"
	cp -r "$work/share/." "$tree/usr/share"
	cp "$top/deploy/systemd/logs.conf" "$tree/usr/share/doc/banmesh/examples/logs.conf"
	cp "$top/LICENSE" "$tree/usr/share/doc/banmesh/copyright" 2>/dev/null || true
	install -D "$top/deploy/certbot/banmesh-broker.sh" "$tree/usr/share/doc/banmesh/examples/certbot/banmesh-broker.sh"
	if [ -d "$top/deploy/fail2ban" ]; then
		mkdir -p "$tree/usr/share/doc/banmesh/examples/fail2ban"
		cp -r "$top/deploy/fail2ban/." "$tree/usr/share/doc/banmesh/examples/fail2ban"
	fi
	mkdir "$tree/zsh"
	mv "$tree"/usr/share/zsh/vendor-completions/* "$tree/zsh"
	rm -r "$tree/usr/share/zsh"
	find "$tree" -type d -exec chmod 0755 {} +
	find "$tree" -type f -exec chmod 0644 {} +
	chmod 0755 "$tree"/usr/bin/banmesh "$tree"/usr/bin/banmesh-gate
	find "$tree" -exec touch -h -d "@$time" {} +
	sed -e "s#\${PACKAGE_TREE}#$tree#; s#\${PACKAGE_ARCH}#$(echo "$arch" | sed 's/^armv7$/arm7/')#; s#\${PACKAGE_VERSION}#$PACKAGE_VERSION#; s#\${PACKAGE_TIME}#$PACKAGE_TIME#; s#\${PACKAGE_SCRIPTS}#$work/scripts#; s#\${PACKAGE_OPENRC}#$work/openrc#" \
		"$here/nfpm.yaml" >"$work/nfpm.yaml"
	for format in $formats; do
		# Only Debian's zsh looks into vendor-completions.
		zsh=site-functions
		[ "$format" != deb ] || zsh=vendor-completions
		sed "s#\${PACKAGE_ZSH}#$zsh#" "$work/nfpm.yaml" >"$work/$format.yaml"
		"$work/nfpm" package --config "$work/$format.yaml" --packager "$format" --target "$out/" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
	done
done
(cd "$out" && sha256sum ./*banmesh* >SHA256SUMS)
