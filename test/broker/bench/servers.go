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
)

// A server is a broker in a process of its own.
type server struct {
	name    string
	command func(dir string, port int, encrypted bool) (*exec.Cmd, error)
	tls     bool
}

// process is a running server.
type process struct {
	cmd     *exec.Cmd
	address string
	port    int
	dir     string
	tls     bool
}

func (p *process) url() string {
	if p.tls {
		return "ssl://" + p.address
	}
	return "tcp://" + p.address
}

func ours(binary string) server { return banmesh(binary, "banmesh", "") }

// withoutAdmission is the community broker as it would be if it trusted
// everybody: the difference is the cost of admission.
func withoutAdmission(binary string) server { return banmesh(binary, "open", "open = true\n") }

func banmesh(binary, name, more string) server {
	return server{name: name, command: func(dir string, port int, encrypted bool) (*exec.Cmd, error) {
		listener := "kind = \"tcp\"\n"
		if encrypted {
			listener = fmt.Sprintf("kind = \"tls\"\ncert_file = %q\nkey_file = %q\n", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		}
		config := more + fmt.Sprintf("network = \"bench\"\nstate_dir = %q\nanonymous = \"full\"\nkeys = true\n[[listeners]]\n%saddress = \"127.0.0.1:%d\"\n[limits]\nnewcomer_bytes = 67108864\ndrain_time = \"5s\"\n", filepath.Join(dir, "state"), listener, port)
		path := filepath.Join(dir, "broker.toml")
		return exec.Command(binary, "run", "--config", path, "--socket", filepath.Join(dir, "s")), os.WriteFile(path, []byte(config), 0o600)
	}}
}

func mosquitto() server {
	return server{name: "mosquitto", command: func(dir string, port int, encrypted bool) (*exec.Cmd, error) {
		// Its defaults drop above 1,000 queued messages.
		config := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\nlog_type error\n", port)
		if encrypted {
			// Started by root it would become a user that may not read the key.
			config += fmt.Sprintf("user root\ncertfile %s\nkeyfile %s\n", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		}
		path := filepath.Join(dir, "mosquitto.conf")
		return exec.Command("mosquitto", "-c", path), os.WriteFile(path, []byte(config), 0o644)
	}}
}

func nats(binary string) server {
	return server{name: "nats", command: func(dir string, port int, encrypted bool) (*exec.Cmd, error) {
		secret := ""
		if encrypted {
			secret = fmt.Sprintf(", tls { cert_file: %q, key_file: %q }", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		}
		config := fmt.Sprintf("server_name: bench\nlisten: \"127.0.0.1:-1\"\njetstream { store_dir: %q, limits { default_max_consumers: -1 } }\nmqtt { listen: \"127.0.0.1:%d\", consumer_memory_storage: true, max_ack_pending: 65535%s }\n", filepath.Join(dir, "js"), port, secret)
		path := filepath.Join(dir, "nats.conf")
		return exec.Command(binary, "-c", path), os.WriteFile(path, []byte(config), 0o644)
	}}
}

// start runs a server in a directory and waits until it accepts.
func (s server) start(dir string) (*process, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	return s.startAt(dir, port)
}

// startAt starts a server on a port.
func (s server) startAt(dir string, port int) (*process, error) {
	if s.tls {
		if err := selfSigned(dir); err != nil {
			return nil, err
		}
	}
	cmd, err := s.command(dir, port, s.tls)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.name, err)
	}
	p := &process{cmd: cmd, address: fmt.Sprintf("127.0.0.1:%d", port), port: port, dir: dir, tls: s.tls}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		nc, err := net.Dial("tcp", p.address)
		if err == nil {
			nc.Close()
			return p, nil
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("%s does not listen: %w", s.name, err), p.kill())
		}
	}
}

func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	return err
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case <-done:
		return nil
	case <-time.After(10 * time.Second):
		return p.kill()
	}
}

// cpu is the processor time so far (proc_pid_stat(5), fields 14 and 15, in
// ticks of 10 ms).
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// rss is the resident memory in bytes.
func (p *process) rss() (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	return pages * os.Getpagesize(), err
}
