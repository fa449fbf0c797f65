package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// fromProgram is how many bans one command of the program has, one command a second.
const fromProgram = 5

// patience is how long a command may take: an agent that is paused, or waits for the
// disk, does so for seconds.
const patience = time.Minute

// A program hands bans to the author, by commands whose word is kept.
type program struct {
	running sync.WaitGroup

	mu    sync.Mutex
	words []word // of each command
	odd   []string
}

// A word is a command's answer about its bans.
type word int

const (
	running word = iota
	done         // they are made
	unsent       // the agent did not run, so that none is
	unknown      // the agent ended before it answered: all are, or none
	other        // refused, or not answered in time: none is
)

var words = [...]string{"still run", "said that it was done", "met no agent", "lost the agent before its answer", "failed otherwise"}

// wordOf tells a command's word by its exit and the text of its fault.
func wordOf(err error) word {
	switch {
	case err == nil:
		return done
	case strings.Contains(err.Error(), "nobody answers on"):
		return unsent
	case strings.Contains(err.Error(), "whether it was done is unknown"):
		return unknown
	}
	return other
}

// hand starts the command of this second.
func (w *world) hand(ctx context.Context) error {
	p := &w.handed
	p.mu.Lock()
	n := len(p.words)
	p.words = append(p.words, running)
	p.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, patience)
	wait, err := w.nodes[0].begin(within, strings.Join(targetsOf(n), "\n"), "ban", "--from-file", "-", "--by", "scanner", "--hits", "5", "--class", "scan", "--for", fmt.Sprintf("%ds", int(w.banTime.Seconds())))
	if err != nil {
		cancel()
		return err
	}
	p.running.Go(func() {
		defer cancel()
		_, err := wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.words[n] = wordOf(err); p.words[n] == other {
			p.odd = append(p.odd, err.Error())
		}
	})
	return nil
}

// targetsOf gives the bans of the n-th command.
func targetsOf(n int) (list []string) {
	for i := range fromProgram {
		list = append(list, addressOf(true, n*fromProgram+i).String()+"/64")
	}
	return list
}

// lies gives the commands whose word is not true of the bans that were seen.
func (p *program) lies(seen bans) (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, said := range p.words {
		bans := 0
		for _, x := range targetsOf(n) {
			if _, ok := seen[x]; ok {
				bans++
			}
		}
		all, none := bans == fromProgram, bans == 0
		if said == done && all || said == unknown && (all || none) || said != done && none {
			continue
		}
		list = append(list, fmt.Sprintf("the command of second %d %s, and %d of its %d bans were made", n, words[said], bans, fromProgram))
	}
	return list
}

// count gives how many commands said each word.
func (p *program) count() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n [len(words)]int
	for _, said := range p.words {
		n[said]++
	}
	text := fmt.Sprintf("%d commands", len(p.words))
	for said, n := range n {
		if n > 0 {
			text += fmt.Sprintf(", %d %s", n, words[said])
		}
	}
	return text
}
