// Command slowdisk counts the bans in the kernel when an attack ends, of an agent
// whose disk takes long for each write: strace delays its fsync and fdatasync. Fifty
// addresses a second fail to log in, five times each. Run it as root in a network namespace of its own:
//
//	unshare -n go run ./test/firewall/slowdisk -agent bin/agent
//
// It prints one line a figure: figure NAME VALUE UNIT aim AIM.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	agent     string
	disk      time.Duration
	addresses int
	each      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.agent, "agent", "bin/agent", "the agent's program")
	flag.DurationVar(&o.disk, "disk", 30*time.Millisecond, "how long each fsync takes")
	flag.IntVar(&o.addresses, "addresses", 497, "how many attackers, at most 500")
	flag.DurationVar(&o.each, "each", 20*time.Millisecond, "the time from one attacker to the next")
	flag.Parse()
	if err := measure(o); err != nil {
		fmt.Fprintln(os.Stderr, "slowdisk:", err)
		os.Exit(1)
	}
}

func measure(o options) (err error) {
	dir, err := os.MkdirTemp("", "slowdisk")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log, err := os.Create(filepath.Join(dir, "auth.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	config := fmt.Sprintf("[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.sshd]\nfiles = [%q]\njournal = []\nmaxretry = 5\ncorroborate = \"off\"\n", log.Name())
	if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(config), 0o600); err != nil {
		return err
	}
	agent := exec.Command("strace", "-f", "--seccomp-bpf", "-o", filepath.Join(dir, "writes"), "-e", "trace=fsync,fdatasync",
		"-e", fmt.Sprintf("inject=fsync,fdatasync:delay_exit=%d", o.disk.Microseconds()),
		o.agent, "--config-dir", dir, "--state-dir", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "s"), "run")
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		return err
	}
	defer said.Close()
	agent.Stdout, agent.Stderr, agent.SysProcAttr = said, said, &syscall.SysProcAttr{Setpgid: true}
	if err := agent.Start(); err != nil {
		return err
	}
	defer func() {
		_ = syscall.Kill(-agent.Process.Pid, syscall.SIGTERM)
		_ = agent.Wait()
		if err != nil {
			text, _ := os.ReadFile(said.Name())
			err = fmt.Errorf("%w; the agent said:\n%s", err, text)
		}
	}()
	// One attacker more shows that the log is read.
	if err := until(func() (bool, error) { return inKernel() > 0, attack(log, "203.0.113.254") }); err != nil {
		return err
	}
	next := time.NewTicker(o.each)
	defer next.Stop()
	for i := range o.addresses {
		if err := attack(log, address(i)); err != nil {
			return err
		}
		<-next.C
	}
	ended := time.Now()
	fmt.Printf("figure slow-disk-bans-at-the-attacks-end-of-%d %d bans aim >=%d\n", o.addresses, inKernel()-1, o.addresses-o.addresses/20)
	if err := until(func() (bool, error) { return inKernel() > o.addresses, nil }); err != nil {
		return fmt.Errorf("%d of %d bans: %w", inKernel()-1, o.addresses, err)
	}
	fmt.Printf("figure slow-disk-last-ban-after %.2f s aim <2\n", time.Since(ended).Seconds())
	writes, err := os.ReadFile(filepath.Join(dir, "writes"))
	if err != nil {
		return err
	}
	delayed := strings.Count(string(writes), "(DELAYED)")
	if delayed == 0 {
		return fmt.Errorf("no write was delayed")
	}
	fmt.Printf("figure slow-disk-writes-of-%d-ms %d writes aim <%d\n", o.disk.Milliseconds(), delayed, o.addresses)
	return nil
}

// address gives the i-th attacker's, of two networks for documentation.
func address(i int) string {
	if i < 250 {
		return fmt.Sprintf("203.0.113.%d", i+1)
	}
	return fmt.Sprintf("198.51.100.%d", i-249)
}

// attack writes five failed logins.
func attack(log *os.File, from string) error {
	var b strings.Builder
	for i := range 5 {
		fmt.Fprintf(&b, "%s host sshd[%d]: Failed password for root from %s port %d ssh2\n", time.Now().Format(time.Stamp), 1000+i, from, 40_000+i)
	}
	_, err := log.WriteString(b.String())
	return err
}

// inKernel counts the addresses that the agent's table holds.
func inKernel() (n int) {
	out, err := exec.Command("nft", "list", "table", "inet", "banmesh").Output()
	if err != nil {
		return 0
	}
	return strings.Count(string(out), "203.0.113.") + strings.Count(string(out), "198.51.100.")
}

func until(done func() (bool, error)) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("it did not happen within a minute")
}
