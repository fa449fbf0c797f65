package federation

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var hostileFor = flag.Duration("hostile", 5*time.Second, "how long a hostile broker attacks an agent")

// maxMemory is the most memory that an agent may have used, in KiB, whatever a
// broker sends.
const maxMemory = 200 << 10

// hostileBroker starts the broker that breaks every rule and gives its URL.
func hostileBroker(t *testing.T, seed int) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "hostile")
	if out, err := exec.Command("go", "build", "-o", binary, "../broker/hostile").CombinedOutput(); err != nil {
		t.Fatalf("building the hostile broker: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "-seed", strconv.Itoa(seed))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return "tcp://" + strings.TrimSpace(address)
}

// peak is the most memory that a node's process has used so far, in KiB.
func (n *node) peak() int {
	n.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				n.t.Fatal(err)
			}
			return kib
		}
	}
	n.t.Fatal("no VmHWM")
	return 0
}

// Whatever a broker sends, the agent is the same process afterwards, small, and
// hears over an honest broker beside it.
func TestAHostileBrokerEndsFillsAndStarvesNobody(t *testing.T) {
	honest := mosquitto(t)
	urls := []string{honest.url()}
	for i := range 5 { // because an agent comes back to each more and more seldom
		urls = append(urls, hostileBroker(t, 2*i))
	}
	alice, bob := newNode(t, "alice", honest.url()), newNode(t, "bob", urls...)
	alice.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice\"\n" + trusts(alice))
	alice.start()
	bob.start()
	n := 0
	for end := time.Now().Add(*hostileFor); time.Now().Before(end) || n < 3; n++ {
		target := fmt.Sprintf("2001:db8:0:%x::1", n+1)
		alice.bans(target)
		eventually(t, "bob bans "+target, func() bool { return slices.Contains(bob.banned(), target) })
		bob.status() // it answers
		<-time.After(50 * time.Millisecond)
	}
	if kib := bob.peak(); kib > maxMemory {
		t.Errorf("bob used %d MiB, want at most %d", kib>>10, maxMemory>>10)
	}
	t.Logf("%d bans arrived; peak %d MiB", n, bob.peak()>>10)
	bob.stop() // in order, so it lives
}
