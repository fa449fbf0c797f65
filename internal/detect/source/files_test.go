package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
}

func TestFirstStartSkipsWhatExists(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "app.log")
	appendTo(t, log, numbered(0, 5)+"line 000005 of")
	c := newCollector()
	r := run(t, Spec{Files: []string{log}}, Position{}, Options{}, c.handle)
	r.ready(t, 1)
	appendTo(t, log, " the log\n"+numbered(6, 8))
	exactly(t, c.wait(t, 3), 5, 8)
	if got := c.lines[0]; got.Stream != log || !slices.Equal(got.Matched, []int{0}) {
		t.Errorf("the line says %+v", got)
	}
}

func TestAFileThatAppearsIsReadFromItsBeginning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newCollector()
	appendTo(t, filepath.Join(dir, "now.log"), "")
	r := run(t, Spec{Files: []string{filepath.Join(dir, "*.log"), filepath.Join(dir, "later", "*.log")}}, Position{}, Options{}, c.handle)
	r.ready(t, 1)
	if err := os.Mkdir(filepath.Join(dir, "later"), 0o700); err != nil {
		t.Fatal(err)
	}
	appendTo(t, filepath.Join(dir, "later", "a.log"), numbered(0, 3))
	exactly(t, c.wait(t, 3), 0, 3)
}

func TestSinceBeginsAtTheFirstLineOfThatTime(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "app.log")
	base := time.Date(2020, 11, 21, 9, 0, 0, 0, time.UTC)
	var b strings.Builder
	const n = 20000
	for i := range n {
		fmt.Fprintf(&b, "%s line %d\n", base.Add(time.Duration(i)*time.Second).Format(time.RFC3339), i)
	}
	appendTo(t, log, b.String())
	lineTime := func(text []byte) (time.Time, bool) {
		word, _, _ := strings.Cut(string(text), " ")
		at, err := time.Parse(time.RFC3339, word)
		return at, err == nil
	}
	for _, from := range []int{0, 1, 777, n - 1} {
		c := newCollector()
		s, err := Open(Spec{Files: []string{log}}, Position{}, Options{
			Start: StartSince, Since: base.Add(time.Duration(from) * time.Second), LineTime: lineTime, Once: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context(), c.handle); err != nil {
			t.Fatal(err)
		}
		if got := c.all(); len(got) != n-from || !strings.HasSuffix(got[0], fmt.Sprintf(" line %d", from)) {
			t.Errorf("since line %d: %d lines, the first is %q", from, len(got), got[0])
		}
	}
}

func TestALongLineIsCutAndCounted(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "app.log")
	long := strings.Repeat("x", 5*MaxLine)
	appendTo(t, log, numbered(0, 1)+long+"\n"+numbered(1, 2)+strings.Repeat("y", MaxLine+1)+"\n"+strings.Repeat("z", MaxLine)+"\n")
	c := newCollector()
	s, err := Open(Spec{Files: []string{log}}, Position{}, Options{Start: StartBeginning, Once: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), c.handle); err != nil {
		t.Fatal(err)
	}
	got := c.all()
	if len(got) != 5 || got[1] != long[:MaxLine] || got[3] != strings.Repeat("y", MaxLine) || len(got[4]) != MaxLine {
		t.Fatalf("%d lines", len(got))
	}
	if st := s.Status(); st.Cut != 2 || st.Read != 5 {
		t.Errorf("status says %+v", st)
	}
}

// TestEveryWayToRotateALogLosesNothing rotates a log in every usual way, with late writes to the old
// file and restarts in the middle.
func TestEveryWayToRotateALogLosesNothing(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(t *testing.T, dir, log string, i int) (late string){
		"rename": func(t *testing.T, dir, log string, i int) string {
			old := fmt.Sprintf("%s.%d", log, i)
			rename(t, log, old)
			return old
		},
		"shift": func(t *testing.T, dir, log string, i int) string {
			for n := i; n > 0; n-- {
				if _, err := os.Stat(fmt.Sprintf("%s.%d", log, n)); err == nil {
					rename(t, fmt.Sprintf("%s.%d", log, n), fmt.Sprintf("%s.%d", log, n+1))
				}
			}
			rename(t, log, log+".1")
			return log + ".1"
		},
		"dated": func(t *testing.T, dir, log string, i int) string {
			old := fmt.Sprintf("%s-202611%02d", log, i)
			rename(t, log, old)
			return old
		},
		"copytruncate": func(t *testing.T, dir, log string, i int) string {
			copyFile(t, log, fmt.Sprintf("%s.%d", log, i))
			truncate(t, log)
			return ""
		},
		"delete": func(t *testing.T, dir, log string, i int) string {
			// Deleting is no rotation: unread lines are gone. The test's
			// writer waits before it does this.
			if err := os.Remove(log); err != nil {
				t.Fatal(err)
			}
			return ""
		},
		"symlink": func(t *testing.T, dir, log string, i int) string {
			old, err := os.Readlink(log)
			if err != nil {
				t.Fatal(err)
			}
			target := filepath.Join(dir, fmt.Sprintf("data-%d.log", i))
			appendTo(t, target, "")
			if err := os.Symlink(target, log+".new"); err != nil {
				t.Fatal(err)
			}
			rename(t, log+".new", log)
			return old
		},
	}
	for name, rotate := range kinds {
		for _, pattern := range []string{"app.log", "app.log*"} {
			if name == "symlink" && pattern != "app.log" {
				continue
			}
			for _, restart := range []string{"never", "between", "during"} {
				if name == "delete" && restart == "during" {
					continue
				}
				t.Run(name+" "+pattern+" restart "+restart, func(t *testing.T) {
					t.Parallel()
					dir := t.TempDir()
					log := filepath.Join(dir, "app.log")
					if name == "symlink" {
						appendTo(t, filepath.Join(dir, "data-first.log"), "")
						if err := os.Symlink(filepath.Join(dir, "data-first.log"), log); err != nil {
							t.Fatal(err)
						}
					}
					spec := Spec{Files: []string{filepath.Join(dir, pattern)}}
					c := newCollector()
					r := run(t, spec, Position{}, Options{Start: StartBeginning}, c.handle)
					next := 0
					write := func(path string, n int) {
						appendTo(t, path, numbered(next, next+n))
						next += n
					}
					for i := 1; i <= 8; i++ {
						write(log, 100)
						if i == 1 {
							c.wait(t, next)
						}
						switch {
						case restart == "between", name == "delete":
							c.wait(t, next)
						}
						if restart == "between" {
							r.stop()
							r = run(t, spec, r.Position(), Options{}, c.handle)
						}
						if restart == "during" && i%2 == 0 {
							r.stop()
							write(log, 30)
						}
						if name == "copytruncate" && pattern != "app.log" && restart != "during" {
							c.wait(t, next)
						}
						late := rotate(t, dir, log, i)
						if late != "" {
							write(late, 20)
						}
						write(log, 50)
						if late != "" {
							write(late, 5)
						}
						if restart == "during" && i%2 == 0 {
							r = run(t, spec, r.Position(), Options{}, c.handle)
						}
						if restart == "during" || name == "copytruncate" {
							c.wait(t, next)
						}
					}
					c.wait(t, next)
					appendTo(t, log, "line end of the log\n")
					texts := c.wait(t, next+1)
					exactly(t, slices.DeleteFunc(texts, func(s string) bool { return s == "line end of the log" }), 0, next)
				})
			}
		}
	}
}

func TestAGlobThatIsNewAfterARestartSkipsWhatExists(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "app.log")
	appendTo(t, log, numbered(0, 5))
	if _, ok := birth(log); !ok {
		t.Skip("this file system does not say when a file was made")
	}
	for _, tt := range []struct {
		name string
		at   time.Time
		want int
	}{
		{"the file is older than the position", time.Now().Add(time.Hour), 0},
		{"the file was made since", time.Now().Add(-time.Hour), 5},
	} {
		got, _ := readOnce(t, Spec{Files: []string{log}}, Position{Time: tt.at}, Options{})
		if len(got.texts) != tt.want {
			t.Errorf("%s: %d lines, want %d", tt.name, len(got.texts), tt.want)
		}
	}
}

func TestAHoleOfATerabyteIsSkipped(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "app.log")
	appendTo(t, log, numbered(0, 2))
	c := newCollector()
	r := run(t, Spec{Files: []string{log}}, Position{}, Options{Start: StartBeginning}, c.handle)
	exactly(t, c.wait(t, 2), 0, 2)
	// A writer that does not append goes on at its old offset.
	f, err := os.OpenFile(log, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(numbered(2, 5)), 1<<40); err != nil {
		t.Skipf("this file system takes no sparse file of a terabyte: %v", err)
	}
	exactly(t, c.wait(t, 5), 0, 5)
	r.stop()
}
