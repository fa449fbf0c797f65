package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for an event that must come.
const patience = 10 * time.Second

// A collector is a handler that keeps its lines.
type collector struct {
	mu    sync.Mutex
	lines []Line
	texts []string
	came  chan struct{}
}

func newCollector() *collector { return &collector{came: make(chan struct{}, 1)} }

func (c *collector) handle(l Line) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts = append(c.texts, string(l.Text))
	l.Matched = append([]int(nil), l.Matched...)
	l.Text = nil
	c.lines = append(c.lines, l)
	select {
	case c.came <- struct{}{}:
	default:
	}
	return nil
}

func (c *collector) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.texts...)
}

// wait waits until n lines have come.
func (c *collector) wait(t *testing.T, n int) []string {
	t.Helper()
	deadline := time.After(patience)
	for {
		if got := c.all(); len(got) >= n {
			return got
		}
		select {
		case <-c.came:
		case <-deadline:
			t.Fatalf("%d lines came, want %d; missing %s", len(c.all()), n, missing(c.all(), n))
		}
	}
}

// A running source can be stopped, which gives its position.
type running struct {
	Source
	stop func() Position
}

// run starts a source and stops it at the test's end.
func run(t *testing.T, spec Spec, resume Position, o Options, handle func(Line) error) *running {
	t.Helper()
	s, err := Open(spec, resume, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, handle) }()
	var once sync.Once
	stop := func() Position {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("the source ended with %v", err)
				}
			case <-time.After(patience):
				t.Errorf("the source does not stop")
			}
		})
		return s.Position()
	}
	t.Cleanup(func() { stop() })
	return &running{Source: s, stop: stop}
}

// ready waits until the source has opened n streams.
func (r *running) ready(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(r.Status().Streams) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d streams are open, want %d", len(r.Status().Streams), n)
		}
		<-time.After(time.Millisecond)
	}
}

// missing lists the ranges of lines 0..n that did not come.
func missing(texts []string, n int) string {
	have := map[string]bool{}
	for _, text := range texts {
		have[text+"\n"] = true
	}
	var b strings.Builder
	for i := 0; i < n; i++ {
		from := i
		for i < n && !have[numbered(i, i+1)] {
			i++
		}
		if i > from {
			fmt.Fprintf(&b, "%d-%d ", from, i-1)
		}
	}
	return b.String()
}

func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "line %06d of the log\n", i)
	}
	return b.String()
}

// exactly fails unless the texts are lines from..to, each once, in order.
func exactly(t *testing.T, texts []string, from, to int) {
	t.Helper()
	lost, twice, garbled := audit(texts, from, to)
	if lost != 0 || twice != 0 || garbled != 0 {
		t.Fatalf("%d lost, %d twice, %d garbled of %d", lost, twice, garbled, to-from)
	}
}

func audit(texts []string, from, to int) (lost, twice, garbled int) {
	count := make([]int, to)
	for _, text := range texts {
		var i int
		if n, err := fmt.Sscanf(text, "line %06d of the log", &i); n != 1 || err != nil || i < from || i >= to || text+"\n" != numbered(i, i+1) {
			garbled++
			continue
		}
		count[i]++
	}
	for _, n := range count[from:] {
		switch {
		case n == 0:
			lost++
		case n > 1:
			twice++
		}
	}
	return lost, twice, garbled
}
