package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	admission "banmesh/internal/broker"
	"banmesh/internal/broker/frame"
	"banmesh/test/broker/load"
)

// account is the user, and the password, of an author whose clock is wrong: our
// broker takes no proof of a key from hours ago.
const account = "bench"

// A broker is a server in a process of its own, as its makers configure it.
type broker struct {
	name, address, url string
	cmd                *exec.Cmd
}

func start(name, dir, ours, nats string) (*broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	var program, text string
	var args []string
	config := filepath.Join(dir, name+".conf")
	switch name {
	case "mosquitto":
		program, text, args = "mosquitto", fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\n", port), []string{"-c", config}
	case "nats":
		program, args = nats, []string{"-c", config}
		text = fmt.Sprintf("server_name: bench\nlisten: \"127.0.0.1:-1\"\njetstream { store_dir: %q }\nmqtt { listen: \"127.0.0.1:%d\" }\n", filepath.Join(dir, "js"), port)
	case "banmesh":
		program, args = ours, []string{"run", "--config", config, "--socket", filepath.Join(dir, "s")}
		hash, err := admission.HashPassword(account)
		if err != nil {
			return nil, err
		}
		text = fmt.Sprintf("network = %q\nstate_dir = %q\nanonymous = \"full\"\n[[listeners]]\nkind = \"tcp\"\naddress = \"127.0.0.1:%d\"\n[users.%s]\nhash = %q\n[limits]\nnewcomer_bytes = 67108864\n",
			network, filepath.Join(dir, "state"), port, account, hash)
	default:
		return nil, errors.New("unknown broker")
	}
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	b := &broker{name: name, address: fmt.Sprintf("127.0.0.1:%d", port), url: fmt.Sprintf("tcp://127.0.0.1:%d", port), cmd: exec.Command(program, args...)}
	b.cmd.Stdout, b.cmd.Stderr = log, log
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", b.address)
		if err == nil {
			c.Close()
			return b, nil
		}
		if time.Now().After(deadline) {
			b.kill()
			return nil, fmt.Errorf("it does not listen: %w", err)
		}
	}
}

func (b *broker) kill() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}

func (b *broker) rss() int { return rss(b.cmd.Process.Pid) }

// rss is a process's resident memory in bytes (proc_pid_statm(5)).
func rss(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

// offenders is how many retained messages the comparison stores: a tenth of
// the large feed, because brokers suffer.
const offenders = 100_000

// others measures the simpler designs: one retained message an offender, and
// plain messages that are not retained, both on this broker.
func others(b *broker) error {
	if b.name == "banmesh" {
		return nil // it refuses both: neither is signed
	}
	before := b.rss()
	// It is silent while the broker acknowledges, which takes NATS minutes on a
	// busy machine: with a keepalive of one it would be cut.
	c, err := load.Dial(b.address, "writer", 3600)
	if err != nil {
		return err
	}
	defer c.Close()
	payload := make([]byte, 116) // a signed record, as small as it gets
	acknowledged := make(chan error, 1)
	go func() {
		for range offenders {
			if _, _, err := c.ReadPacket(); err != nil {
				acknowledged <- err
				return
			}
		}
		acknowledged <- nil
	}()
	for i := range offenders {
		if _, err := c.Write(publish(fmt.Sprintf("off/%d/%d", i/1000, i), payload, 1, uint16(1+i%65000))); err != nil {
			return err
		}
	}
	select {
	case err := <-acknowledged:
		if err != nil {
			return err
		}
	case <-time.After(10 * time.Minute):
		return errors.New("the broker does not acknowledge retained messages")
	}
	begin := time.Now()
	got, bytes, last, err := join(b.address, "late", "off/#")
	if err != nil {
		return err
	}
	figure(b, "retained_each_delivered", 100*float64(got)/offenders, "%", "-")
	if got > 0 {
		figure(b, "retained_each_bytes_a_ban", float64(bytes)/float64(got), "B", "-")
		figure(b, "retained_each_seconds", last.Sub(begin).Seconds(), "s", "-")
	}
	figure(b, "retained_each_broker_memory", float64(b.rss()-before)/(1<<20), "MiB", "-")
	for i := range 1000 {
		if _, err := c.Write(publish("plain/add", fmt.Appendf(nil, "10.0.%d.%d", i/256, i%256), 0, 0)); err != nil {
			return err
		}
	}
	if err := c.Subscribe("none2", 0); err != nil {
		return err
	}
	if got, _, _, err = join(b.address, "later", "plain/#"); err != nil {
		return err
	}
	figure(b, "plain_messages_late_join", float64(got)/10, "%", "-")
	return nil
}

// publish is a PUBLISH, of QoS 1 where it has a packet identifier.
func publish(topic string, payload []byte, retain byte, id uint16) []byte {
	body := append([]byte{byte(len(topic) >> 8), byte(len(topic))}, topic...)
	first := frame.Publish<<4 | retain
	if id > 0 {
		first |= 2
		body = append(body, byte(id>>8), byte(id))
	}
	body = append(body, payload...)
	out := []byte{first}
	for n := len(body); ; n >>= 7 {
		if n < 0x80 {
			out = append(out, byte(n))
			break
		}
		out = append(out, byte(n)|0x80)
	}
	return append(out, body...)
}

// join subscribes with QoS 1 and counts messages until nothing does for
// three seconds.
func join(address, id, filter string) (got, bytes int, last time.Time, err error) {
	c, err := load.Dial(address, id, 60)
	if err != nil {
		return 0, 0, last, err
	}
	defer c.Close()
	body := append([]byte{0, 1, byte(len(filter) >> 8), byte(len(filter))}, filter...)
	body = append(body, 1)
	if _, err := c.Write(append([]byte{frame.Subscribe<<4 | 2, byte(len(body))}, body...)); err != nil {
		return 0, 0, last, err
	}
	for {
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		first, body, err := c.ReadPacket()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got, bytes, last, nil
		}
		if err != nil {
			return got, bytes, last, err
		}
		if first>>4 != frame.Publish {
			continue
		}
		got, bytes, last = got+1, bytes+len(body)+2, time.Now()
		if first>>1&3 == 1 {
			n := int(body[0])<<8 | int(body[1])
			if _, err := c.Write([]byte{frame.Puback << 4, 2, body[2+n], body[3+n]}); err != nil {
				return got, bytes, last, err
			}
		}
	}
}
