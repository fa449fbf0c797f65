package nft

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

// TestHelperSquat is no test: it holds the lock's name, as whoever runs it.
func TestHelperSquat(t *testing.T) {
	if os.Getenv("BANMESH_SQUAT") == "" {
		t.Skip("a helper of TestNobodyWithoutThePrivilegeHoldsTheLock")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	testnet.Must(t, err)
	testnet.Must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "@banmesh-firewall-" + firewall.DefaultTable}))
	testnet.Must(t, unix.Listen(fd, 1))
	_, _ = os.Stdout.WriteString("bound\n")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test is done
}

// Any user may bind an abstract name, and must not keep the agent out by it.
func TestNobodyWithoutThePrivilegeHoldsTheLock(t *testing.T) {
	testnet.Enter(t)
	for who, busy := range map[string]bool{"nobody": false, "root": true} {
		argv := []string{os.Args[0], "-test.run=^TestHelperSquat$"}
		if who == "nobody" {
			argv = append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}, argv...)
		}
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "BANMESH_SQUAT=1")
		in, err := cmd.StdinPipe()
		testnet.Must(t, err)
		out, err := cmd.StdoutPipe()
		testnet.Must(t, err)
		testnet.Must(t, cmd.Start())
		said := make([]byte, 64)
		if n, err := out.Read(said); err != nil || !strings.HasPrefix(string(said[:n]), "bound") {
			t.Fatalf("%s could not take the name: %q, %v", who, said[:n], err)
		}
		n := newTest(t, Options{})
		err = n.Configure(testnet.Context(t), simple())
		if busy != errors.Is(err, firewall.ErrBusy) || !busy && err != nil {
			t.Errorf("%s holds the name: %v", who, err)
		}
		if err := Remove(firewall.DefaultTable); busy != errors.Is(err, firewall.ErrBusy) || !busy && err != nil {
			t.Errorf("%s holds the name: Remove: %v", who, err)
		}
		testnet.Must(t, n.Close())
		_ = in.Close()
		_ = cmd.Wait()
	}
}
