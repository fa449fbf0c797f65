package firewall

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHelperSquat is no test: it holds the lock's name, as whoever runs it.
func TestHelperSquat(t *testing.T) {
	if os.Getenv("BANMESH_SQUAT") == "" {
		t.Skip("a helper of TestNobodyWithoutThePrivilegeHoldsTheLock")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	mustDo(t, err)
	mustDo(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "@banmesh-firewall-" + DefaultTable}))
	mustDo(t, unix.Listen(fd, 1))
	_, _ = os.Stdout.WriteString("bound\n")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test is done
}

// Any user may bind an abstract name, and must not keep the agent out by it.
func TestNobodyWithoutThePrivilegeHoldsTheLock(t *testing.T) {
	inNamespace(t)
	for who, busy := range map[string]bool{"nobody": false, "root": true} {
		argv := []string{os.Args[0], "-test.run=^TestHelperSquat$"}
		if who == "nobody" {
			argv = append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}, argv...)
		}
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "BANMESH_SQUAT=1")
		in, err := cmd.StdinPipe()
		mustDo(t, err)
		out, err := cmd.StdoutPipe()
		mustDo(t, err)
		mustDo(t, cmd.Start())
		said := make([]byte, 64)
		if n, err := out.Read(said); err != nil || !strings.HasPrefix(string(said[:n]), "bound") {
			t.Fatalf("%s could not take the name: %q, %v", who, said[:n], err)
		}
		n := newTest(t, Options{})
		err = n.Configure(testContext(t), simple())
		if busy != errors.Is(err, ErrBusy) || !busy && err != nil {
			t.Errorf("%s holds the name: %v", who, err)
		}
		if err := Remove(DefaultTable); busy != errors.Is(err, ErrBusy) || !busy && err != nil {
			t.Errorf("%s holds the name: Remove: %v", who, err)
		}
		mustDo(t, n.Close())
		_ = in.Close()
		_ = cmd.Wait()
	}
}

// TestHelperProbeIPSet is no test: it asks as whoever runs it.
func TestHelperProbeIPSet(t *testing.T) {
	if os.Getenv("BANMESH_PROBE") == "" {
		t.Skip("a helper of TestTheIPSetEnforcerSaysWhatItLacks")
	}
	can := ProbeIPSet(testContext(t), false)
	_, _ = os.Stdout.WriteString("reason: " + can.Reason + "\n")
}

func TestTheIPSetEnforcerSaysWhatItLacks(t *testing.T) {
	inNamespace(t)
	for caps, want := range map[string]string{"+net_admin": "lacks CAP_NET_RAW", "+net_raw": "lacks CAP_NET_ADMIN", "+net_admin,+net_raw": "reason: \n"} {
		cmd := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps="+caps, "--ambient-caps="+caps,
			"--bounding-set=-all,"+caps, "--no-new-privs", os.Args[0], "-test.run=^TestHelperProbeIPSet$")
		cmd.Env = append(os.Environ(), "BANMESH_PROBE=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("with %s: %v, want %q in\n%s", caps, err, want, out)
		}
	}
}
