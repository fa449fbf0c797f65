package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"banmesh/internal/agent"
	"banmesh/internal/history"
)

// Directories in a node's state: of its history, and of past claims.
const (
	eventsDir  = agent.EventsDirectory
	historyDir = agent.HistoryDirectory
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

// A finding is the comparison of all there is.
type finding struct {
	lost   int      // addresses of the log that the author never banned
	which  []int    // the first few of them
	lies   []string // commands whose word is not true
	differ []string // places that do not agree
	untold int      // bans whose beginning the author's history lacks
	alarms []string // that blame another program, of which there is none
	held   int      // bans of the author that were compared
}

func (f *finding) settled() bool {
	return f.lost == 0 && len(f.lies) == 0 && len(f.differ) == 0 && f.untold == 0
}

func (f *finding) fine() bool { return f.settled() && len(f.alarms) == 0 }

// compare looks at all nodes once.
func (w *world) compare(ctx context.Context) (f finding, err error) {
	collect, err := w.beginLook(ctx)
	if err != nil {
		return f, err
	}
	if err := collect(); err != nil {
		return f, err
	}
	f.lies = w.handed.lies(w.seen.author)
	if f.differ, f.held, err = w.differences(ctx); err != nil {
		return f, err
	}
	told, err := w.told()
	if err != nil {
		return f, err
	}
	if f.alarms, err = w.alarms(); err != nil {
		return f, err
	}
	for n := range w.written {
		if x := addressOf(false, n).String() + "/64"; w.seen.author[x].IsZero() {
			if f.lost++; len(f.which) < 10 {
				f.which = append(f.which, n)
			}
		}
	}
	f.untold = missing(w.seen.author, told)
	if n := missing(w.seen.author, w.seen.kernel); n > 0 {
		f.differ = append(f.differ, fmt.Sprintf("%d bans of the author were never seen in its kernel", n))
	}
	if n := missing(w.seen.kernel, w.seen.author); n > 0 {
		f.differ = append(f.differ, fmt.Sprintf("%d elements of the author's kernel were never seen in its ledger", n))
	}
	// Another program's bans with hits ban at peers, those of a log that no kernel
	// confirmed do not.
	handed := bans{}
	for n := range w.handed.words {
		for _, x := range targetsOf(n) {
			if until, ok := w.seen.author[x]; ok {
				handed[x] = until
			}
		}
	}
	for i, peer := range w.seen.peers {
		if n := missing(handed, peer) + missing(peer, handed); n > 0 {
			f.differ = append(f.differ, fmt.Sprintf("%s: %d bans that it or the author alone was ever seen to hold", w.nodes[1+i].name, n))
		}
	}
	return f, nil
}

// differences compares ledgers, kernels and claims of this moment. As nothing begins any
// more and bans end meanwhile, a kernel is compared with the ledger before it and after it.
func (w *world) differences(ctx context.Context) (list []string, held int, err error) {
	for i, p := range w.nodes {
		before, err := p.bans(ctx)
		if err != nil {
			return nil, 0, err
		}
		kernel, err := w.kernel(ctx, i)
		if err != nil {
			return nil, 0, err
		}
		after, err := p.bans(ctx)
		if err != nil {
			return nil, 0, err
		}
		if n := missing(after, kernel) + missing(kernel, before); n > 0 {
			list = append(list, fmt.Sprintf("%s: %d between its ledger (%d) and its kernel (%d)", p.name, n, len(after), len(kernel)))
		}
		if i == 0 {
			held = len(after)
			continue
		}
		if err := farFromTheMinute(ctx); err != nil {
			return nil, 0, err
		}
		claims, err := p.claims(ctx)
		if err != nil {
			return nil, 0, err
		}
		if want := w.seen.claimed(time.Now()); claims != want {
			list = append(list, fmt.Sprintf("%s: holds %d claims of the author's %d", p.name, claims, want))
		}
	}
	return list, held, nil
}

// farFromTheMinute waits while claims end, which are then counted for some seconds more.
func farFromTheMinute(ctx context.Context) error {
	for {
		if second := time.Now().Second(); second >= 20 && second < 55 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// alarms gives the lines of the nodes' logs that say that another program changed a table.
func (w *world) alarms() (list []string, err error) {
	for _, p := range w.nodes {
		text, err := os.ReadFile(p.log.Name())
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "changed by another program") {
				list = append(list, p.name+": "+strings.TrimSpace(line))
			}
		}
	}
	return list, nil
}

// told gives the targets of whose ban the author's history has the beginning.
func (w *world) told() (bans, error) {
	store, err := history.Read(filepath.Join(w.nodes[0].state, eventsDir))
	if err != nil {
		return nil, err
	}
	set := bans{}
	for q := (history.Query{Kinds: []history.Kind{history.Ban}, Follow: true, Limit: history.MaxLimit}); ; {
		page, err := store.Find(q)
		if err != nil {
			return nil, err
		}
		for i := range page.Events {
			set[page.Events[i].Target.String()] = page.Events[i].Until
		}
		if !page.More {
			return set, nil
		}
		q.After = page.Next
	}
}

// judge waits until everything agrees, and prints the differences and the growth.
func (w *world) judge(ctx context.Context) error {
	if err := w.disk.thaw(); err != nil {
		return err
	}
	for _, p := range w.all() {
		_ = p.signal(syscall.SIGCONT)
		if err := p.answers(ctx); err != nil {
			return err
		}
	}
	w.handed.running.Wait()
	w.seen.looking.Wait()
	var f finding
	var err error
	end := time.Now()
	for {
		f, err = w.compare(ctx)
		if err == nil && f.settled() || time.Since(end) > settleWithin {
			break
		}
		fmt.Printf("not yet after %s: %d lost, %d lies, %d false alarms, %d not in the history, %s %v\n", time.Since(end).Round(100*time.Millisecond), f.lost, len(f.lies), len(f.alarms), f.untold, strings.Join(f.differ, "; "), err)
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
	fmt.Printf("agreed after %s, when the author held %d bans\n", time.Since(end).Round(100*time.Millisecond), f.held)
	fmt.Printf("the log had %d offenders; the program's %s\n", w.written, w.handed.count())
	w.print(&f)
	w.grown()
	if !f.fine() {
		return errors.New("something was lost, differs, or is not as it was said")
	}
	return nil
}

// print writes the differences and the figures.
func (w *world) print(f *finding) {
	for _, n := range f.which {
		second := n / fromLog
		fmt.Printf("  lost: %s, of second %d: %s\n", addressOf(false, n), second, strings.Join(w.diary[max(0, second-4):min(len(w.diary), second+5)], ", "))
	}
	for _, text := range slices.Concat(f.differ, f.lies[:min(len(f.lies), 10)], f.alarms[:min(len(f.alarms), 10)], w.handed.odd[:min(len(w.handed.odd), 10)]) {
		fmt.Println("  " + text)
	}
	fmt.Printf("figure churn_lost %d offenders aim 0\n", f.lost)
	fmt.Printf("figure churn_differ %d places aim 0\n", len(f.differ))
	fmt.Printf("figure churn_lied %d commands aim 0\n", len(f.lies))
	fmt.Printf("figure churn_false_alarms %d lines aim 0\n", len(f.alarms))
	fmt.Printf("figure churn_not_in_history %d bans aim 0\n", f.untold)
}
