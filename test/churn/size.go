package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A size is of a process and its files.
type size struct {
	memory     float64 // MiB, resident
	files      float64 // open
	goroutines float64 // of an agent; NaN where it did not answer
	state      float64 // MiB on the disk, without the history
	history    float64 // MiB; events and past claims are kept for 90 days, and grow with each
	kept       float64 // files of the state
}

// sizes are those of the broker and all nodes at a time.
type sizes struct {
	at   time.Time
	bans int // of the author
	of   []size
}

// measureEvery is how often sizes are taken.
const measureEvery = 2 * time.Second

// measure takes the sizes where it is time.
func (w *world) measure(ctx context.Context) {
	if n := len(w.measured); n > 0 && time.Since(w.measured[n-1].at) < measureEvery {
		return
	}
	w.seen.mu.Lock()
	s := sizes{at: time.Now(), bans: w.seen.held}
	w.seen.mu.Unlock()
	s.of = make([]size, len(w.all()))
	var group sync.WaitGroup
	for i, p := range w.all() {
		group.Go(func() { s.of[i].goroutines = p.goroutines(ctx) })
		p.size(&s.of[i])
	}
	group.Wait()
	w.measured = append(w.measured, s)
}

func (w *world) all() []*process { return append([]*process{w.broker}, w.nodes...) }

// size fills in all but the goroutines. Only the thread of the namespaces sees the disk.
func (p *process) size(s *size) {
	const mib = 1 << 20
	proc := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	if b, err := os.ReadFile(proc + "/statm"); err == nil {
		if fields := strings.Fields(string(b)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			s.memory = float64(pages*int64(os.Getpagesize())) / mib
		}
	}
	if open, err := os.ReadDir(proc + "/fd"); err == nil {
		s.files = float64(len(open))
	}
	_ = filepath.WalkDir(p.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // a file that went away meanwhile has no size
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		s.kept++
		if dir := filepath.Base(filepath.Dir(path)); dir == eventsDir || dir == historyDir {
			s.history += float64(info.Size()) / mib
		} else {
			s.state += float64(info.Size()) / mib
		}
		return nil
	})
}

// goroutines asks an agent's metrics.
func (p *process) goroutines(ctx context.Context) float64 {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var dialer net.Dialer
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", filepath.Join(p.dir, "agent.sock"))
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/metrics", nil)
	if err != nil || p.name == "broker" {
		return math.NaN()
	}
	resp, err := client.Do(r)
	if err != nil {
		return math.NaN()
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			if n, err := strconv.ParseFloat(text, 64); err == nil {
				return n
			}
		}
	}
	return math.NaN()
}

// median gives the median of a size over some measurements; 0 where there is none.
func median(list []sizes, process int, of func(size) float64) float64 {
	var values []float64
	for _, s := range list {
		if x := of(s.of[process]); !math.IsNaN(x) {
			values = append(values, x)
		}
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// grown prints how the sizes grew from the first fifth to the last fifth of the half in
// which nobody was killed, as medians, and the worst of each as a figure. The bans of the
// author at both times say whether any of it is bans.
func (w *world) grown() {
	fifth := len(w.measured) / 5
	if fifth == 0 {
		fmt.Println("too short to see anything grow")
		return
	}
	first, last := w.measured[:fifth], w.measured[len(w.measured)-fifth:]
	fmt.Printf("sizes while nobody was killed, medians of %s at its beginning and at its end, %s later; the author held %d bans and then %d:\n",
		first[fifth-1].at.Sub(first[0].at).Round(time.Second), last[0].at.Sub(first[0].at).Round(time.Second), first[fifth/2].bans, last[fifth/2].bans)
	kinds := []struct {
		name, unit, aim string
		of              func(size) float64
	}{
		{"memory", "MiB", "<8", func(s size) float64 { return s.memory }},
		{"open_files", "files", "<8", func(s size) float64 { return s.files }},
		{"goroutines", "goroutines", "<8", func(s size) float64 { return s.goroutines }},
		{"state", "MiB", "<8", func(s size) float64 { return s.state }},
		{"state_files", "files", "<8", func(s size) float64 { return s.kept }},
		{"history", "MiB", "-", func(s size) float64 { return s.history }},
	}
	worst := make([]float64, len(kinds))
	for i, p := range w.all() {
		fmt.Printf("  %-6s", p.name)
		for k, kind := range kinds {
			before, after := median(first, i, kind.of), median(last, i, kind.of)
			worst[k] = max(worst[k], after-before)
			fmt.Printf("  %s %.0f -> %.0f", strings.ReplaceAll(kind.name, "_", " "), before, after)
		}
		fmt.Println()
	}
	for k, kind := range kinds {
		fmt.Printf("figure churn_grew_%s %.1f %s aim %s\n", kind.name, worst[k], kind.unit, kind.aim)
	}
}
