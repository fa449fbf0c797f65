package broker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"banmesh/internal/broker/frame"
	"banmesh/test/broker/load"
)

var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "banmesh-broker-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "broker")
	out, err := exec.Command("go", "build", "-o", path, "banmesh/cmd/broker").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building the broker: %w\n%s", err, out)
	}
	return path, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// command gives a broker process's command line; state is its directory.
func command(t *testing.T, port int, state string) []string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "broker.toml")
	text := fmt.Sprintf("network = \"bench\"\nstate_dir = %q\nanonymous = \"full\"\n[[listeners]]\nkind = \"tcp\"\naddress = \"127.0.0.1:%d\"\n", state, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{path, "run", "--config", config, "--socket", filepath.Join(dir, "s")}
}

// A publisher retains messages of many feeds and remembers which were
// acknowledged.
type publisher struct {
	authors []*load.Author

	mu    sync.Mutex
	sent  []string          // payload by identifier - 1
	acked map[string]string // topic to the newest acknowledged payload
	topic []string
}

func newPublisher(n int) *publisher {
	p := &publisher{acked: map[string]string{}}
	for i := range n {
		p.authors = append(p.authors, load.NewAuthor(i))
	}
	return p
}

// run publishes as fast as acknowledgements come, up to most messages or the
// end of the connection.
func (p *publisher) run(t *testing.T, address string, most int) error {
	c, err := load.Dial(address, fmt.Sprint("publisher-", time.Now().UnixNano()), 60)
	if err != nil {
		return err
	}
	defer c.Close()
	p.mu.Lock()
	p.sent, p.topic = nil, nil
	p.mu.Unlock()
	window := make(chan struct{}, 64)
	done := make(chan error, 1)
	go func() {
		for range most {
			first, body, err := c.ReadPacket()
			if err != nil {
				done <- err
				return
			}
			if first != frame.Puback<<4 {
				continue
			}
			id := int(frame.AckID(body)) - 1
			p.mu.Lock()
			p.acked[p.topic[id]] = p.sent[id]
			p.mu.Unlock()
			<-window
		}
		done <- nil
	}()
	for i := range most {
		select {
		case window <- struct{}{}:
		case err := <-done:
			return err
		}
		topic, payload, err := p.authors[i%len(p.authors)].Next(300, time.Now())
		if err != nil {
			t.Error(err)
			return err
		}
		p.mu.Lock()
		p.sent, p.topic = append(p.sent, string(payload)), append(p.topic, topic)
		p.mu.Unlock()
		m, at := frame.AppendPublish(nil, topic, payload, 1, true)
		m[at], m[at+1] = byte((i+1)>>8), byte(i+1)
		if _, err := c.Write(m); err != nil {
			return err
		}
	}
	return <-done
}

// retained gives the messages that a joiner is sent, by topic.
func retained(t *testing.T, address string, want int) map[string]string {
	t.Helper()
	c, err := load.Dial(address, "joiner", 60)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := append([]byte{0, 1, 0, byte(len(load.Filter))}, load.Filter...)
	if _, err := c.Write(append([]byte{frame.Subscribe<<4 | 2, byte(len(body) + 1)}, append(body, 0)...)); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for len(got) < want {
		first, body, err := c.ReadPacket()
		if err != nil {
			t.Fatalf("after %d of %d retained messages: %v", len(got), want, err)
		}
		if first>>4 == frame.Publish {
			n := int(body[0])<<8 | int(body[1])
			got[string(body[2:2+n])] = string(body[2+n:])
		}
	}
	return got
}

// serial is the publication's time, which only grows for one author.
func serial(t *testing.T, payload string) time.Time {
	t.Helper()
	at, ok := load.Sent([]byte(payload))
	if !ok {
		t.Fatal("a payload without a time")
	}
	return at
}

func TestAKillLosesNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	port, state := freePort(t), t.TempDir()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	arg := command(t, port, state)
	p := newPublisher(50)
	for round := range 5 {
		kill := server(t, port, arg[0], arg[1:]...)
		ended := make(chan error, 1)
		go func() { ended <- p.run(t, address, 60_000) }()
		eventually(t, "some are acknowledged", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.acked) == 50 && len(p.sent) > 500+100*round
		})
		kill()
		<-ended
		server(t, port, arg[0], arg[1:]...)()
		kill = server(t, port, arg[0], arg[1:]...)
		got := retained(t, address, 50)
		p.mu.Lock()
		for topic, payload := range p.acked {
			if serial(t, got[topic]).Before(serial(t, payload)) {
				t.Errorf("round %d: an acknowledged message is lost", round)
			}
		}
		p.mu.Unlock()
		kill()
	}
}

func TestAFullDiskHoldsAcknowledgementsAndNothingElse(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("unshare is not installed")
	}
	port, dir := freePort(t), t.TempDir()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	arg := command(t, port, dir)
	// A file system of its own, in a mount namespace that ends with the broker.
	script := `mount -t tmpfs -o size=1m none "$0" && exec "$@"`
	shell := append([]string{"-rm", "sh", "-c", script, dir}, arg...)
	if out, err := exec.Command("unshare", "-rm", "sh", "-c", `mount -t tmpfs -o size=1m none "$0"`, t.TempDir()).CombinedOutput(); err != nil {
		t.Skipf("no mount namespace here: %v %s", err, out)
	}
	server(t, port, "unshare", shell...)
	p := newPublisher(5000) // 5,000 messages of 300 bytes do not fit
	ended := make(chan error, 1)
	go func() { ended <- p.run(t, address, 5000) }()
	acked := func() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.acked) }
	eventually(t, "the disk is full", func() bool {
		before := acked()
		<-time.After(300 * time.Millisecond)
		return before > 0 && acked() == before
	})
	n := acked()
	if n >= 5000 {
		t.Fatalf("%d messages fit", n)
	}
	// It serves all the same, also messages that wait for the disk.
	if got := retained(t, address, n); len(got) < n {
		t.Errorf("%d of %d are served", len(got), n)
	}
	select {
	case err := <-ended:
		t.Errorf("the publisher was cut: %v", err)
	default:
	}
}

func TestASignalDrainsWithinSeconds(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	arg := command(t, port, t.TempDir())
	cmd := exec.Command(arg[0], arg[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	var c *load.Conn
	eventually(t, "it serves", func() (ok bool) {
		var err error
		c, err = load.Dial(address, "client", 60)
		return err == nil
	})
	defer c.Close()
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadPacket(); err == nil {
		t.Error("the client was not told")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}
