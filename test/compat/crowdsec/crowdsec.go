// Package crowdsec runs CrowdSec's local API, as Debian packages it, to compare
// ours with it.
package crowdsec

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrMissing says that the program is not there.
var ErrMissing = errors.New("crowdsec is neither installed nor unpacked: make deps-test")

// Key is the key of the one bouncer that a [Server] knows.
const Key = "documentation-key"

// A Server is a running local API.
type Server struct {
	URL  string // http://127.0.0.1:PORT
	PID  int
	dir  string
	root string // "" for the installed program
	cmd  *exec.Cmd
}

// Unpacked is where deploy/unpack.sh puts the package, from the top of the
// repository.
const Unpacked = ".deps/crowdsec"

// Start runs a server with its state in dir; top is the top of the repository.
// Stop ends it.
func Start(ctx context.Context, dir, top string) (*Server, error) {
	return StartJoined(ctx, dir, top, "")
}

// StartJoined is [Start] with the file of credentials for a central API, "" for
// none.
func StartJoined(ctx context.Context, dir, top, credentials string) (*Server, error) {
	s := &Server{dir: dir, root: filepath.Join(top, Unpacked)}
	if _, err := os.Stat(s.program("crowdsec")); err != nil {
		if s.root = ""; exec.Command(s.program("crowdsec"), "-version").Run() != nil {
			return nil, ErrMissing
		}
	}
	// The port is free now, and taken by nobody who asks for any.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	s.URL = "http://" + address
	etc := filepath.Join(cmp.Or(s.root, "/"), "etc/crowdsec")
	conf := fmt.Sprintf(`common: {daemonize: false, log_media: stdout, log_level: error, log_dir: %[1]s, working_dir: %[1]s}
config_paths: {config_dir: %[1]s, data_dir: %[1]s, simulation_path: %[2]s/simulation.yaml, hub_dir: %[1]s, index_path: %[1]s/.index.json, notification_dir: %[1]s, plugin_dir: %[1]s}
cscli: {output: raw}
db_config: {log_level: error, type: sqlite, db_path: %[1]s/crowdsec.db, use_wal: true}
api:
  client: {credentials_path: %[1]s/local.yaml}
  server: {log_level: error, listen_uri: %[3]s, profiles_path: %[2]s/profiles.yaml}
prometheus: {enabled: false}
`, dir, etc, address)
	if credentials != "" {
		conf = strings.Replace(conf, "  server: {log_level: error,", "  server: {log_level: error, online_client: {credentials_path: "+credentials+"},", 1)
	}
	for name, content := range map[string]string{"config.yaml": conf, ".index.json": "{}", "local.yaml": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(
		s.cscli(ctx, "machines", "add", "test", "--password", "documentation", "-f", filepath.Join(dir, "local.yaml"), "--url", s.URL+"/"),
		s.cscli(ctx, "bouncers", "add", "test", "-k", Key),
	); err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, s.program("crowdsec"), "-c", filepath.Join(dir, "config.yaml"), "-no-cs")
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	s.cmd.WaitDelay = 5 * time.Second
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.PID = s.cmd.Process.Pid
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if answer, err := http.Get(s.URL + "/health"); err == nil {
			answer.Body.Close()
			return s, nil
		}
		if time.Now().After(deadline) {
			s.Stop()
			return nil, errors.New("crowdsec does not answer")
		}
	}
}

// Stop ends the server and waits for it.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait() // it says that it was interrupted
}

// Import bans the addresses of a file in CrowdSec's CSV.
func (s *Server) Import(ctx context.Context, csv string) error {
	file := filepath.Join(s.dir, "import.csv")
	if err := os.WriteFile(file, []byte(csv), 0o600); err != nil {
		return err
	}
	return s.cscli(ctx, "decisions", "import", "-i", file)
}

// Add bans an address ("--ip") or a range ("--range").
func (s *Server) Add(ctx context.Context, kind, value, duration string) error {
	return s.cscli(ctx, "decisions", "add", kind, value, "--duration", duration, "--reason", "test")
}

// Delete unbans an address or a range.
func (s *Server) Delete(ctx context.Context, kind, value string) error {
	return s.cscli(ctx, "decisions", "delete", kind, value)
}

func (s *Server) cscli(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, s.program("cscli"), append([]string{"-c", filepath.Join(s.dir, "config.yaml")}, args...)...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		return fmt.Errorf("cscli %v: %w: %s", args, err, out.Bytes())
	}
	return nil
}

func (s *Server) program(name string) string {
	if s.root == "" {
		return name
	}
	return filepath.Join(s.root, "usr/bin", name)
}
