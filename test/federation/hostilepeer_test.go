package federation

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/control"
)

// Whatever a followed peer signs, the agent is the same process afterwards,
// small, hears the honest, answers, and starts again from its stored state.
func TestAHostilePeerEndsFillsAndStarvesNobody(t *testing.T) {
	broker := mosquitto(t)
	alice, bob, mallory := newNode(t, "alice", broker.url()), newNode(t, "bob", broker.url()), newNode(t, "mallory", broker.url())
	alice.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice, mallory\"\n" + trusts(alice, mallory))
	alice.start()
	bob.start()
	binary := filepath.Join(t.TempDir(), "hostile")
	if out, err := exec.Command("go", "build", "-o", binary, "../peer/hostile").CombinedOutput(); err != nil {
		t.Fatalf("building the hostile peer: %v\n%s", err, out)
	}
	attack := exec.Command(binary, "-broker", broker.url(), "-state", mallory.path("state"), "-network", "testnet", "-for", (*hostileFor + 2*patience).String())
	attack.Stderr = os.Stderr
	if err := attack.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = attack.Process.Kill(); _ = attack.Wait() }()
	before, n := bob.status().PID, 0
	for end := time.Now().Add(*hostileFor); time.Now().Before(end) || n < 3; n++ {
		target := fmt.Sprintf("2001:db8:0:%x::1", n+1)
		alice.bans(target)
		eventually(t, "bob bans "+target, func() bool { return slices.Contains(bob.banned(), target) })
		// A new peer may ban twenty in an hour.
		<-time.After(50*time.Millisecond + *hostileFor/15)
	}
	var list []control.Feed
	if err := bob.client.Get(t.Context(), "/v1/feeds", nil, &list); err != nil {
		t.Fatal(err)
	}
	heard := map[string]int{}
	for _, f := range list {
		if f.Operator == mallory.id.Operator().String() && (f.Epoch > 0 || f.Newest > 0 || f.Missing > 0) {
			heard[string(f.Status)]++
		}
	}
	peak := bob.peak()
	t.Logf("%d bans arrived; the hostile feeds are %v; peak %d MiB", n, heard, peak>>10)
	switch {
	case len(heard) == 0:
		t.Error("bob heard nothing of the hostile peer: the test shows nothing")
	case bob.status().PID != before:
		t.Error("bob is another process")
	case peak > maxMemory:
		t.Errorf("bob used %d MiB, want at most %d", peak>>10, maxMemory>>10)
	}
	for _, x := range bob.banned() {
		if strings.HasPrefix(x, "10.") {
			t.Errorf("%s is banned, which must never be", x)
		}
	}
	bob.stop() // in order, so it lives
	bob.start()
	target := "2001:db8:0:ffff::1"
	alice.bans(target)
	eventually(t, "bob bans after a restart", func() bool { return slices.Contains(bob.banned(), target) })
	bob.stop()
}
