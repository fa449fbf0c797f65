package source

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// record writes a line of a json-file log.
func record(stream, log string) string {
	b, err := json.Marshal(map[string]string{"log": log, "stream": stream, "time": "2026-11-21T09:00:00.123456789Z"})
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

func container(t *testing.T, root, id, name string) (log string) {
	t.Helper()
	dir := filepath.Join(root, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.v2.json"), []byte(`{"Name":"/`+name+`","State":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, id+"-json.log")
}

func TestDockerLinesAreJoinedAndStripped(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	gitea := container(t, root, strings.Repeat("ab", 32), "gitea-1")
	other := container(t, root, strings.Repeat("cd", 32), "postgres")
	appendTo(t, gitea, record("stdout", "one\n")+record("stdout", "two, first ")+record("stderr", "an error\r\n")+record("stdout", "second\n")+"not json\n"+record("stdout", "three <&>\n"))
	appendTo(t, other, record("stdout", "of no interest\n"))
	got, s := readOnce(t, Spec{Docker: []string{"none", "gitea*"}}, Position{}, Options{Start: StartBeginning, DockerRoot: root})
	if want := []string{"one", "an error", "two, first second", "three <&>"}; !reflect.DeepEqual(got.texts, want) {
		t.Errorf("got %q, want %q", got.texts, want)
	}
	want := Line{Time: time.Date(2026, 11, 21, 9, 0, 0, 123456789, time.UTC), Tag: "gitea-1", Host: "abababababab", Stream: "docker:gitea-1", Matched: []int{1}}
	if !reflect.DeepEqual(got.lines[0], want) {
		t.Errorf("the line says\n%+v, want\n%+v", got.lines[0], want)
	}
	if st := s.Status(); st.Dropped != 1 || st.Read != 4 {
		t.Errorf("status says %+v", st)
	}
}

func TestARestartBetweenThePiecesOfADockerLine(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	log := container(t, root, "abc", "app")
	spec := Spec{Docker: []string{filepath.Join(root, "*", "*-json.log")}}
	appendTo(t, log, record("stdout", "begun ")) // and not ended
	first, s := readOnce(t, spec, Position{}, Options{Start: StartBeginning})
	appendTo(t, log, record("stdout", "before\n"))
	rename(t, log, log+".1")
	appendTo(t, log, record("stdout", "after\n"))
	second, _ := readOnce(t, spec, s.Position(), Options{})
	if got := append(first.texts, second.texts...); !reflect.DeepEqual(got, []string{"begun before", "after"}) {
		t.Errorf("got %q", got)
	}
}

func TestAContainersLogBeginsWhereItIsAskedTo(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	log := container(t, root, "abc", "app")
	for i, text := range []string{"old", "2030-01-01 00:00:00 older than asked", "1999-01-01 00:00:00 asked", strings.Repeat("new ", 1000)} {
		b, err := json.Marshal(dockerRecord{Log: ptr(text + "\n"), Stream: "stdout", Time: localTime.Add(time.Duration(i) * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		appendTo(t, log, string(b)+"\n")
	}
	wrong := func([]byte) (time.Time, bool) { return time.Time{}, false } // Docker's own times count
	for _, x := range []struct {
		o    Options
		want int
	}{
		{Options{Start: StartEnd}, 0},
		{Options{Start: StartSince, Since: localTime.Add(2 * time.Hour), LineTime: wrong}, 2},
		{Options{Start: StartSince, Since: localTime.Add(3 * time.Hour)}, 1},
		{Options{Start: StartBeginning}, 4},
	} {
		x.o.DockerRoot = root
		if got, _ := readOnce(t, Spec{Docker: []string{"app"}}, Position{}, x.o); len(got.texts) != x.want {
			t.Errorf("%+v: got %q, want %d", x.o, got.texts, x.want)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestADockerLineWithoutEndIsCut(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	log := container(t, root, "abc", "app")
	piece := strings.Repeat("é", 8<<10)
	var b strings.Builder
	for range 20 {
		b.WriteString(record("stdout", piece))
	}
	appendTo(t, log, b.String()+record("stdout", "end\n")+record("stdout", "next\n"))
	got, s := readOnce(t, Spec{Docker: []string{log}}, Position{}, Options{Start: StartBeginning})
	if len(got.texts) != 2 || len(got.texts[0]) > MaxLine || len(got.texts[0]) < MaxLine-4 || got.texts[1] != "next" {
		t.Errorf("%d lines, the first of %d bytes", len(got.texts), len(got.texts[0]))
	}
	if st := s.Status(); st.Cut != 1 {
		t.Errorf("status says %+v", st)
	}
}

func FuzzDocker(f *testing.F) {
	f.Add([]byte(record("stdout", "one\n")), []byte(record("stderr", "two")))
	f.Add([]byte(`{"log":"\ud800","stream":1}`), []byte(`{"log":null}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		d := &dockerDecoder{tag: "x", matched: []int{0}}
		for _, raw := range [][]byte{a, b, a} {
			var line Line
			switch out := d.decode(raw, &line); out {
			case complete:
				if len(line.Text) > MaxLine {
					t.Fatalf("a line of %d bytes", len(line.Text))
				}
			case more, skipped, unusable:
			default:
				t.Fatal(fmt.Sprint("outcome ", out))
			}
			if len(d.out.text)+len(d.err.text) > 2*MaxLine {
				t.Fatal("unbounded pieces")
			}
		}
	})
}
