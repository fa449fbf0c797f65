# On a booted host that has nothing of ours: a package comes, is upgraded and goes. Every line that begins with + is a command that a
# person types; the rest looks at its effects.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive
fail() { echo "FAILED: $*"; journalctl -u banmesh-agent --no-pager 2>/dev/null | tail -30; exit 1; }
say() { echo "+ $*"; "$@" >/tmp/said 2>&1 || { cat /tmp/said; fail "$*"; }; sed 's/^/  /' /tmp/said; }
state() { # all that a package may leave behind
	{
		nft list ruleset
		getent passwd | cut -d: -f1 | sort
		getent group | cut -d: -f1 | sort
		find /etc /usr /var/lib -xdev \( -name '*banmesh*' -o -path '*/etc/systemd/system/*' \) ! -path '/var/lib/dpkg/*' ! -path '*/check*' | sort
		systemctl list-unit-files --no-legend | grep -i banmesh || true
		systemctl --failed --no-legend
	} >"$1"
}
until systemctl is-system-running 2>/dev/null | grep -q 'running\|degraded'; do sleep 0.2; done
ip link set lo up
# The machine under this one may have had something of ours.
for user in banmesh banmesh-gate banmesh-fetch; do userdel $user 2>/dev/null || true; done
rm -rf /etc/banmesh /var/lib/banmesh /var/lib/banmesh-gate /var/lib/banmesh-fetch /usr/local/bin/banmesh* /usr/local/bin/agent /usr/local/bin/broker /usr/lib/sysusers.d/banmesh.conf /usr/lib/tmpfiles.d/banmesh.conf
rm -f /etc/systemd/system/banmesh*
state /tmp/before
began=$(date +%s%N)
say dpkg -i /first.deb
[ "$(readlink /usr/bin/agent)" = banmesh ] || fail "agent is no link"
systemctl is-active -q banmesh-agent && fail "a package starts nothing by itself"
man -w banmesh-topics-subscribe >/dev/null 2>&1 || [ -e /usr/share/man/man1/banmesh-topics-subscribe.1.gz ] || fail "no manual page"
say banmesh init --yes --enforce --topics sshd
say banmesh status
echo "seconds: $(( ($(date +%s%N) - began) / 1000000 )) ms from the package to a running agent"
say banmesh ban 192.0.2.77 --topic sshd --for 1h
nft list ruleset | grep -q 192.0.2.77 || fail "the ban is not in the kernel"

# Lists are fetched by a user of their own, and nobody asked for that yet.
systemctl is-enabled -q banmesh-fetch.timer && fail "a package fetches nothing by itself"
[ "$(stat -c '%U %a' /var/lib/banmesh-fetch)" = "banmesh-fetch 755" ] || fail "the spool of lists is not banmesh-fetch's"
say banmesh lists add nowhere --url https://127.0.0.1:9/list.txt --topic sshd
say systemctl enable --now banmesh-fetch.timer
say systemctl start banmesh-fetch.service
grep -q 'not of the public internet' /var/lib/banmesh-fetch/nowhere.json || fail "the fetch left no record"
[ "$(stat -c %U /var/lib/banmesh-fetch/nowhere.json)" = banmesh-fetch ] || fail "root fetched"
say banmesh lists remove nowhere

# An upgrade loses no ban, not for a moment: the kernel's entry is looked at all the while.
( n=0; while [ ! -e /tmp/upgraded ]; do nft list ruleset | grep -q 192.0.2.77 || n=$((n + 1)); done; echo "$n" >/tmp/gaps ) &
watcher=$!
say dpkg -i /second.deb
systemctl is-active -q banmesh-agent || fail "the agent does not run after the upgrade"
for i in $(seq 100); do banmesh bans 2>/dev/null | grep -q 192.0.2.77 && break; sleep 0.1; done
banmesh bans | grep -q 192.0.2.77 || fail "the ban is gone after the upgrade"
touch /tmp/upgraded; wait $watcher
[ "$(cat /tmp/gaps)" = 0 ] || fail "the kernel lacked the ban $(cat /tmp/gaps) times during the upgrade"
banmesh --version | grep -q 0.2.0 || fail "not the new version"

say dpkg -r banmesh
nft list ruleset | grep -i banmesh && fail "rules are left after the removal"
[ -d /var/lib/banmesh ] || fail "the removal took the keys"
say dpkg -i /second.deb
say banmesh selftest
say systemctl enable --now banmesh-agent
for i in $(seq 100); do banmesh bans 2>/dev/null | grep -q 192.0.2.77 && break; sleep 0.1; done
banmesh bans | grep -q 192.0.2.77 || fail "who comes back finds no state"
say dpkg -P banmesh
state /tmp/after
diff /tmp/before /tmp/after >/tmp/diff || { cat /tmp/diff; fail "the purge left or took something"; }
echo "all is well"
