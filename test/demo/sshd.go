package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// startSSHD runs Debian's sshd and rsyslogd on host A in a mount namespace
// whose /dev is an overlay, so that /dev/log is the demo's own, and waits
// until sshd answers. The log is written in rsyslog's traditional format.
func (n *network) startSSHD(ctx context.Context, log string) error {
	d := filepath.Join(n.dir, "sshd")
	if err := os.MkdirAll(filepath.Join(d, "dev"), 0o755); err != nil {
		return err
	}
	key := filepath.Join(d, "host_key")
	if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		return fmt.Errorf("making sshd's host key: %w: %s", err, out)
	}
	files := map[string]string{
		"sshd_config": fmt.Sprintf("ListenAddress 198.51.100.2\nPort 22\nHostKey %s\nPidFile none\nUsePAM no\nPasswordAuthentication yes\n"+
			"PermitRootLogin no\nMaxStartups 100\nLoginGraceTime 10\nUseDNS no\n", key),
		"rsyslog.conf": fmt.Sprintf("module(load=\"imuxsock\" SysSock.Name=\"/dev/log\" SysSock.RateLimit.Interval=\"0\")\n"+
			"$ActionFileDefaultTemplate RSYSLOG_TraditionalFileFormat\nauth,authpriv.* %s\n", log),
		"start.sh": `set -e
mount --make-rprivate /
mount -t tmpfs none "$1/dev"
mkdir "$1/dev/upper" "$1/dev/work"
mount -t overlay overlay -o "lowerdir=/dev,upperdir=$1/dev/upper,workdir=$1/dev/work" /dev
mkdir -p /run/sshd
rsyslogd -n -f "$1/rsyslog.conf" -i "$1/rsyslog.pid" &
i=0; while [ ! -S /dev/log ] && [ $i -lt 500 ]; do sleep 0.02; i=$((i+1)); done
exec /usr/sbin/sshd -D -f "$1/sshd_config"
`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(d, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// The log exists before the agent looks for it, as on any host.
	if err := os.WriteFile(log, nil, 0o640); err != nil {
		return err
	}
	if _, err := n.start("a", "sshd on A", "unshare", "-m", "sh", filepath.Join(d, "start.sh"), d); err != nil {
		return err
	}
	return n.waitPort(ctx, "x", "198.51.100.2:22")
}

// watchFailures notes when each failed login appears in the log, to a fifth of
// a millisecond: the log's own times have whole seconds. It ends with ctx.
func watchFailures(ctx context.Context, log string) (times func() []time.Time, err error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var seen []time.Time
	go func() {
		defer f.Close()
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		var all []byte
		buffer := make([]byte, 64<<10)
		for {
			for {
				n, err := f.Read(buffer)
				all = append(all, buffer[:n]...)
				if err != nil {
					break
				}
			}
			mu.Lock()
			for range bytes.Count(all, []byte("Failed password")) - len(seen) {
				seen = append(seen, time.Now())
			}
			mu.Unlock()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}, nil
}
