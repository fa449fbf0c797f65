package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
)

// seen are the bans that ever were seen: as they end, no look at the end finds them.
type seen struct {
	mu      sync.Mutex
	looking sync.WaitGroup
	busy    bool
	next    time.Time
	author  bans   // in its ledger
	kernel  bans   // and its table
	peers   []bans // in the ledgers of the subscribers
	held    int    // bans of the author at the last look
}

// bans are targets with the ends of their bans, which a kernel does not tell.
type bans map[string]time.Time

// missing gives how many of a's targets b lacks.
func missing(a, b bans) (n int) {
	for x := range a {
		if _, ok := b[x]; !ok {
			n++
		}
	}
	return n
}

func (s *seen) begin() {
	s.author, s.kernel = bans{}, bans{}
	for range subscribers {
		s.peers = append(s.peers, bans{})
	}
}

// look notes the bans of all nodes, four times while a ban lasts. It waits for no node:
// one that is down is asked again a second later.
func (w *world) look(ctx context.Context) error {
	s := &w.seen
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy || time.Now().Before(s.next) {
		return nil
	}
	collect, err := w.beginLook(ctx)
	if err != nil {
		return err
	}
	s.busy = true
	s.looking.Go(func() {
		err := collect()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.busy = false; err == nil {
			s.next = time.Now().Add(w.banTime / 4)
		}
	})
	return nil
}

// beginLook starts the commands of a look; collect waits for them and adds their bans to
// those that were seen.
func (w *world) beginLook(ctx context.Context) (collect func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	table := exec.CommandContext(ctx, "nft", "list", "table", "inet", tableOf(0))
	var out strings.Builder
	table.Stdout = &out
	if err := table.Start(); err != nil {
		cancel()
		return nil, err
	}
	var waits []func() ([]byte, error)
	for _, p := range w.nodes {
		wait, err := p.begin(ctx, "", "bans", "--json")
		if err != nil {
			cancel()
			return nil, err
		}
		waits = append(waits, wait)
	}
	return func() error {
		defer cancel()
		var faults []error
		for i, wait := range waits {
			list, err := bansIn(wait())
			if err != nil {
				faults = append(faults, err)
				continue
			}
			w.seen.add(i, list)
		}
		if err := table.Wait(); err != nil {
			return errors.Join(append(faults, fmt.Errorf("nft: %w", err))...)
		}
		w.seen.mu.Lock()
		defer w.seen.mu.Unlock()
		maps.Copy(w.seen.kernel, elementsIn(out.String()))
		return errors.Join(faults...)
	}, nil
}

// add notes the bans of a node.
func (s *seen) add(node int, list bans) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if node == 0 {
		s.held = len(list)
		maps.Copy(s.author, list)
		return
	}
	maps.Copy(s.peers[node-1], list)
}

// bansIn gives the targets of a command's list of bans.
func bansIn(text []byte, err error) (bans, error) {
	if err != nil {
		return nil, err
	}
	var list []struct {
		Target string    `json:"target"`
		Until  time.Time `json:"until"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	set := bans{}
	for _, b := range list {
		set[b.Target] = b.Until
	}
	return set, nil
}

// bans gives the targets that a node's ledger bans.
func (p *process) bans(ctx context.Context) (bans, error) {
	return bansIn(p.do(ctx, "", "bans", "--json"))
}

// tableOf names the nftables table of a node.
func tableOf(node int) string { return fmt.Sprintf("churn%d", node) }

var element = regexp.MustCompile(`(2001:db8:[0-9a-f:]+)(?:/\d+)? timeout \S+ expires \S+ : 0x`)

// elementsIn gives the targets that a table drops.
func elementsIn(text string) bans {
	set := bans{}
	for _, m := range element.FindAllStringSubmatch(text, -1) {
		set[m[1]+"/64"] = time.Time{}
	}
	return set
}

// kernel gives the targets that a node's table drops.
func (w *world) kernel(ctx context.Context, node int) (bans, error) {
	out, err := exec.CommandContext(ctx, "nft", "list", "table", "inet", tableOf(node)).Output()
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	return elementsIn(string(out)), nil
}

// claimed gives how many claims of the author live: they end at whole minutes, rounded up,
// as messages carry them.
func (s *seen) claimed(now time.Time) (n int) {
	for _, until := range s.author {
		if until.Add(time.Minute - time.Second).Truncate(time.Minute).After(now) {
			n++
		}
	}
	return n
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
