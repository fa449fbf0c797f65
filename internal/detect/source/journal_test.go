package source

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const journalRemote = "/lib/systemd/systemd-journal-remote"

// writeJournal makes a real journal file of an export stream.
func writeJournal(t testing.TB, path, export string, compact, compress bool) {
	t.Helper()
	if _, err := os.Stat(journalRemote); err != nil {
		t.Skip("systemd-journal-remote is not installed")
	}
	cmd := exec.Command(journalRemote, "--compress="+map[bool]string{true: "yes", false: "no"}[compress], "-o", path, "-")
	cmd.Env = append(os.Environ(), "SYSTEMD_JOURNAL_COMPACT="+map[bool]string{true: "1", false: "0"}[compact])
	cmd.Stdin = strings.NewReader(export)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("making a journal: %v\n%s", err, out)
	}
}

// exportEntries writes entries from..to in the export format.
func exportEntries(from, to int, boot byte) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		us := int64(1700000000000000) + int64(i)*1000
		message := fmt.Sprintf("Failed password for root from 203.0.113.%d port %d ssh2", i%250, i)
		if i%17 == 0 {
			message += strings.Repeat(fmt.Sprintf(" repeated %d", i), 100) // is compressed
		}
		unit, tag := "ssh.service", "sshd"
		if i%3 == 0 {
			unit, tag = "cron.service", "CRON"
		}
		fmt.Fprintf(&b, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n", us, us-1690000000000000, strings.Repeat(string(boot), 32))
		if i%29 == 0 { // a field with a newline has another form
			message += "\nsecond line"
			fmt.Fprintf(&b, "MESSAGE\n%s%s\n", string(binarySize(len(message))), message)
		} else {
			fmt.Fprintf(&b, "MESSAGE=%s\n", message)
		}
		fmt.Fprintf(&b, "SYSLOG_IDENTIFIER=%s\n_SYSTEMD_UNIT=%s\n_PID=%d\n_HOSTNAME=host\n_COMM=x\n_SOURCE_REALTIME_TIMESTAMP=%d\nPRIORITY=6\n_CMDLINE=%s\n\n", tag, unit, 100+i%7, us-7, strings.Repeat("argument ", 100))
	}
	return b.String()
}

func binarySize(n int) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	return b
}

// readOnce reads everything that there is.
func readOnce(t testing.TB, spec Spec, resume Position, o Options) (*collector, Source) {
	t.Helper()
	o.Once = true
	s, err := Open(spec, resume, o)
	if err != nil {
		t.Fatal(err)
	}
	c := newCollector()
	if err := s.Run(t.Context(), c.handle); err != nil {
		t.Fatal(err)
	}
	return c, s
}

// TestMoreNamesAndProcessesThanTheReaderKeeps compares whole lines of a journal
// whose programs and processes push each other out of the reader's tables.
func TestMoreNamesAndProcessesThanTheReaderKeeps(t *testing.T) {
	t.Parallel()
	const entries, names = 4 * knownFields, maxInterned + 500
	var b strings.Builder
	for i := range entries {
		fmt.Fprintf(&b, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n", int64(1700000000000000)+int64(i)*1000, 1+i*1000, strings.Repeat("a", 32))
		fmt.Fprintf(&b, "MESSAGE=line %d\nSYSLOG_IDENTIFIER=tag%d\n_PID=%d\n_HOSTNAME=host%d\n", i, i*31%names, 1+i*7%(2*knownFields), i%3)
		if i%2 == 0 {
			fmt.Fprintf(&b, "SYSLOG_PID=%d\n", i*13%(knownFields+1))
		}
		b.WriteByte('\n')
	}
	dir := t.TempDir()
	writeJournal(t, filepath.Join(dir, "one.journal"), b.String(), true, false)
	spec := Spec{Journal: []string{"", "_HOSTNAME=host1"}, JournalDirs: []string{dir}}
	got, _ := readOnce(t, spec, Position{}, Options{Start: StartBeginning})
	if len(got.lines) != entries {
		t.Fatalf("%d lines, want %d", len(got.lines), entries)
	}
	for i, l := range got.lines {
		pid, matched := 1+i*7%(2*knownFields), []int{0}
		if own := i * 13 % (knownFields + 1); i%2 == 0 && own != 0 {
			pid = own
		}
		if i%3 == 1 {
			matched = []int{0, 1}
		}
		if l.Tag != fmt.Sprintf("tag%d", i*31%names) || l.PID != pid || l.Host != fmt.Sprintf("host%d", i%3) || !reflect.DeepEqual(l.Matched, matched) ||
			got.texts[i] != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d is %q of %+v", i, got.texts[i], l)
		}
	}
}

func TestTheFirstOfAFieldCounts(t *testing.T) {
	t.Parallel()
	var v fields
	for _, tt := range []struct {
		i     int
		first bool
	}{{3, true}, {5, false}, {1, true}, {2, false}, {0, true}} {
		if got := v.first(fieldTag, tt.i); got != tt.first {
			t.Errorf("field %d is the first: %t", tt.i, got)
		}
	}
	if !v.first(fieldHost, 9) {
		t.Error("another kind's field counts")
	}
}

// TestEveryKindOfJournalFileReadsAsJournalctlReadsIt compares whole lines.
func TestEveryKindOfJournalFileReadsAsJournalctlReadsIt(t *testing.T) {
	t.Parallel()
	for _, compact := range []bool{false, true} {
		for _, compress := range []bool{false, true} {
			for _, match := range []string{"", "_SYSTEMD_UNIT=ssh.service", "SYSLOG_IDENTIFIER=CRON _PID=103 _PID=104 + _PID=101"} {
				dir := t.TempDir()
				writeJournal(t, filepath.Join(dir, "one.journal"), exportEntries(0, 2000, 'a'), compact, compress)
				spec := Spec{Journal: []string{match, "PRIORITY=6"}, JournalDirs: []string{dir}}
				want, _ := readOnce(t, spec, Position{}, Options{Start: StartBeginning, ForceJournalctl: true})
				got, s := readOnce(t, spec, Position{}, Options{Start: StartBeginning})
				if st := s.Status(); st.Errors != 0 || st.Dropped != 0 || st.Read != 2000 {
					t.Errorf("compact %t compressed %t: %+v", compact, compress, st)
				}
				if len(want.texts) != 2000 || !reflect.DeepEqual(want.texts, got.texts) {
					t.Fatalf("compact %t compressed %t match %q: %d texts, journalctl gives %d", compact, compress, match, len(got.texts), len(want.texts))
				}
				for i := range want.lines {
					if !reflect.DeepEqual(want.lines[i], got.lines[i]) {
						t.Fatalf("compact %t compressed %t match %q: line %d is\n%+v, journalctl gives\n%+v", compact, compress, match, i, got.lines[i], want.lines[i])
					}
				}
			}
		}
	}
}

func TestSeveralJournalFilesAreReadInOrderOfTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, part := range []string{"c", "a", "b"} {
		writeJournal(t, filepath.Join(dir, part+".journal"), exportEntries(i*100, i*100+100, 'a'+byte(i)), i == 1, true)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeJournal(t, filepath.Join(dir, "sub", "d.journal"), exportEntries(300, 400, 'd'), false, false)
	rename(t, filepath.Join(dir, "sub", "d.journal"), filepath.Join(dir, "sub", "d.journal~"))
	spec := Spec{Journal: []string{""}, JournalDirs: []string{dir}}
	got, s := readOnce(t, spec, Position{}, Options{Start: StartBeginning})
	if len(got.texts) != 400 {
		t.Fatalf("%d lines", len(got.texts))
	}
	for i, text := range got.texts {
		if !strings.Contains(text, fmt.Sprintf(" port %d ", i)) {
			t.Fatalf("line %d is %q", i, text)
		}
	}
	again, _ := readOnce(t, spec, s.Position(), Options{Start: StartBeginning})
	if len(again.texts) != 0 {
		t.Errorf("%d lines were read twice", len(again.texts))
	}
	since, _ := readOnce(t, spec, Position{}, Options{Start: StartSince, Since: time.UnixMicro(1700000000000000 + 350*1000)})
	if len(since.texts) != 50 {
		t.Errorf("%d lines since, want 50", len(since.texts))
	}
}

// TestARestartGoesOnAfterTheLastEntry stops after every seventh entry, once
// before it is counted, with each reader following the other.
func TestARestartGoesOnAfterTheLastEntry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeJournal(t, filepath.Join(dir, "one.journal"), exportEntries(0, 60, 'a'), false, true)
	writeJournal(t, filepath.Join(dir, "two.journal"), exportEntries(60, 120, 'b'), true, true)
	spec := Spec{Journal: []string{""}, JournalDirs: []string{dir}}
	var position Position
	var texts []string
	stop := fmt.Errorf("stop")
	for round := 0; len(texts) < 120 && round < 100; round++ {
		s, err := Open(spec, position, Options{Start: StartBeginning, Once: true, ForceJournalctl: round%2 == 1})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = s.Run(t.Context(), func(l Line) error {
			if n == 7 {
				return stop
			}
			n++
			texts = append(texts, string(l.Text))
			return nil
		})
		if err != nil && err != stop {
			t.Fatal(err)
		}
		position = s.Position()
	}
	for i, text := range texts {
		if !strings.Contains(text, fmt.Sprintf(" port %d ", i)) {
			t.Fatalf("line %d is %q", i, text)
		}
	}
	if len(texts) != 120 {
		t.Errorf("%d lines", len(texts))
	}
}

func TestADamagedJournalFileIsLeftAndTheRestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeJournal(t, filepath.Join(dir, "good.journal"), exportEntries(0, 100, 'a'), false, false)
	writeJournal(t, filepath.Join(dir, "bad.journal"), exportEntries(100, 200, 'b'), false, false)
	if err := os.Truncate(filepath.Join(dir, "bad.journal"), 20000); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "worse.journal"), []byte(strings.Repeat("not a journal ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	got, s := readOnce(t, Spec{Journal: []string{""}, JournalDirs: []string{dir}}, Position{}, Options{Start: StartBeginning})
	good := 0
	for _, text := range got.texts {
		for i := range 100 {
			if strings.Contains(text, fmt.Sprintf(" port %d ", i)) {
				good++
			}
		}
	}
	if st := s.Status(); good != 100 || st.Errors == 0 {
		t.Errorf("%d lines of the good file, status %+v", good, st)
	}
}

func TestAJournalWithOtherFeaturesIsReadByJournalctl(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "one.journal")
	writeJournal(t, path, exportEntries(0, 100, 'a'), false, false)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var features [1]byte
	if _, err := f.ReadAt(features[:], 12); err != nil {
		t.Fatal(err)
	}
	features[0] |= 1 // XZ, though nothing in it is compressed
	if _, err := f.WriteAt(features[:], 12); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Journal: []string{"_SYSTEMD_UNIT=ssh.service"}, JournalDirs: []string{dir}}
	got, s := readOnce(t, spec, Position{}, Options{Start: StartBeginning})
	if st := s.Status(); len(got.texts) != 66 || len(st.Streams) != 1 || st.Streams[0].Reader != "journalctl" || !strings.Contains(st.LastError, "XZ") {
		t.Errorf("%d lines, status %+v", len(got.texts), s.Status())
	}
	if again, _ := readOnce(t, spec, s.Position(), Options{Start: StartBeginning}); len(again.texts) != 0 {
		t.Errorf("%d lines were read twice", len(again.texts))
	}
}

func TestAJournalIsFollowedIntoNewFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeJournal(t, filepath.Join(dir, "one.journal"), exportEntries(0, 10, 'a'), false, false)
	later := t.TempDir()
	writeJournal(t, filepath.Join(later, "two.journal"), exportEntries(10, 20, 'b'), true, true)
	c := newCollector()
	r := run(t, Spec{Journal: []string{""}, JournalDirs: []string{dir}}, Position{}, Options{}, c.handle)
	r.ready(t, 1)
	rename(t, filepath.Join(later, "two.journal"), filepath.Join(dir, "two.journal"))
	if got := c.wait(t, 10); len(got) != 10 || !strings.Contains(got[0], " port 10 ") {
		t.Errorf("%d lines, the first is %q", len(got), got[0])
	}
}

func FuzzJournalMatch(f *testing.F) {
	f.Add("_SYSTEMD_UNIT=ssh.service + _COMM=sshd \"A=b c\"")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMatch(text)
		if err == nil && len(m) == 0 && strings.TrimSpace(text) != "" {
			t.Fatalf("%q matches everything", text)
		}
	})
}
