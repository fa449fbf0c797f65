# Runs inside the booted host: the wallet gate on systemd's socket, and an orchestrator that goes on asking while the agent restarts.
set -eu
fail() { echo "the wallet gate: $*"; systemctl status banmesh-agent-gate.socket --no-pager -l || true; exit 1; }

printf '[gate]\nenabled = true\n' >>/etc/banmesh/agent.toml
# systemd opens no socket for a service that runs already, which is why the guide stops it first.
systemctl start banmesh-agent-gate.socket 2>/dev/null && fail "the socket opens under a running service: the guide may be simpler"
systemctl reset-failed
systemctl stop banmesh-agent
systemctl enable --now banmesh-agent-gate.socket 2>&1
systemctl start banmesh-agent
agent livepeer gate
agent livepeer gate --json | grep -q '"inherited": true' || fail "the agent did not take systemd's socket over"
agent denylist add 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed --reason payment --for 1d
agent livepeer gate --json | sed -n 's/.*"url": "\(.*\)".*/\1/p' >/root/url

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
        return e.code, b""
def run():
    global asked, slowest
    while not stop.is_set():
        for wallet, want in (GOOD, (200, b"{}")), (BAD, (403, b"")):
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
threads = [threading.Thread(target=run) for _ in range(4)]
for t in threads: t.start()
sys.stdin.read() # until the restarts are over
stop.set()
for t in threads: t.join()
print("asked %d times, %d answered wrongly, the slowest took %.2f s" % (asked, len(wrong), slowest), wrong[:3])
sys.exit(bool(wrong) or asked < 20)
END
mkfifo /root/until
python3 /root/orchestrator.py </root/until >/root/asked 2>&1 &
asking=$!
exec 7>/root/until
for restart in 1 2 3; do
	systemctl restart banmesh-agent
	agent livepeer gate >/dev/null || fail "it does not answer after restart $restart"
done
exec 7>&-
wait $asking || { cat /root/asked; fail "a session was refused that should pass, or the other way round"; }
cat /root/asked

# After a kill the calls that had begun are lost; those that follow wait for the next agent.
kill -KILL "$(pidof agent)"
python3 - <<'END'
import urllib.request
request = urllib.request.Request(open("/root/url").read().strip(), b'{"id":"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"}')
for again in 1, 2: # the first may still meet the agent that dies
    try:
        with urllib.request.urlopen(request, timeout=30) as r:
            print("after kill -9:", r.status, r.read().decode())
            break
    except OSError:
        if again == 2:
            raise
END
echo "the gate answered through every restart"
