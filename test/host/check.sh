# Runs inside the booted host, after multi-user.target; prints "all is well" at the end or stops at what is not.
set -eu
fail() { echo "not well: $*"; systemctl status banmesh-agent --no-pager -l || true; journalctl -u banmesh-agent --no-pager | tail -40; exit 1; }

systemctl is-active --quiet banmesh-agent || fail "the service is not active"
[ "$(ps -o user= -C agent | tr -d ' ')" = banmesh ] || fail "it does not run as its own user"
grep -q '^CapEff:.*0000000000001000$' "/proc/$(pidof agent)/status" || fail "it has other capabilities than CAP_NET_ADMIN"
agent status
agent status --json | grep -q '"enforcement": "nftables"' || fail "it does not enforce"
agent status --json | grep -q 'the journal' || fail "it does not read the journal"

# Failed logins as sshd writes them to the journal, through journald itself.
for port in 1 2 3 4 5 6; do
	echo "Failed password for invalid user admin from 203.0.113.9 port $port ssh2" | systemd-cat -t sshd-session
done
# A user of this machine who writes the same frames nobody.
for port in 1 2 3 4 5 6; do
	setpriv --reuid=65534 --clear-groups -- sh -c "echo 'Failed password for root from 203.0.113.77 port $port ssh2' | systemd-cat -t sshd"
done
i=0
until nft list map inet banmesh deny4 | grep -q 203.0.113.9; do
	i=$((i + 1))
	[ $i -lt 100 ] || fail "the attacker is not in the kernel"
	sleep 0.1
done
echo "the attacker is in the kernel"
agent explain 203.0.113.9
nft list map inet banmesh deny4 | grep -q 203.0.113.77 && fail "a forged line banned somebody"

# Bans outlive the agent, and a restart adopts them.
systemctl stop banmesh-agent
nft list map inet banmesh deny4 | grep -q 203.0.113.9 || fail "a stop took the bans away"
systemctl start banmesh-agent
agent bans | grep -q 203.0.113.9 || fail "a restart lost a ban"
kill -KILL "$(pidof agent)"
i=0
until agent bans 2>/dev/null | grep -q 203.0.113.9; do
	i=$((i + 1))
	[ $i -lt 100 ] || fail "it did not come back after kill -9"
	sleep 0.1
done
echo "it came back after kill -9"

# Commands of root reach a service that is not root's.
agent topics subscribe sshd
agent unban 203.0.113.9
nft list map inet banmesh deny4 | grep -q 203.0.113.9 && fail "an unban left the ban in the kernel"

# After somebody flushed everything.
agent ban 203.0.113.10
nft flush ruleset
i=0
until nft list map inet banmesh deny4 2>/dev/null | grep -q 203.0.113.10; do
	i=$((i + 1))
	[ $i -lt 100 ] || fail "a flushed ruleset was not cured"
	sleep 0.1
done
echo "a flushed ruleset was cured"
systemd-analyze security --no-pager banmesh-agent | tail -1
echo "all is well"
