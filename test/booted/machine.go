package booted

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// serve runs on a booted host: a number comes in, the script of that number is
// run as a login shell of root would, and the number and its exit code go out.
const serve = `export HOME=/root LC_ALL=C.UTF-8 TERM=dumb COLUMNS=80 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /root
ip link set lo up
until systemctl is-system-running 2>/dev/null | grep -q 'running\|degraded'; do sleep 0.1; done
exec 3</ctl/in 4>/ctl/out
while read -r n <&3; do
	[ "$n" = end ] && break
	bash /ctl/$n.sh >/ctl/$n.out 2>&1 3<&- 4>&- </dev/null
	echo "$n $?" >&4
done
echo "all is well"
`

// A Machine is a host that runs, and does one command after the other. It is
// used by one goroutine.
type Machine struct {
	h     *Host
	in    *os.File
	out   *bufio.Reader
	ended chan error
	off   func()
	n     int
}

// Start boots the host and waits until it takes commands; limit bounds its life.
// It is powered off when the test ends.
func (h *Host) Start(limit time.Duration, namespace string) *Machine {
	h.t.Helper()
	ctl := filepath.Join(h.Root, "ctl")
	must(h.t, os.MkdirAll(ctl, 0o700))
	for _, name := range []string{"in", "out"} {
		_ = os.Remove(filepath.Join(ctl, name))
		must(h.t, unix.Mkfifo(filepath.Join(ctl, name), 0o600))
	}
	m := &Machine{h: h, ended: make(chan error, 1)}
	go func() {
		_, err := h.Try(Boot{Script: serve, Limit: limit, Namespace: namespace})
		m.ended <- err
	}()
	// Both ends for reading and writing: neither waits for the host, and a host
	// that ends without a word is told by its channel.
	in, err := os.OpenFile(filepath.Join(ctl, "in"), os.O_RDWR, 0)
	must(h.t, err)
	out, err := os.OpenFile(filepath.Join(ctl, "out"), os.O_RDWR, 0)
	must(h.t, err)
	m.in, m.out = in, bufio.NewReader(out)
	m.off = sync.OnceFunc(func() {
		_, _ = fmt.Fprintln(in, "end")
		if err := <-m.ended; err != nil && !h.t.Failed() {
			h.t.Error(err)
		}
		_ = in.Close()
		_ = out.Close()
	})
	h.t.Cleanup(m.off)
	return m
}

// PowerOff ends the machine before the test does, as a shutdown: its host can be
// started again.
func (m *Machine) PowerOff() { m.off() }

// Do runs a script of bash as root and gives its output, standard error
// included, and its exit code. The test ends where the host does.
func (m *Machine) Do(script string) (output string, code int) {
	m.h.t.Helper()
	m.n++
	name := filepath.Join("ctl", strconv.Itoa(m.n))
	m.h.Write(name+".sh", script, 0o700)
	must(m.h.t, second(fmt.Fprintln(m.in, m.n)))
	answer := make(chan string, 1)
	go func() {
		line, _ := m.out.ReadString('\n')
		answer <- line
	}()
	select {
	case line := <-answer:
		number, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		code, err := strconv.Atoi(rest)
		if number != strconv.Itoa(m.n) || err != nil {
			m.h.t.Fatalf("the host answered %q to command %d", line, m.n)
		}
		b, err := os.ReadFile(filepath.Join(m.h.Root, name+".out"))
		must(m.h.t, err)
		return string(b), code
	case err := <-m.ended:
		m.ended <- nil
		m.h.t.Fatalf("the host ended during %q: %v", script, err)
	}
	return "", -1
}

// Must is Do for scripts that succeed.
func (m *Machine) Must(script string) string {
	m.h.t.Helper()
	out, code := m.Do(script)
	if code != 0 {
		m.h.t.Fatalf("%s\nended with %d and said\n%s", script, code, out)
	}
	return out
}

// Write writes a file of the running host, for root alone.
func (m *Machine) Write(path, text string) {
	m.h.t.Helper()
	m.h.Write(path, text, 0o600)
}

// Read gives the contents of a file of the running host.
func (m *Machine) Read(path string) string {
	m.h.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.h.Root, path))
	must(m.h.t, err)
	return string(b)
}

func second(_ int, err error) error { return err }
