#!/bin/sh
# After a removal: on purge (deb) keys, state and configuration go, too. Other packagers never purge: docs/install.md has the line.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
if [ "${1:-}" = purge ]; then
	rm -rf /etc/banmesh /var/lib/banmesh /var/lib/banmesh-gate /var/lib/banmesh-fetch /var/lib/banmesh-broker /var/lib/private/banmesh-broker /run/banmesh /var/log/banmesh /etc/systemd/system/banmesh-agent.service.d/logs.conf
	rmdir /etc/systemd/system/banmesh-agent.service.d 2>/dev/null || true
	for user in banmesh banmesh-gate banmesh-fetch; do
		if command -v userdel >/dev/null 2>&1 && id "$user" >/dev/null 2>&1; then
			userdel "$user" >/dev/null 2>&1 || true
		fi
		if command -v groupdel >/dev/null 2>&1 && getent group "$user" >/dev/null 2>&1; then
			groupdel "$user" >/dev/null 2>&1 || true
		fi
	done
fi
