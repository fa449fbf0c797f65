package source

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var localTime = time.Date(2026, 11, 21, 9, 0, 0, 123456789, time.UTC)

// localEntry makes a record of Docker's driver "local". piece is "" for a whole
// line, "more" or "last".
func localEntry(stream, text, piece string, at time.Time) string {
	b := append([]byte{0x0a, byte(len(stream))}, stream...)
	b = binary.AppendUvarint(append(b, 0x10), uint64(at.UnixNano()))
	if text != "" {
		b = append(binary.AppendUvarint(append(b, 0x1a), uint64(len(text))), text...)
	}
	switch piece {
	case "more":
		b = append(b, 0x20, 1, 0x2a, 4, 0x12, 2, 'i', 'd')
	case "last":
		b = append(b, 0x20, 1, 0x2a, 8, 0x08, 1, 0x12, 2, 'i', 'd', 0x18, 2)
	}
	length := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	return string(length) + string(b) + string(length)
}

func localLine(text string) string { return localEntry("stdout", text, "", localTime) }

func localContainer(t *testing.T, root, id, name string) (log string) {
	t.Helper()
	dir := filepath.Join(filepath.Dir(container(t, root, id, name)), localDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, localFile)
}

func TestRecordsOfDockersLocalDriverAreLines(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	log := localContainer(t, root, strings.Repeat("ab", 32), "gitea-1")
	appendTo(t, localContainer(t, root, strings.Repeat("cd", 32), "postgres"), localLine("of no interest"))
	appendTo(t, log, localLine("one")+localEntry("stdout", "two, first ", "more", localTime)+localEntry("stderr", "an error\r", "", localTime)+
		localEntry("stdout", "second", "last", localTime)+localLine("")+localLine("a newline\nin it")+localLine("cut o")[:20])
	got, s := readOnce(t, Spec{Docker: []string{"none", "gitea*"}}, Position{}, Options{Start: StartBeginning, DockerRoot: root})
	if want := []string{"one", "an error", "two, first second", "", "a newline\nin it"}; !reflect.DeepEqual(got.texts, want) {
		t.Errorf("got %q, want %q", got.texts, want)
	}
	want := Line{Time: localTime, Tag: "gitea-1", Host: "abababababab", Stream: "docker:gitea-1", Matched: []int{1}}
	if !reflect.DeepEqual(got.lines[0], want) {
		t.Errorf("the line says\n%+v, want\n%+v", got.lines[0], want)
	}
	appendTo(t, log, localLine("cut o")[20:]+localLine("next"))
	got, _ = readOnce(t, Spec{Docker: []string{"none", "gitea*"}}, s.Position(), Options{DockerRoot: root})
	if want := []string{"cut o", "next"}; !reflect.DeepEqual(got.texts, want) {
		t.Errorf("after a restart within a record: %q, want %q", got.texts, want)
	}
}

func TestARotatedLocalLogIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	log := localContainer(t, root, "abc", "app")
	spec := Spec{Docker: []string{"app"}}
	appendTo(t, log, localLine("read"))
	_, s := readOnce(t, spec, Position{}, Options{Start: StartBeginning, DockerRoot: root})
	appendTo(t, log, localLine("before")+localEntry("stdout", "torn", "", localTime)[:9])
	rename(t, log, log+".1")
	appendTo(t, log, localLine("after"))
	got, _ := readOnce(t, spec, s.Position(), Options{DockerRoot: root})
	if want := []string{"before", "after"}; !reflect.DeepEqual(got.texts, want) {
		t.Errorf("got %q, want %q", got.texts, want)
	}
}

// TestDamageOfALocalLogLosesTheDamagedRecordAlone tears a record, as a power cut
// does, behind which Docker appends others; one of them holds a text that looks
// like a record of another's.
func TestDamageOfALocalLogLosesTheDamagedRecordAlone(t *testing.T) {
	t.Parallel()
	forged := localLine("Failed password for root from 198.51.100.1")
	for name, damage := range map[string]string{
		"torn": localLine("lost")[:17], "zeros": string(make([]byte, 4096)), "too long": "\x7f\xff\xff\xffx", "a forged record": "\x00\x00\x00\x05" + forged,
	} {
		root := t.TempDir()
		log := localContainer(t, root, "abc", "app")
		appendTo(t, log, localLine("one")+damage+localLine("a name: "+forged+" end")+localLine("three"))
		got, s := readOnce(t, Spec{Docker: []string{"app"}}, Position{}, Options{Start: StartBeginning, DockerRoot: root})
		want := []string{"one", "a name: " + forged + " end", "three"}
		if name == "a forged record" {
			want = []string{"one", "Failed password for root from 198.51.100.1", "a name: " + forged + " end", "three"} // whole records are Docker's
		}
		if !reflect.DeepEqual(got.texts, want) {
			t.Errorf("%s: got %q, want %q", name, got.texts, want)
		}
		if st := s.Status(); st.Dropped == 0 {
			t.Errorf("%s: status says %+v", name, st)
		}
	}
}

// TestALocalLogThatEndsTornGoesOn has the damage at the end while it is read.
func TestALocalLogThatEndsTornGoesOn(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	log := localContainer(t, root, "abc", "app")
	appendTo(t, log, localLine("one")+localLine("torn")[:11]+strings.Repeat("\x00", 64))
	c := newCollector()
	s := run(t, Spec{Docker: []string{"app"}}, Position{}, Options{Start: StartBeginning, DockerRoot: root}, c.handle)
	s.ready(t, 1)
	c.wait(t, 1)
	appendTo(t, log, localLine("two")+localLine("three"))
	c.wait(t, 2)
	appendTo(t, log, localLine("four"))
	for deadline := time.Now().Add(patience); c.all()[len(c.all())-1] != "four"; {
		if time.Now().After(deadline) {
			t.Fatalf("got %q", c.all())
		}
		<-time.After(time.Millisecond)
	}
}

func TestALocalLogBeginsWhereItIsAskedTo(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	log := localContainer(t, root, "abc", "app")
	var b strings.Builder
	for i, text := range []string{"old", "older than asked", "asked", "new"} {
		b.WriteString(localEntry("stdout", text, "", localTime.Add(time.Duration(i)*time.Hour)))
	}
	appendTo(t, log, b.String())
	for _, x := range []struct {
		o    Options
		want []string
	}{
		{Options{Start: StartEnd}, nil},
		{Options{Start: StartSince, Since: localTime.Add(2 * time.Hour)}, []string{"asked", "new"}},
		{Options{Start: StartSince, Since: localTime.Add(9 * time.Hour)}, nil},
		{Options{Start: StartBeginning}, []string{"old", "older than asked", "asked", "new"}},
	} {
		x.o.DockerRoot = root
		got, _ := readOnce(t, Spec{Docker: []string{"app"}}, Position{}, x.o)
		if !reflect.DeepEqual(got.texts, x.want) {
			t.Errorf("%+v: got %q, want %q", x.o, got.texts, x.want)
		}
	}
}

// TestRecordsComeWholeHoweverTheyAreCut hands a log to a reader in pieces of any
// size.
func TestRecordsComeWholeHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var want []string
		var log []byte
		for range rapid.IntRange(0, 12).Draw(t, "records") {
			text := strings.Repeat("x", rapid.IntRange(0, 400).Draw(t, "length"))
			want = append(want, text)
			log = append(log, localLine(text)...)
		}
		var got []string
		f := &file{framed: true}
		for at := 0; at < len(log); {
			n := min(rapid.IntRange(1, 500).Draw(t, "piece"), len(log)-at)
			end, err := f.consumeRecords(log[at:at+n], int64(at), func(raw []byte) (bool, error) {
				r, ok := parseLocal(raw)
				if !ok {
					t.Fatalf("%q is no record", raw)
				}
				got = append(got, string(r.text))
				return true, nil
			}, &counters{})
			if err != nil || end != int64(at+n) {
				t.Fatalf("at %d: %d, %v", at, end, err)
			}
			at += n
		}
		if !reflect.DeepEqual(got, want) || f.committed.Load() != int64(len(log)) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

func FuzzDockerLocal(f *testing.F) {
	f.Add([]byte(localLine("one") + localEntry("stderr", "two", "more", localTime) + localEntry("stderr", "two", "last", localTime)))
	f.Add([]byte("\x00\x00\x00\x05\x0a\x06std\x00\x00\x00\x05"))
	f.Add([]byte(localLine("a")[:9] + localLine("b")))
	f.Fuzz(func(t *testing.T, log []byte) {
		d := &localDecoder{dockerDecoder{tag: "x", matched: []int{0}}}
		x := &file{framed: true}
		r := bytes.NewReader(log)
		for at, rounds := int64(0), 0; at < int64(len(log)); rounds++ {
			if rounds > len(log) {
				t.Fatal("no end")
			}
			next, err := x.consumeRecords(log[at:], at, func(raw []byte) (bool, error) {
				var line Line
				if d.decode(raw, &line) == complete && len(line.Text) > MaxLine {
					t.Fatalf("a line of %d bytes", len(line.Text))
				}
				return true, nil
			}, &counters{})
			if at = next; err == nil {
				break
			}
			if next = resync(r, at); next <= at {
				t.Fatalf("from %d back to %d", at, next)
			}
			at, x.partial = next, nil
		}
	})
}
