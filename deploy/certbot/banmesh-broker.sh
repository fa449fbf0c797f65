#!/bin/sh
# A deploy hook of certbot for the broker: hands the renewed certificate and key to a directory that the broker may read. Put it into
# /etc/letsencrypt/renewal-hooks/deploy/, mode 0755. Certbot names the lineage in RENEWED_LINEAGE; the broker reads the new files by
# itself, and needs no restart. By hand, once, after the first certificate:
#   RENEWED_LINEAGE=/etc/letsencrypt/live/broker.example.org /etc/letsencrypt/renewal-hooks/deploy/banmesh-broker.sh
set -eu
to=${BANMESH_TLS_DIR:-/etc/banmesh-broker/tls}
group=${BANMESH_TLS_GROUP:-ssl-cert}
# Only the broker's certificate, where this machine has more: BANMESH_TLS_NAME=broker.example.org
if [ -n "${BANMESH_TLS_NAME:-}" ] && [ "$(basename "$RENEWED_LINEAGE")" != "$BANMESH_TLS_NAME" ]; then
	exit 0
fi
getent group "$group" >/dev/null || groupadd --system "$group"
mkdir -p "$to"
chgrp "$group" "$to"
chmod 0750 "$to"
# Each file whole: the broker keeps the old pair until both fit.
for name in privkey fullchain; do
	new=$(mktemp "$to/.$name.XXXXXX")
	cat "$RENEWED_LINEAGE/$name.pem" >"$new"
	chgrp "$group" "$new"
	chmod 0640 "$new"
	mv -f "$new" "$to/$name.pem"
done
