package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func figure(name string, value any, unit, aim string) {
	if f, ok := value.(float64); ok {
		value = strconv.FormatFloat(f, 'g', 4, 64)
	}
	fmt.Printf("figure %s %v %s aim %s\n", name, value, unit, aim)
}

// fresh puts the thread into a new network namespace and gives it.
func fresh() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, fmt.Errorf("making a network namespace (root is needed): %w", err)
	}
	return unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// script writes a file line by line.
func script(path string, write func(w *bufio.Writer)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	write(w)
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

func bench(count, rounds int, only string) error {
	dir, err := os.MkdirTemp("", "banmesh-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Printf("machine: %d CPUs, %s, load %s, date %s\n", runtime.NumCPU(), kernelRelease(), loadAverage(), time.Now().UTC().Format(time.DateOnly))
	if who := listeners(); who != "" {
		fmt.Println("warning: the loads say little: processes hear of every change in nf_tables, which doubles the kernel's work:", who)
	}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"loads", func() error { return loads(dir, count) }},
		{"single", func() error { return single(count) }},
		{"restart", func() error { return restart(count) }},
		{"prefixes", func() error { return prefixes(dir, count) }},
		{"packets", func() error { return packets(count, rounds) }},
	} {
		if only != "" && only != step.name {
			continue
		}
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// loads compares loading everything: three rounds in turn, the best of each.
func loads(dir string, count int) error {
	base := time.Now().Truncate(24 * time.Hour)
	nft, ipset := filepath.Join(dir, "nft"), filepath.Join(dir, "ipset")
	left := func(i int) int { return int(time.Until(end(base, i)).Seconds()) }
	err := script(nft, func(w *bufio.Writer) {
		fmt.Fprintln(w, "table inet other { set s { type ipv4_addr; flags timeout; }; chain c { type filter hook prerouting priority raw; ip saddr @s drop; }; }")
		fmt.Fprint(w, "add element inet other s { ")
		for i := range count {
			fmt.Fprintf(w, "%s timeout %ds,\n", address(i), left(i))
		}
		fmt.Fprintln(w, "}")
	})
	if err != nil {
		return err
	}
	err = script(ipset, func(w *bufio.Writer) {
		fmt.Fprintf(w, "create s hash:ip timeout 86400 maxelem %d\n", count+1)
		for i := range count {
			// ipset's longest timeout is 2147483 seconds.
			fmt.Fprintf(w, "add s %s timeout %d\n", address(i), min(left(i), 2_147_483))
		}
	})
	if err != nil {
		return err
	}
	var ours, leanest report
	ours.CPU, leanest.CPU = 1e12, 1e12
	nftCPU, ipsetCPU, nftRSS, ipsetRSS := 1e12, 1e12, math.MaxInt, math.MaxInt
	for range 3 {
		for _, f := range []func() error{
			func() error {
				r, err := child("-role", "load", "-bans", strconv.Itoa(count))
				if err == nil && r.CPU < ours.CPU {
					ours = r
				}
				return err
			},
			func() error {
				r, err := child("-role", "lean", "-bans", strconv.Itoa(count))
				if err == nil && r.CPU < leanest.CPU {
					leanest = r
				}
				return err
			},
			func() error {
				cpu, rss, _, err := timed("", "nft", "-f", nft)
				nftCPU, nftRSS = min(nftCPU, cpu), min(nftRSS, rss)
				return err
			},
			func() error {
				cpu, rss, _, err := timed(ipset, "ipset", "restore")
				ipsetCPU, ipsetRSS = min(ipsetCPU, cpu), min(ipsetRSS, rss)
				return err
			},
		} {
			ns, err := fresh()
			if err != nil {
				return err
			}
			err = f()
			_ = unix.Close(ns)
			if err != nil {
				return err
			}
		}
	}
	figure("load_cpu", ours.CPU, "ms", "-")
	figure("load_cpu_in_the_kernel", ours.Kernel, "ms", "-")
	figure("load_cpu_leanest_sender", leanest.CPU, "ms", "-")
	figure("load_cpu_leanest_sender_in_the_kernel", leanest.Kernel, "ms", "-")
	figure("load_cpu_leanest_sender_of_nft_f", leanest.CPU/nftCPU, "ratio", "-")
	figure("load_wall", ours.Wall, "ms", "-")
	figure("load_cpu_nft_f", nftCPU, "ms", "-")
	figure("load_cpu_ipset_restore", ipsetCPU, "ms", "-")
	figure("load_cpu_of_nft_f", ours.CPU/nftCPU, "ratio", "<=0.2")
	figure("load_cpu_in_the_kernel_of_nft_f", ours.Kernel/nftCPU, "ratio", "-")
	figure("load_rss", float64(ours.RSS)/1024, "MiB", "-")
	figure("load_rss_state", float64(ours.State)/1024, "MiB", "-")
	figure("load_rss_over_state_and_idle", float64(ours.RSS-ours.State-ours.Idle)/1024, "MiB", "<=16")
	figure("load_rss_nft_f", float64(nftRSS)/1024, "MiB", "-")
	figure("load_rss_of_nft_f", float64(ours.RSS)/float64(nftRSS), "ratio", "<=0.05")
	figure("load_rss_beyond_state_of_nft_f", float64(ours.RSS-ours.State-ours.Idle)/float64(nftRSS), "ratio", "<=0.05")
	figure("load_rss_ipset_restore", float64(ipsetRSS)/1024, "MiB", "-")
	return nil
}

// single compares one more ban with everything present.
func single(count int) error {
	ns, err := fresh()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ns) }()
	r, err := child("-role", "load", "-bans", strconv.Itoa(count), "-singles", "20000")
	if err != nil {
		return err
	}
	if r.Drift != "" {
		return fmt.Errorf("bans were lost: %s", r.Drift)
	}
	var nft, shell []float64
	for i := range 60 {
		for _, v := range []struct {
			into *[]float64
			name string
			args []string
		}{
			{&nft, "nft", []string{"add", "element", "inet", "other", "s", "{ " + address(2*count+2*i).String() + " timeout 1h }"}},
			{&shell, "sh", []string{"-c", "nft add element inet other s { " + address(2*count+2*i+1).String() + " timeout 1h }"}},
		} {
			if i == 0 && v.into == &nft {
				if _, _, _, err := timed("", "nft", "add table inet other; add set inet other s { type ipv4_addr; flags timeout; }"); err != nil {
					return err
				}
			}
			_, _, wall, err := timed("", v.name, v.args...)
			if err != nil {
				return err
			}
			*v.into = append(*v.into, wall*1000)
		}
	}
	figure("one_ban_p50", r.P50, "us", "<=10")
	figure("one_ban_p99", r.P99, "us", "<=50")
	figure("one_ban_nft_process_p50", median(nft), "us", "-")
	figure("one_ban_sh_nft_process_p50", median(shell), "us", "-")
	figure("one_ban_times_faster_than_nft", median(nft)/r.P50, "x", ">=300")
	figure("one_ban_times_faster_than_sh_nft", median(shell)/r.P50, "x", ">=600")
	figure("lost_bans", 0, "bans", "0")
	return nil
}

// restart measures a second process that wants the same bans.
func restart(count int) error {
	ns, err := fresh()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ns) }()
	if _, err := child("-role", "load", "-bans", strconv.Itoa(count)); err != nil {
		return err
	}
	r, err := child("-role", "load", "-bans", strconv.Itoa(count))
	if err != nil {
		return err
	}
	figure("restart_unchanged_transactions", r.Transactions, "writes", "0")
	figure("restart_unchanged_cpu", r.CPU, "ms", "-")
	return nil
}

// prefixes compares loading a hundred thousand prefixes.
func prefixes(dir string, count int) error {
	count = min(count, 100_000)
	base := time.Now().Truncate(24 * time.Hour)
	nft := filepath.Join(dir, "prefixes")
	err := script(nft, func(w *bufio.Writer) {
		fmt.Fprintln(w, "table inet other { set s { type ipv4_addr; flags timeout,interval; }; }")
		fmt.Fprint(w, "add element inet other s { ")
		for i := range count {
			fmt.Fprintf(w, "%s timeout %ds,\n", prefix(i), int(time.Until(end(base, i)).Seconds()))
		}
		fmt.Fprintln(w, "}")
	})
	if err != nil {
		return err
	}
	ns, err := fresh()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ns) }()
	r, err := child("-role", "load", "-wide", "-bans", strconv.Itoa(count))
	if err != nil {
		return err
	}
	cpu, _, _, err := timed("", "nft", "-f", nft)
	if err != nil {
		return err
	}
	figure("prefixes_100k_cpu", r.CPU, "ms", "-")
	figure("prefixes_100k_wall", r.Wall, "ms", "-")
	figure("prefixes_100k_cpu_of_nft_f", r.CPU/cpu, "ratio", "<=0.33")
	return nil
}
