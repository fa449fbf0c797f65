package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"banmesh/internal/detect/source"
)

// bench reads one journal, made with fixed seed of entries with the fields that
// journald adds, by journalctl and by the reader, and compares CPU and texts.
func bench(ctx context.Context, entries int) error {
	dir, err := os.MkdirTemp("", "journal-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := makeJournal(ctx, filepath.Join(dir, "bench.journal"), entries); err != nil {
		return err
	}
	journalctl := func(args ...string) (time.Duration, []byte, error) {
		sum := md5.New()
		cmd := exec.CommandContext(ctx, "journalctl", append([]string{"--directory=" + dir, "--quiet", "--no-pager", "--all"}, args...)...)
		cmd.Stdout = sum
		err := cmd.Run()
		if err != nil {
			return 0, nil, err
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), sum.Sum(nil), nil
	}
	_, want, err := journalctl("--output=cat")
	if err != nil {
		return err
	}
	const turns = 5
	var export, ours, matching []time.Duration
	for range turns {
		d, _, err := journalctl("--output=export")
		if err != nil {
			return err
		}
		export = append(export, d)
		_, n, sum, err := readAll(ctx, dir, "", true)
		if err != nil {
			return err
		}
		if n != entries || !bytes.Equal(sum, want) {
			return fmt.Errorf("%d entries with texts %s, journalctl gives %s", n, hex.EncodeToString(sum), hex.EncodeToString(want))
		}
		if d, n, _, err = readAll(ctx, dir, "", false); err != nil || n != entries {
			return fmt.Errorf("%d entries: %w", n, err)
		}
		ours = append(ours, d)
		if d, _, _, err = readAll(ctx, dir, "_SYSTEMD_UNIT=ssh.service + _COMM=sshd", false); err != nil {
			return err
		}
		matching = append(matching, d)
	}
	rate := func(d []time.Duration) float64 { return float64(entries) / slices.Min(d).Seconds() }
	fmt.Printf("%d entries; entries a CPU second: journalctl export %.0f, reader %.0f, reader with a match %.0f; texts equal (md5 %s)\n",
		entries, rate(export), rate(ours), rate(matching), hex.EncodeToString(want))
	figure("journal-entries-per-cpu-second", rate(ours), "entries/s", ">2000000")
	figure("journal-ratio-to-journalctl", rate(ours)/rate(export), "times", ">20")
	if rate(ours) < 20*rate(export) {
		return errors.New("less than 20 times journalctl's speed")
	}
	return nil
}

// readAll gives the CPU time of this process for reading everything.
func readAll(ctx context.Context, dir, match string, sum bool) (time.Duration, int, []byte, error) {
	s, err := source.Open(source.Spec{Journal: []string{match}, JournalDirs: []string{dir}}, source.Position{}, source.Options{Start: source.StartBeginning, Once: true})
	if err != nil {
		return 0, 0, nil, err
	}
	before, err := cpu()
	if err != nil {
		return 0, 0, nil, err
	}
	var texts hash.Hash
	var out *bufio.Writer
	if sum {
		texts = md5.New()
		out = bufio.NewWriter(texts)
	}
	n := 0
	err = s.Run(ctx, func(l source.Line) error {
		n++
		if !sum {
			return nil
		}
		if _, err := out.Write(l.Text); err != nil {
			return err
		}
		return out.WriteByte('\n')
	})
	if err != nil {
		return 0, 0, nil, err
	}
	after, err := cpu()
	if err != nil || !sum {
		return after - before, n, nil, err
	}
	if err := out.Flush(); err != nil {
		return 0, 0, nil, err
	}
	return after - before, n, texts.Sum(nil), nil
}

func cpu() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// makeJournal writes entries as a server's journal has them: about 26 fields.
func makeJournal(ctx context.Context, path string, entries int) error {
	cmd := exec.CommandContext(ctx, "/lib/systemd/systemd-journal-remote", "--output="+path, "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(5, 6))
	w := bufio.NewWriterSize(in, 1<<20)
	boot, machine := strings.Repeat("b", 32), strings.Repeat("c", 32)
	const start = int64(1700000000000000)
	services := []struct{ tag, unit, comm string }{
		{"sshd", "ssh.service", "sshd"}, {"CRON", "cron.service", "cron"}, {"systemd", "init.scope", "systemd"}, {"postfix/smtpd", "postfix@-.service", "smtpd"},
	}
	for i := range entries {
		at := start + int64(i)*1000
		v := services[random.IntN(len(services))]
		message := fmt.Sprintf("Failed password for invalid user admin from 203.0.113.%d port %d ssh2", random.IntN(256), random.IntN(65536))
		if random.IntN(4) > 0 {
			message = fmt.Sprintf("pam_unix(%s:session): session opened for user root(uid=0) by (uid=%d)", v.tag, random.IntN(1000))
		}
		pid := 300 + random.IntN(5000)
		fmt.Fprintf(w, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n", at, i*1000+1, boot)
		fmt.Fprintf(w, "_TRANSPORT=syslog\nPRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=%s\nSYSLOG_PID=%d\nSYSLOG_TIMESTAMP=Nov 21 09:%02d:%02d \n", v.tag, pid, i/60000%60, i/1000%60)
		fmt.Fprintf(w, "MESSAGE=%s\n_PID=%d\n_UID=0\n_GID=0\n_COMM=%s\n_EXE=/usr/sbin/%s\n_CMDLINE=%s: worker [priv]\n", message, pid, v.comm, v.comm, v.tag)
		fmt.Fprintf(w, "_CAP_EFFECTIVE=1ffffffffff\n_SELINUX_CONTEXT=unconfined\n_SYSTEMD_CGROUP=/system.slice/%s\n_SYSTEMD_UNIT=%s\n_SYSTEMD_SLICE=system.slice\n", v.unit, v.unit)
		fmt.Fprintf(w, "_SYSTEMD_INVOCATION_ID=%s\n_SOURCE_REALTIME_TIMESTAMP=%d\n_MACHINE_ID=%s\n_HOSTNAME=server\n_RUNTIME_SCOPE=system\n_AUDIT_SESSION=%d\n_AUDIT_LOGINUID=0\n\n",
			strings.Repeat("d", 32), at-20, machine, i/100)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := in.Close(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("systemd-journal-remote: %w: %s", err, complaint.String())
	}
	return nil
}
