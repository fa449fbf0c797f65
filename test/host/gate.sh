# Runs inside the booted host: the wallet gate's own unit on systemd's socket, and an orchestrator that goes on asking whatever happens.
set -eu
fail() { echo "the wallet gate: $*"; systemctl status banmesh-gate.service banmesh-gate.socket --no-pager -l || true; journalctl -u banmesh-gate --no-pager | tail -20; exit 1; }
until_() { n=0; until eval "$1"; do n=$((n + 1)); [ $n -lt 100 ] || fail "never: $1"; sleep 0.1; done; }

printf '[gate]\nenabled = true\nmessage = "no service here"\n' >>/etc/banmesh/agent.toml
systemctl enable --now banmesh-gate.socket 2>&1
agent reload
agent denylist add 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed --reason payment --for 1d
agent livepeer gate --json | sed -n 's/.*"url": "\(.*\)".*/\1/p' >/root/url
python3 -c 'import urllib.request; urllib.request.urlopen(open("/root/url").read().strip())' # the first call starts it
until_ 'agent livepeer gate --json | grep -q "\"current\": true"'
agent livepeer gate
agent livepeer gate --json | grep -q '"inherited": true' || fail "it did not take systemd's socket over"
[ "$(stat -c %U:%G:%a /var/lib/banmesh-gate/wallets)" = banmesh:banmesh-gate:640 ] || fail "the list is $(stat -c %U:%G:%a /var/lib/banmesh-gate/wallets)"

cat >/root/orchestrator.py <<'END'
import sys, threading, time, urllib.error, urllib.request
url = open("/root/url").read().strip()
GOOD, BAD = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
wrong, asked, slowest, lock, stop = [], 0, 0.0, threading.Lock(), threading.Event()
def ask(wallet):
    request = urllib.request.Request(url, b'{"id":"%s"}' % wallet.encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as r:
            return r.status, r.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()
def run():
    global asked, slowest
    while not stop.is_set():
        for wallet, want in (GOOD, (200, b"{}")), (BAD, (403, b"no service here\n")):
            began = time.monotonic()
            try:
                got = ask(wallet)
            except Exception as e:
                got = e
            with lock:
                asked += 1
                slowest = max(slowest, time.monotonic() - began)
                if got != want:
                    wrong.append((wallet, got))
            stop.wait(0.01)
threads = [threading.Thread(target=run) for _ in range(4)]
for t in threads: t.start()
sys.stdin.read() # until the trouble is over
stop.set()
for t in threads: t.join()
print("asked %d times, %d answered wrongly, the slowest took %.2f s" % (asked, len(wrong), slowest), wrong[:3])
sys.exit(bool(wrong) or asked < 20)
END
mkfifo /root/until
python3 /root/orchestrator.py </root/until >/root/asked 2>&1 &
asking=$!
exec 7>/root/until
trouble() {
	echo "- $1"
	eval "$1"
	sleep 0.5 # of calls
}
gate='$(systemctl show -P MainPID banmesh-gate)'
for again in 1 2 3; do
	trouble "kill -KILL $gate"
	trouble "systemctl restart banmesh-gate"
done
trouble "kill -STOP $gate; sleep 2" # systemd's watchdog replaces it
trouble "systemctl restart banmesh-agent"
trouble 'kill -STOP $(pidof agent)'
trouble 'kill -CONT $(pidof agent)'
trouble 'kill -KILL $(pidof agent)'
echo 'typo = = 1' >>/etc/banmesh/agent.toml
trouble 'systemctl restart banmesh-agent || true' # it does not start
trouble "kill -KILL $gate"
sed -i '/typo = = 1/d' /etc/banmesh/agent.toml
systemctl reset-failed banmesh-agent
trouble 'systemctl restart banmesh-agent'
exec 7>&-
wait $asking || { cat /root/asked; fail "a session was refused that should pass, or the other way round"; }
cat /root/asked
[ "$(systemctl show -P NRestarts banmesh-gate)" -ge 1 ] || fail "it was replaced $(systemctl show -P NRestarts banmesh-gate) times"

# A torn list lets everybody in until the agent has written it again.
head -c 60 /var/lib/banmesh-gate/wallets >/root/torn
cat /root/torn >/var/lib/banmesh-gate/wallets
until_ 'agent livepeer gate --json | grep -q "\"current\": true"'
systemd-analyze security --no-pager banmesh-gate | tail -1
echo "the gate answered through all of it"
