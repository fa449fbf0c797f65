# The same host, booted again: the bans are in the kernel before anybody asks. Then the package goes.
for i in $(seq 100); do systemctl is-active -q banmesh-agent && break; sleep 0.1; done
nft list ruleset | grep -q 192.0.2.77 || fail "the ban is not in the kernel after the reboot"
echo "after a reboot: $(banmesh bans | grep -c 203.0.113.) bans of before"
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
diff /root/before /tmp/after >/tmp/diff 2>&1 || { cat /tmp/diff; fail "the purge left or took something"; }
echo "all is well"
