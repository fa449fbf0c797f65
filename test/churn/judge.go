package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settleWithin is how long the nodes may take to agree after the last accident.
const settleWithin = 2 * time.Minute

// operator gives a node's operator.
func (p *process) operator(ctx context.Context) (string, error) {
	out, err := p.do(ctx, "", "status", "--json")
	if err != nil {
		return "", err
	}
	var s struct {
		Operator string `json:"operator"`
	}
	return s.Operator, json.Unmarshal(out, &s)
}

// bans gives the targets that a node's ledger bans.
func (p *process) bans(ctx context.Context) (map[string]bool, error) {
	out, err := p.do(ctx, "", "bans", "--json")
	if err != nil {
		return nil, err
	}
	var list []struct {
		Target string `json:"target"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	set := map[string]bool{}
	for _, b := range list {
		set[b.Target] = true
	}
	return set, nil
}

var element = regexp.MustCompile(`(2001:db8:[0-9a-f:]+)(?:/\d+)? timeout \S+ expires \S+ : 0x`)

// kernel gives the targets that a node's table drops.
func (w *world) kernel(ctx context.Context, i int) (map[string]bool, error) {
	out, err := exec.CommandContext(ctx, "nft", "list", "table", "inet", fmt.Sprintf("churn%d", i)).Output()
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	set := map[string]bool{}
	for _, m := range element.FindAllSubmatch(out, -1) {
		set[string(m[1])+"/64"] = true
	}
	return set, nil
}

// claims gives how many live claims of the author a subscriber holds.
func (p *process) claims(ctx context.Context) (n int, err error) {
	out, err := p.do(ctx, "", "peers", "show", "author", "--json")
	if err != nil {
		return 0, err
	}
	var list []struct {
		Claims int `json:"claims"`
	}
	err = json.Unmarshal(out, &list)
	for _, x := range list {
		n += x.Claims
	}
	return n, err
}

// A finding is the comparison of all there is.
type finding struct {
	lost    int      // addresses of the log that the author does not ban
	which   []int    // the first few of them
	missing int      // bans that the program was told of, and are none
	differ  []string // places that do not agree
}

// compare looks at all nodes once.
func (w *world) compare(ctx context.Context) (f finding, err error) {
	author, err := w.nodes[0].bans(ctx)
	if err != nil {
		return f, err
	}
	for n := range w.written {
		if !author[addressOf(false, n).String()+"/64"] {
			if f.lost++; len(f.which) < 10 {
				f.which = append(f.which, n)
			}
		}
	}
	handed := map[string]bool{}
	for n := range w.handed {
		x := addressOf(true, n).String() + "/64"
		if author[x] {
			handed[x] = true
		} else {
			f.missing++
		}
	}
	for i, p := range w.nodes {
		ledger, err := p.bans(ctx)
		if err != nil {
			return f, err
		}
		kernel, err := w.kernel(ctx, i)
		if err != nil {
			return f, err
		}
		if n := difference(ledger, kernel); n > 0 {
			f.differ = append(f.differ, fmt.Sprintf("%s: %d between its ledger (%d) and its kernel (%d)", p.name, n, len(ledger), len(kernel)))
		}
		if i == 0 {
			continue
		}
		// Another program's bans with hits ban at peers, those of a log that no kernel
		// confirmed do not: their claims are counted.
		if n := difference(ledger, handed); n > 0 {
			f.differ = append(f.differ, fmt.Sprintf("%s: %d between its ledger (%d) and the author's (%d)", p.name, n, len(ledger), len(handed)))
		}
		claims, err := p.claims(ctx)
		if err != nil {
			return f, err
		}
		if claims != len(author) {
			f.differ = append(f.differ, fmt.Sprintf("%s: holds %d claims of the author's %d", p.name, claims, len(author)))
		}
	}
	return f, nil
}

func difference(a, b map[string]bool) (n int) {
	for x := range a {
		if !b[x] {
			n++
		}
	}
	for x := range b {
		if !a[x] {
			n++
		}
	}
	return n
}

// judge waits until everything agrees, and prints the differences and the growth.
func (w *world) judge(ctx context.Context, lasts time.Duration) error {
	if err := w.disk.thaw(); err != nil {
		return err
	}
	for _, p := range append([]*process{w.broker}, w.nodes...) {
		_ = p.signal(syscall.SIGCONT)
		if err := p.answers(ctx); err != nil {
			return err
		}
	}
	var f finding
	var err error
	end := time.Now()
	for {
		f, err = w.compare(ctx)
		agree := err == nil && f.lost == 0 && f.missing <= w.unsure && len(f.differ) == 0
		if agree || time.Since(end) > settleWithin {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(w.done)) {
		fmt.Printf("%-28s %d\n", name, w.done[name])
	}
	fmt.Printf("agreed after %s\n", time.Since(end).Round(100*time.Millisecond))
	fmt.Printf("lost: %d of %d offenders in the log; %d of %d bans of the program (%d of its commands' bans met an agent that was down)\n", f.lost, w.written, f.missing, w.handed, w.unsure)
	for _, n := range f.which {
		second := n / fromLog
		fmt.Printf("  %s, of second %d: %s\n", addressOf(false, n), second, strings.Join(w.diary[max(0, second-4):min(len(w.diary), second+5)], ", "))
	}
	fmt.Printf("differ: %d\n", len(f.differ))
	for _, d := range f.differ {
		fmt.Println("  " + d)
	}
	w.grown(lasts)
	if f.lost > 0 || f.missing > w.unsure || len(f.differ) > 0 {
		return errors.New("something was lost or differs")
	}
	return nil
}

// A size is of a process and its files.
type size struct {
	name   string
	memory int64 // bytes, resident
	files  int   // open
	disk   int64 // bytes of its state
}

func (w *world) sizes() (list []size) {
	for _, p := range append([]*process{w.broker}, w.nodes...) {
		s := size{name: p.name}
		proc := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
		if b, err := os.ReadFile(proc + "/statm"); err == nil {
			if fields := strings.Fields(string(b)); len(fields) > 1 {
				pages, _ := strconv.ParseInt(fields[1], 10, 64)
				s.memory = pages * int64(os.Getpagesize())
			}
		}
		if open, err := os.ReadDir(proc + "/fd"); err == nil {
			s.files = len(open)
		}
		_ = filepath.WalkDir(p.state, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil //nolint:nilerr // a file that went away meanwhile has no size
			}
			if info, err := d.Info(); err == nil {
				s.disk += info.Size()
			}
			return nil
		})
		list = append(list, s)
	}
	return list
}

// grown prints sizes after the first third and now, beside the bans, which grow.
func (w *world) grown(lasts time.Duration) {
	now := w.sizes()
	fmt.Printf("sizes after %s and now (bans grow from a third to all of them):\n", (lasts / 3).Round(time.Second))
	for i, s := range now {
		if i < len(w.early) {
			e := w.early[i]
			fmt.Printf("  %-7s memory %4d -> %4d MiB, open files %3d -> %3d, state %4d -> %4d MiB\n", s.name, e.memory>>20, s.memory>>20, e.files, s.files, e.disk>>20, s.disk>>20)
		}
	}
}
