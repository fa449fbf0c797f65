# On a booted host that has nothing of ours: a package comes, is upgraded and goes. Every line that begins with + is a command that a
# person types; the rest looks at its effects.
# The machine under this one may have had something of ours.
for user in banmesh banmesh-gate banmesh-fetch; do userdel $user 2>/dev/null || true; done
rm -rf /etc/banmesh /var/lib/banmesh /var/lib/banmesh-gate /var/lib/banmesh-fetch /usr/local/bin/banmesh* /usr/local/bin/agent /usr/local/bin/broker /usr/lib/sysusers.d/banmesh.conf /usr/lib/tmpfiles.d/banmesh.conf
rm -f /etc/systemd/system/banmesh*
state /root/before
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

# An upgrade loses no line: offenders are logged all the while, each once.
mkdir -p /etc/banmesh/conf.d
printf '[topics.sshd]\nmaxretry = 1\nboth = true\nfiles = ["/var/log/lines.log"]\n' >/etc/banmesh/conf.d/zz-lines.toml
: >/var/log/lines.log; chmod 644 /var/log/lines.log
say banmesh reload --yes
( n=0; while [ ! -e /tmp/upgraded ] && [ $n -lt 250 ]; do n=$((n + 1)); echo "$(date '+%b %d %H:%M:%S') web sshd[8]: Failed password for root from 203.0.113.$n port 4001 ssh2" >>/var/log/lines.log; sleep 0.05; done; echo "$n" >/tmp/written ) &
writer=$!
# And no ban, not for a moment: the kernel's entry is looked at all the while.
( n=0; while [ ! -e /tmp/upgraded ]; do nft list ruleset | grep -q 192.0.2.77 || n=$((n + 1)); done; echo "$n" >/tmp/gaps ) &
watcher=$!
say dpkg -i /second.deb
systemctl is-active -q banmesh-agent || fail "the agent does not run after the upgrade"
for i in $(seq 100); do banmesh bans 2>/dev/null | grep -q 192.0.2.77 && break; sleep 0.1; done
banmesh bans | grep -q 192.0.2.77 || fail "the ban is gone after the upgrade"
touch /tmp/upgraded; wait $watcher $writer
written=$(cat /tmp/written)
for i in $(seq 100); do [ "$(banmesh bans | grep -c '203\.0\.113\.')" = "$written" ] && break; sleep 0.1; done
[ "$(banmesh bans | grep -c '203\.0\.113\.')" = "$written" ] || fail "of $written offenders that were logged during the upgrade $(banmesh bans | grep -c '203\.0\.113\.') are banned"
echo "$written offenders were logged during the upgrade, and all are banned"
[ "$(cat /tmp/gaps)" = 0 ] || fail "the kernel lacked the ban $(cat /tmp/gaps) times during the upgrade"
banmesh --version | grep -q 0.2.0 || fail "not the new version"
echo "all is well"
