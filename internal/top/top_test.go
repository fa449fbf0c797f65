package top

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

var update = flag.Bool("update", false, "write the golden frames")

// A desk is a screen without a terminal: it is given keys, and its commands are
// run at once.
type desk struct {
	t        *testing.T
	s        *screen
	fault    error
	unbanned []string
	asks     bool
	quit     bool
	count    int
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, count: 30}
	o := Options{
		Every: time.Second,
		Head: func(context.Context, int) ([]string, error) {
			return []string{"agent v1, up 3d, enforcement nftables   12:00:00", "30 bans, 5 watched, 0 waiting; 1 of 1 broker connected"}, d.fault
		},
		Lists: []List{
			{Name: "bans", Sorts: []string{"end", "target"}, Load: func(_ context.Context, sort, search string) (Rows, error) {
				var list []string
				for i := range d.count {
					if x := fmt.Sprintf("203.0.113.%d", i); strings.Contains(x, search) {
						list = append(list, x)
					}
				}
				return Rows{Count: len(list), Target: func(i int) string { return list[i] }, Print: func(from, to, _ int) (string, []string) {
					rows := make([]string, 0, to-from)
					for _, x := range list[from:to] {
						rows = append(rows, fmt.Sprintf("%-16s sshd   %s  alice\x1b[2J\x07 %s", x, sort, strings.Repeat("x", 90)))
					}
					return "TARGET           TOPIC  ENDS", rows
				}}, nil
			}},
			{Name: "peers", Load: func(context.Context, string, string) (Rows, error) {
				return Rows{Count: 1, Detail: func(int, int) string { return "alice is trusted" }, Print: func(_, _, _ int) (string, []string) { return "NAME", []string{"alice"} }}, nil
			}},
			{Name: "none", Load: func(context.Context, string, string) (Rows, error) {
				return Rows{Print: func(_, _, _ int) (string, []string) { return "nothing", nil }}, nil
			}},
		},
		Explain: func(_ context.Context, target string, width int) (string, error) {
			return target + " is banned\n" + strings.Repeat("why\n", 40), nil
		},
		Unban: func(_ context.Context, target string, sure bool) (string, error) {
			if d.asks && !sure {
				return "", &AskError{"this lifts 12 bans. Go on?"}
			}
			d.unbanned = append(d.unbanned, target)
			return "unbanned " + target + " in sshd", nil
		},
	}
	d.s = newScreen(t.Context(), o)
	d.run(d.s.Init())
	return d
}

// run runs a command and those that follow from it; it never waits for a tick.
func (d *desk) run(c tea.Cmd) {
	if c == nil {
		return
	}
	done := make(chan tea.Msg, 1)
	go func() { done <- c() }()
	var m tea.Msg
	select {
	case m = <-done:
	case <-time.After(500 * time.Millisecond):
		return // a tick
	}
	switch m.(type) {
	case tea.QuitMsg:
		d.quit = true
	case tick:
	default:
		d.send(m)
	}
}

func (d *desk) send(m tea.Msg) {
	_, c := d.s.Update(m)
	if _, ok := m.(loaded); ok {
		return // the tick behind it
	}
	d.run(c)
}

func (d *desk) press(keys ...string) {
	for _, k := range keys {
		m := tea.KeyPressMsg{Text: k}
		if code, ok := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "down": tea.KeyDown, "up": tea.KeyUp, "end": tea.KeyEnd, "home": tea.KeyHome, "pgdown": tea.KeyPgDown, "backspace": tea.KeyBackspace}[k]; ok {
			m = tea.KeyPressMsg{Code: code}
		} else if k == "ctrl+c" {
			m = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		} else {
			m.Code = []rune(k)[0]
		}
		d.send(m)
	}
}

// frame gives the screen as plain text, and checks its size.
func (d *desk) frame() string {
	d.t.Helper()
	text := d.s.draw()
	list := strings.Split(text, "\n")
	if len(list) != d.s.height {
		d.t.Errorf("%d lines on a screen of %d", len(list), d.s.height)
	}
	for _, l := range list {
		if w := ansi.StringWidth(l); w > d.s.width {
			d.t.Errorf("a line of %d columns on a screen of %d: %q", w, d.s.width, l)
		}
		if strings.ContainsAny(ansi.Strip(l), "\x07\x1b") || strings.Contains(l, "\x1b[2J") {
			d.t.Errorf("a row steers the terminal: %q", l)
		}
	}
	var out []string
	for _, l := range list {
		mark := "  "
		if strings.Contains(l, reverse) {
			mark = "> "
		}
		out = append(out, strings.TrimRight(mark+ansi.Strip(l), " "))
	}
	return strings.Join(out, "\n") + "\n"
}

func (d *desk) golden(name string) {
	d.t.Helper()
	path := filepath.Join("testdata", name+".txt")
	got := d.frame()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			d.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		d.t.Errorf("%s differs (%v): go test ./internal/top -update, if that is meant. Now:\n%s", path, err, got)
	}
}

func TestTheScreenShowsListsTextsAndQuestions(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.golden("bans")
	d.press("end")
	d.golden("bans-end")
	d.press("home", "down", "enter")
	d.golden("explain")
	d.press("esc", "u")
	d.golden("question")
	d.press("n", "tab")
	d.golden("peers")
	d.press("enter")
	d.golden("peer")
	d.press("esc", "3")
	d.golden("nothing")
	d.press("?")
	d.golden("keys")
}

func TestASmallScreenIsFilledAndATinyOneSaysSo(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.press("end")
	for _, size := range [][2]int{{80, 24}, {200, 60}, {leastWidth, leastHeight}, {120, leastHeight}} {
		d.send(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		if f := d.frame(); !strings.Contains(f, "> 203.0.113.29") {
			t.Errorf("%v: the selected row is not shown:\n%s", size, f)
		}
	}
	d.send(tea.WindowSizeMsg{Width: 40, Height: 12})
	d.golden("small")
	for _, size := range [][2]int{{leastWidth - 1, leastHeight}, {leastWidth, leastHeight - 1}, {1, 1}, {0, 0}} {
		d.send(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		if text := d.s.draw(); strings.Contains(text, "\n") || ansi.StringWidth(text) > max(size[0], 1) {
			t.Errorf("%v: %q", size, text)
		}
	}
}

func TestAnUnbanIsDoneForAYesAlone(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, no := range []string{"n", "enter", "esc", "q", "x"} {
		d.press("u", no)
		if len(d.unbanned) != 0 || d.quit || !strings.Contains(d.frame(), "nothing was changed") {
			t.Fatalf("after u and %s: %v\n%s", no, d.unbanned, d.frame())
		}
	}
	d.press("down", "u", "y")
	if fmt.Sprint(d.unbanned) != "[203.0.113.1]" || !strings.Contains(d.frame(), "unbanned 203.0.113.1 in sshd") {
		t.Errorf("%v\n%s", d.unbanned, d.frame())
	}
	d.asks, d.unbanned = true, nil
	d.press("u", "y")
	if len(d.unbanned) != 0 || !strings.Contains(d.frame(), "this lifts 12 bans. Go on? y or n") {
		t.Errorf("%v\n%s", d.unbanned, d.frame())
	}
	d.press("y")
	if len(d.unbanned) != 1 {
		t.Errorf("%v", d.unbanned)
	}
	d.press("2", "u")
	if d.s.asking != "" {
		t.Error("a peer is to be unbanned")
	}
}

func TestASearchSelectsRowsAndKeysInItAreText(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.press("/", ".", "2")
	if d.s.rows.Count != 11 || d.quit {
		t.Errorf("%d rows", d.s.rows.Count)
	}
	d.press("q", "u")
	if d.quit || d.s.asking != "" || d.s.find != ".2qu" {
		t.Errorf("the search is %q", d.s.find)
	}
	d.press("backspace", "backspace", "enter", "s")
	if d.s.rows.Count != 11 || d.s.sorting() != "target" || !strings.Contains(d.frame(), "1 of 11, by target, with .2") {
		t.Errorf("%d rows by %s\n%s", d.s.rows.Count, d.s.sorting(), d.frame())
	}
	d.press("esc")
	if d.s.rows.Count != 30 {
		t.Errorf("%d rows after esc", d.s.rows.Count)
	}
	d.press("/")
	d.send(tea.PasteMsg{Content: "113.7\n\x1b[2J"})
	if d.s.rows.Count != 1 {
		t.Errorf("%d rows with what was pasted, %q", d.s.rows.Count, d.s.find)
	}
	d.press("ctrl+c")
	if !d.quit {
		t.Error("ctrl+c does not quit a search")
	}
}

func TestAnAgentThatDoesNotAnswerIsSaidAndTheLastAnswerStays(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.fault = errors.New("the agent is not running: nobody answers on /run/banmesh/agent.sock")
	d.send(tick{d.s.ticks})
	if f := d.frame(); !strings.Contains(f, "error: the agent is not running") || !strings.Contains(f, "203.0.113.0") {
		t.Errorf("the frame is\n%s", f)
	}
	d.fault = nil
	d.count = 3 // the list is shorter than where the selection was
	d.press("end", "r")
	if f := d.frame(); strings.Contains(f, "error") || !strings.Contains(f, "3 of 3") {
		t.Errorf("the frame is\n%s", f)
	}
	d.send(tick{d.s.ticks - 1}) // of an older load
	d.press("q")
	if !d.quit {
		t.Error("q does not quit")
	}
}

func TestColoursAreLeftOutWhereTheyAreNotWanted(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.fault = errors.New("x")
	d.send(tick{d.s.ticks})
	if strings.Contains(d.s.draw(), red) {
		t.Error("there is a colour")
	}
	d.s.o.Painted = true
	if !strings.Contains(d.s.draw(), red) {
		t.Error("there is no colour")
	}
}

func FuzzNoKeyOrSizeEndsTheScreen(f *testing.F) {
	f.Add("usy/1\x1b?e", uint8(80), uint8(24))
	f.Fuzz(func(t *testing.T, keys string, width, height uint8) {
		o := Options{
			Head:    func(context.Context, int) ([]string, error) { return []string{keys}, nil },
			Lists:   []List{{Name: "x", Sorts: []string{"a"}, Load: func(context.Context, string, string) (Rows, error) { return Rows{}, nil }}},
			Explain: func(context.Context, string, int) (string, error) { return keys, nil },
			Unban:   func(context.Context, string, bool) (string, error) { return keys, nil },
		}
		s := newScreen(t.Context(), o)
		n := len(keys) % 40
		s.take(loaded{sort: "a", head: []string{keys}, rows: Rows{Count: n, Target: func(int) string { return keys }, Print: func(from, to, _ int) (string, []string) {
			return keys, make([]string, to-from)
		}}})
		s.Update(tea.WindowSizeMsg{Width: int(width), Height: int(height)})
		for _, r := range keys {
			s.Update(tea.KeyPressMsg{Code: r, Text: string(r)})
			if got := strings.Count(s.draw(), "\n") + 1; got != int(height) && got != 1 {
				t.Fatalf("%d lines on a screen of %d", got, height)
			}
		}
	})
}
