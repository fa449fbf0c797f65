#!/bin/sh
# After an installation or an upgrade: users and directories, and services that ran go on with the new program. Bans are in the
# kernel and logs are read on from where they were, so a restart loses neither. Nothing is started that did not run.
set -e
if command -v systemd-sysusers >/dev/null 2>&1; then
	systemd-sysusers banmesh.conf
elif ! id banmesh >/dev/null 2>&1; then
	adduser -S -D -H -h /var/lib/banmesh -s /sbin/nologin banmesh 2>/dev/null || useradd -r -M -d /var/lib/banmesh -s /usr/sbin/nologin banmesh
	for user in banmesh-gate banmesh-fetch; do
		adduser -S -D -H -h / -s /sbin/nologin "$user" 2>/dev/null || useradd -r -M -d / -s /usr/sbin/nologin "$user"
	done
fi
if command -v systemd-tmpfiles >/dev/null 2>&1; then
	systemd-tmpfiles --create banmesh.conf || true
fi
if [ -d /run/openrc ] && command -v rc-service >/dev/null 2>&1; then
	for service in banmesh-agent banmesh-broker; do
		rc-service --ifexists --ifstarted "$service" restart || true
	done
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	for unit in banmesh-agent.service banmesh-broker.service banmesh-gate.service banmesh-fetch.timer; do
		systemctl try-restart "$unit" || true
	done
fi
