package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A cost is that of one run of a program.
type cost struct {
	cpu time.Duration
	rss int64 // peak, in KiB
	out string
}

// run measures the cheapest of several runs of a program.
func run(rounds int, in string, env []string, name string, args ...string) (cost, error) {
	best := cost{cpu: 1 << 62}
	for range rounds {
		c := exec.Command(name, args...)
		c.Env = append(os.Environ(), env...)
		var out bytes.Buffer
		c.Stdout = &out
		var faults bytes.Buffer
		c.Stderr = &faults
		if in != "" {
			f, err := os.Open(in)
			if err != nil {
				return best, err
			}
			defer f.Close()
			c.Stdin = f
		}
		if err := c.Run(); err != nil {
			return best, fmt.Errorf("running %s: %w: %s", name, err, faults.String())
		}
		u := c.ProcessState.SysUsage().(*syscall.Rusage)
		if cpu := c.ProcessState.UserTime() + c.ProcessState.SystemTime(); cpu < best.cpu {
			best = cost{cpu: cpu, rss: int64(u.Maxrss), out: out.String()}
		}
	}
	return best, nil
}

func figure(name string, value float64, unit, aim string) {
	fmt.Printf("figure %s %.3g %s aim %s\n", name, value, unit, aim)
}

func measure(lines, rounds int, server bool) error {
	dir, err := os.MkdirTemp("", "bench-detect-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	end := time.Now().Truncate(time.Second)
	env := []string{"BENCH_NOW=" + end.Format(time.RFC3339)}
	var figures []func()
	for _, m := range []struct {
		name  string
		share float64
	}{{"benign", 0.03}, {"attack", 0.60}} {
		log := filepath.Join(dir, m.name+".log")
		f, err := os.Create(log)
		if err != nil {
			return err
		}
		if err := generate(f, mix{lines: lines, attack: m.share, seed: 7, end: end, span: 6 * time.Hour}); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		load, _ := os.ReadFile("/proc/loadavg") // processor time is dearer beside others
		fmt.Printf("\n%s: %d lines, %.0f %% of them attacks; load %.4s\n", m.name, lines, 100*m.share, load)
		one, err := run(rounds, "", env, self, "-child", log, "-filters", "sshd")
		if err != nil {
			return err
		}
		show("this program, 1 jail", one, lines)
		ten, err := run(rounds, "", env, self, "-child", log, "-filters", tenFilters)
		if err != nil {
			return err
		}
		show("this program, 10 jails", ten, lines)
		// The cost of starting, so that lines per second can be told apart.
		empty := filepath.Join(dir, "empty.log")
		if err := os.WriteFile(empty, nil, 0o600); err != nil {
			return err
		}
		allStart, err := run(rounds, "", env, self, "-child", empty, "-filters", "all")
		if err != nil {
			return err
		}
		all, err := run(rounds, "", env, self, "-child", log, "-filters", "all")
		if err != nil {
			return err
		}
		show("this program, every filter of fail2ban", all, lines)
		fmt.Printf("  %-42s %7.3f CPU s\n", "  of which starting", allStart.cpu.Seconds())
		rate, whole := float64(lines)/(all.cpu-allStart.cpu).Seconds(), float64(lines)/all.cpu.Seconds()
		aim := map[string]string{"benign": ">=1e6", "attack": ">=0.5e6"}[m.name]
		figures = append(figures, func() {
			figure("detect-all-patterns-"+m.name, rate, "lines/CPU-s", aim)
			figure("detect-all-patterns-start-included-"+m.name, whole, "lines/CPU-s", aim)
			figure("detect-rss-"+m.name, float64(all.rss)/1024, "MiB", "<64")
		})
		if regex, err := run(1, "", nil, "fail2ban-regex", "--no-check-all", log, "sshd"); err == nil {
			show("fail2ban-regex --no-check-all sshd", regex, lines)
			ratio := regex.cpu.Seconds() / one.cpu.Seconds()
			figures = append(figures, func() { figure("detect-vs-fail2ban-regex-"+m.name, ratio, "times", ">=40") })
			every, err := run(1, "", nil, "fail2ban-regex", log, "sshd")
			if err != nil {
				return err
			}
			show("fail2ban-regex sshd", every, lines)
			of, err := commands(rounds, dir, log, m.name, lines, regex, every)
			if err != nil {
				return err
			}
			figures = append(figures, of)
		} else {
			fmt.Println("  fail2ban-regex:", err)
		}
		parser := "/usr/libexec/sshguard/sshg-parser"
		for _, p := range []string{"/usr/lib/x86_64-linux-gnu/sshg-parser", "/usr/lib/sshguard/sshg-parser", "/usr/libexec/sshg-parser"} {
			if _, err := os.Stat(p); err == nil {
				parser = p
			}
		}
		if found, err := exec.LookPath("sshg-parser"); err == nil {
			parser = found
		}
		if guard, err := run(rounds, log, nil, parser); err == nil {
			show("sshg-parser", guard, lines)
			ratio := guard.cpu.Seconds() / one.cpu.Seconds()
			figures = append(figures, func() { figure("detect-vs-sshg-parser-"+m.name, ratio, "times", ">1") })
		} else {
			fmt.Println("  sshg-parser:", err)
		}
		if server {
			cpu, rss, err := serve(dir, log)
			if err != nil {
				fmt.Println("  fail2ban server:", err)
				continue
			}
			show("fail2ban server, 10 jails", cost{cpu: cpu, rss: rss}, lines)
			ratio := cpu.Seconds() / ten.cpu.Seconds()
			figures = append(figures, func() { figure("detect-vs-fail2ban-server-10-jails-"+m.name, ratio, "times", ">=150") })
		}
	}
	fmt.Println()
	for _, f := range figures {
		f()
	}
	return nil
}

// commands measures the two commands that a person compares with fail2ban-regex,
// their start included, by the topic sshd: replay beside a run that stops at the first
// expression of a line too, and filter test beside one that tells of every one too.
func commands(rounds int, dir, log, name string, lines int, first, every cost) (figures func(), err error) {
	agent := filepath.Join(dir, "agent")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", agent, "./cmd/banmesh").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the agent: %w: %s", err, out)
	}
	replay, err := run(rounds, "", nil, agent, "replay", "--topic", "sshd", log)
	if err != nil {
		return nil, err
	}
	show("agent replay --topic sshd", replay, lines)
	test, err := run(rounds, "", nil, agent, "filter", "test", "sshd", log)
	if err != nil {
		return nil, err
	}
	show("agent filter test sshd", test, lines)
	aim := map[string]string{"benign": ">=100", "attack": ">=40"}[name]
	return func() {
		figure("replay-vs-fail2ban-regex-"+name, first.cpu.Seconds()/replay.cpu.Seconds(), "times", aim)
		figure("filter-test-vs-fail2ban-regex-"+name, every.cpu.Seconds()/test.cpu.Seconds(), "times", ">=20")
	}, nil
}

func show(name string, c cost, lines int) {
	fmt.Printf("  %-42s %7.3f CPU s %9.0f lines/CPU s %6.1f MiB  %s\n", name, c.cpu.Seconds(), float64(lines)/c.cpu.Seconds(), float64(c.rss)/1024,
		strings.TrimSpace(firstLine(c.out, "read=")))
}

func firstLine(s, prefix string) string {
	if strings.HasPrefix(s, prefix) {
		return strings.SplitN(s, "\n", 2)[0]
	}
	return ""
}

// serve runs a fail2ban server of its own with ten jails on one log until it
// has read all of it, and gives the CPU time and peak memory that it took.
func serve(dir, log string) (time.Duration, int64, error) {
	work, err := os.MkdirTemp(dir, "server-")
	if err != nil {
		return 0, 0, err
	}
	config := filepath.Join(work, "etc")
	if err := exec.Command("cp", "-r", "/etc/fail2ban", config).Run(); err != nil {
		return 0, 0, fmt.Errorf("copying /etc/fail2ban: %w", err)
	}
	for _, drop := range []string{"jail.d", "jail.conf", "jail.local"} {
		if err := os.RemoveAll(filepath.Join(config, drop)); err != nil {
			return 0, 0, err
		}
	}
	var jails strings.Builder
	jails.WriteString("[DEFAULT]\nbackend = polling\nfindtime = 30d\nbantime = 20y\nmaxretry = 5\nusedns = no\n")
	for _, name := range strings.Split(tenFilters, ",") {
		fmt.Fprintf(&jails, "[%s]\nenabled = true\nfilter = %s\nlogpath = %s\naction = nothing\n", name, name, log)
	}
	files := map[string]string{
		"jail.conf":             jails.String(),
		"action.d/nothing.conf": "[Definition]\nactionstart =\nactionstop =\nactioncheck =\nactionban = true\nactionunban =\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(config, name), []byte(text), 0o600); err != nil {
			return 0, 0, err
		}
	}
	socket, logfile := filepath.Join(work, "socket"), filepath.Join(work, "log")
	c := exec.Command("fail2ban-server", "-f", "-c", config, "-s", socket, "-p", filepath.Join(work, "pid"), "--logtarget", logfile, "--loglevel", "INFO", "-x", "start")
	c.Env = append(os.Environ(), "HOME="+work)
	if err := os.WriteFile(filepath.Join(config, "fail2ban.local"), []byte("[Definition]\ndbfile = None\n"), 0o600); err != nil {
		return 0, 0, err
	}
	if err := c.Start(); err != nil {
		return 0, 0, err
	}
	defer func() { _ = c.Wait() }()
	client := func(args ...string) string {
		out, _ := exec.Command("fail2ban-client", append([]string{"-s", socket}, args...)...).CombinedOutput()
		return string(out)
	}
	total := regexp.MustCompile(`Total failed:\s+(\d+)`)
	// Idle means that the process took next to no CPU for some seconds.
	last, quiet := time.Duration(-1), 0
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline) && quiet < 3; {
		time.Sleep(2 * time.Second)
		now, _ := cpuOf(c.Process.Pid)
		if last > 0 && now-last < 100*time.Millisecond && now > time.Second {
			quiet++
		} else {
			quiet = 0
		}
		last = now
	}
	status := client("status", "sshd")
	cpu, rss := cpuOf(c.Process.Pid)
	client("stop")
	m := total.FindStringSubmatch(status)
	if m == nil || m[1] == "0" {
		return 0, 0, fmt.Errorf("it found nothing: %.200s", status)
	}
	return cpu, rss, nil
}

// cpuOf gives the CPU time of a process with its children, and its peak
// memory in KiB.
func cpuOf(pid int) (time.Duration, int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	ticks := 0
	for _, i := range []int{11, 12, 13, 14} {
		n, _ := strconv.Atoi(f[i])
		ticks += n
	}
	var rss int64
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if m := regexp.MustCompile(`VmHWM:\s+(\d+)`).FindSubmatch(status); m != nil {
		rss, _ = strconv.ParseInt(string(m[1]), 10, 64)
	}
	return time.Duration(ticks) * 10 * time.Millisecond, rss
}
