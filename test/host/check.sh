# Runs inside the booted host, after multi-user.target; prints "all is well" at the end or stops at what is not.
set -eu
fail() { echo "not well: $*"; systemctl status banmesh-agent --no-pager -l || true; journalctl -u banmesh-agent --no-pager | tail -40; exit 1; }

systemctl is-active --quiet banmesh-agent || fail "the service is not active"
[ "$(ps -o user= -C agent | tr -d ' ')" = banmesh ] || fail "it does not run as its own user"
grep -q '^CapEff:.*0000000000001000$' "/proc/$(pidof agent)/status" || fail "it has other capabilities than CAP_NET_ADMIN"
agent status
agent status --json | grep -q '"enforcement": "nftables"' || fail "it does not enforce"
agent status --json | grep -q '"kind": "journal"' || fail "it does not read the journal"
# On a healthy host nothing is wrong, before a line was read too; the clock is the machine's around this one.
agent doctor || true
agent doctor | grep '^WRONG' | grep -v '^WRONG *clock ' && fail "the doctor finds a healthy host ill"
agent doctor | grep '^WRONG *clock ' || agent doctor >/dev/null || fail "the doctor finds nothing wrong, and does not exit 0"

# Rules that were saved beside the ipset enforcer load at boot, in the order of the units.
mkdir -p /etc/iptables
printf '*raw\n:BANMESH - [0:0]\n-A PREROUTING -j BANMESH\n-A BANMESH -m set --match-set banmesh-never-4 src -j RETURN\nCOMMIT\n' >/etc/iptables/rules.v4
iptables-restore --test /etc/iptables/rules.v4 2>/dev/null && fail "iptables-restore needs no sets: is the unit needed?"
agent firewall check | grep -q 'systemctl enable --now banmesh-ipsets.service' || fail "nobody says that the rules would not load"
systemctl enable --now banmesh-ipsets.service || fail "the sets are not prepared"
iptables-restore --test /etc/iptables/rules.v4 || fail "the saved rules do not load"
agent firewall check | grep -q 'banmesh-ipsets.service creates the ipsets' || fail "the unit is not seen"
rm /etc/iptables/rules.v4
echo "saved rules load at boot"

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

# Someone logs in over ssh. The service may not look into other users'
# processes, and finds the session through logind; no trusted peer can end it.
ip netns add admin
ip link add host0 type veth peer name eth0 netns admin
ip addr add 45.80.20.2/24 dev host0
ip link set host0 up
ip -n admin addr add 45.80.20.7/24 dev eth0
ip -n admin addr add 45.80.20.66/24 dev eth0
ip -n admin link set eth0 up
mkdir -p /run/sshd /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/user_key
ssh-keygen -q -t ed25519 -N '' -f /root/host_key
cp /root/user_key.pub /root/.ssh/authorized_keys
/usr/sbin/sshd -f /dev/null -h /root/host_key -o UsePAM=yes -o PermitRootLogin=yes -o StrictModes=no -o PidFile=none
login() { ip netns exec admin ssh -b "$1" -i /root/user_key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout="$2" root@45.80.20.2 "$3"; }
mkfifo /root/in
login 45.80.20.7 20 cat </root/in >/root/out &
exec 9>/root/in
alive() {
	echo "$1" >&9
	i=0
	until grep -q "^$1\$" /root/out; do
		i=$((i + 1))
		[ $i -lt 300 ] || fail "the administrator's session is dead: $1"
		sleep 0.1
	done
}
alive hello
i=0
until agent allow list | grep -q '^45.80.20.7/32 *administrator'; do
	i=$((i + 1))
	[ $i -lt 300 ] || { loginctl list-sessions; cat /run/systemd/sessions/* || true; fail "the administrator's session was not found"; }
	sleep 0.1
done
agent allow list | grep administrator

broker run --listen 127.0.0.1:1884 --network banmesh --state-dir /root/broker &
mkfifo /root/claims
hostile-peer -broker tcp://127.0.0.1:1884 -state /root/hostile </root/claims >/root/hostile.out &
exec 8>/root/claims
i=0
until [ -s /root/hostile.out ]; do
	i=$((i + 1))
	[ $i -lt 100 ] || fail "the peer does not start"
	sleep 0.1
done
cat >/etc/banmesh/agent.toml <<END
[[brokers]]
url = "tcp://127.0.0.1:1884"
[operators.mallory]
id = "$(head -1 /root/hostile.out)"
[topics.sshd]
subscribe = true
ban = "any of mallory"
prefix = ["v4/8"]
END
chmod 644 /etc/banmesh/agent.toml
systemctl restart banmesh-agent
printf '45.80.20.66\n\n' >&8
i=0
until agent bans | grep -q '^45.80.20.66 '; do
	i=$((i + 1))
	[ $i -lt 300 ] || fail "the peer's bans do not arrive"
	sleep 0.1
done
login 45.80.20.66 3 true && fail "a banned address was let in"
printf '45.80.20.7\n45.80.20.2\n45.0.0.0/8\n127.0.0.0/8\n\n' >&8
i=0
until agent peers | grep -q 'quarantined: it claimed again and again'; do
	i=$((i + 1))
	[ $i -lt 300 ] || fail "the peer is not quarantined"
	sleep 0.1
done
alive "still here"
login 45.80.20.7 20 true || fail "the administrator cannot log in again"
login 45.80.20.66 20 true || fail "what the quarantined peer banned is banned still"
agent peers show mallory
echo "the administrator was not locked out"
/bin/sh /usr/local/bin/gate.sh || fail "the wallet gate"
systemd-analyze security --no-pager banmesh-agent | tail -1
echo "all is well"
