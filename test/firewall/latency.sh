#!/usr/bin/env bash
# How long after the last failed login a packet of the attacker is dropped on the same host: the agent, sshguard and
# fail2ban, one after the other, each in a network namespace of its own, by the same program. Root.
#   test/firewall/latency.sh AGENT [ROUNDS]
set -euo pipefail
agent=$(realpath "$1")
cd "$(dirname "$0")/../.."
rounds=${2:-30}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 "${GO:-go}" build -o "$work/latency" banmesh/test/firewall/latency

# inside NAME TOOL FAILURES: runs the tool in a new namespace, measures, and ends it.
inside() {
	local log=$work/$1.log
	: >"$log"
	NAME=$1 LOG=$log WORK=$work FAILURES=$3 ROUNDS=$rounds AGENT=$agent TOOL=$2 setsid unshare -n -m bash -euc '
		ip link set lo up
		mount -t tmpfs run /run
		mkdir -p /run/fail2ban
		eval "$TOOL" >"$WORK/$NAME.out" 2>&1 &
		tool=$!
		end() { kill -TERM -- $tool 2>/dev/null || true; for i in $(seq 50); do kill -0 $tool 2>/dev/null || return 0; sleep 0.1; done; kill -KILL $tool; } 2>/dev/null
		trap end EXIT
		sleep 4 # every one of them reads its log by then
		"$WORK/latency" -log "$LOG" -rounds "$ROUNDS" -failures "$FAILURES" -name "$NAME" ||
			{ tail -20 "$WORK/$NAME.out" >&2; exit 1; }
	'
}

mkdir "$work/etc"
printf '[embedded_broker]\nlisten = "127.0.0.1:0"\n[topics.sshd]\nfiles = ["%s"]\njournal = []\nmaxretry = 5\n' "$work/agent.log" >"$work/etc/agent.toml"
inside agent "exec $agent --config-dir $work/etc --state-dir $work/state --socket $work/s run" 5

# sshguard blocks at a score of 50, which is five failures of 10.
sed -e 's/^exec .*//' >"$work/sshguard" <<EOF
/usr/libexec/sshguard/sshg-logtail $work/sshguard.log | /usr/libexec/sshguard/sshg-parser |
	/usr/libexec/sshguard/sshg-blocker -a 50 -p 600 -s 1800 | /usr/libexec/sshguard/sshg-fw-nft-sets &
trap 'kill 0' TERM
wait
EOF
inside sshguard "exec setsid bash $work/sshguard" 5

cp -r /etc/fail2ban "$work/f2b"
rm -f "$work"/f2b/jail.d/*
printf '[sshd]\nenabled = true\nbackend = auto\nlogpath = %s\nbanaction = nftables-multiport\nmaxretry = 5\n' "$work/fail2ban.log" >"$work/f2b/jail.local"
printf '[Definition]\ndbfile = None\nlogtarget = STDOUT\n' >"$work/f2b/fail2ban.local"
inside fail2ban "exec fail2ban-server -x -f -c $work/f2b -s $work/f.sock -p $work/f.pid start" 5
