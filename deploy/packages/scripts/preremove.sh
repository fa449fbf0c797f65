#!/bin/sh
# Before a removal: services end and no rule is left in the kernel. On an upgrade nothing happens here.
# deb: remove | upgrade; rpm: 0 | 1 packages that stay; Arch and Alpine call it for removals alone.
case "${1:-remove}" in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl --no-reload disable --now banmesh-agent.service banmesh-broker.service banmesh-admit.service banmesh-ipsets.service banmesh-fetch.timer banmesh-fetch.service banmesh-gate.socket banmesh-gate.service >/dev/null 2>&1 || true
fi
if [ -d /run/openrc ] && command -v rc-service >/dev/null 2>&1; then
	for service in banmesh-agent banmesh-broker; do
		rc-service --ifexists --ifstarted "$service" stop || true
		rc-update del "$service" >/dev/null 2>&1 || true
	done
fi
banmesh firewall flush >/dev/null 2>&1 || true
