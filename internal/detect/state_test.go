package detect

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
)

// stateOptions are those of a detector that counts in memory and reads no log.
func stateOptions(t testing.TB, path string) Options {
	def := sshd(t, filepath.Join(t.TempDir(), "none.log"))
	def.Detect.Increment.Enabled = true
	return Options{Jails: []Jail{{Definition: def}}, StatePath: path, Source: source.Options{Start: source.StartBeginning}}
}

func newDetector(t testing.TB, o Options) *Detector {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func address(n int) ban.Target {
	target, err := ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(n >> 16), byte(n >> 8), byte(n)}), 64))
	if err != nil {
		panic(err)
	}
	return target
}

// dumpState is all that a state file has to keep.
func dumpState(d *Detector) string {
	var b strings.Builder
	for _, j := range d.jails {
		fmt.Fprintln(&b, j.topic, j.counts.found, j.counts.banned, j.counts.ignored)
		entries := map[ban.Target]entryState{}
		for t, e := range j.window.entries {
			entries[t] = e.state()
		}
		fmt.Fprintln(&b, entries)
		bans := map[ban.Target]string{}
		for t, c := range j.bans {
			bans[t] = fmt.Sprint(c.Count, c.End.Unix())
		}
		fmt.Fprintln(&b, bans)
	}
	fmt.Fprintln(&b, len(d.pending))
	return b.String()
}

func TestASaveWritesWhatChangedAndNotAllThatIsTracked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d := newDetector(t, stateOptions(t, path))
	w := d.jails[0].window
	now := time.Now()
	const tracked = 100_000
	for i := range tracked {
		w.add(address(i), now, 1, true)
	}
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	all := sizeOf(t, path)
	for i := range 10 {
		w.add(address(i), now.Add(time.Duration(i)*time.Second), 1, true)
		if err := d.Save(); err != nil {
			t.Fatal(err)
		}
	}
	if more := sizeOf(t, path) - all; more > 10*1024 {
		t.Errorf("ten offences among %d tracked targets wrote %d bytes after %d", tracked, more, all)
	}
	if again := newDetector(t, stateOptions(t, path)); dumpState(again) != dumpState(d) {
		t.Error("the state read back is another one")
	}
}

func sizeOf(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestTheStateFileIsWrittenAnewBeforeItIsMostlyChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d := newDetector(t, stateOptions(t, path))
	now := time.Now()
	for i := range 60 {
		for k := range 500 {
			d.jails[0].window.add(address(k), now.Add(time.Duration(i)*time.Hour), 1, true) // the one before is over
		}
		if err := d.Save(); err != nil {
			t.Fatal(err)
		}
	}
	if size := sizeOf(t, path); size > 2*d.file.whole+slackState+100*500 {
		t.Errorf("the file has %d bytes, of which %d are a state", size, d.file.whole)
	}
}

// Any sequence of offences, bans, expiry, saves and restarts keeps the state,
// wherever the last write was torn off.
func TestAStateSurvivesRestartsAndTornWrites(t *testing.T) {
	dir := t.TempDir()
	o := stateOptions(t, filepath.Join(dir, "state"))
	rapid.Check(t, func(rt *rapid.T) {
		os.Remove(o.StatePath)
		now := time.Now()
		d := newDetector(t, o)
		if err := d.Save(); err != nil {
			rt.Fatal(err)
		}
		saved := dumpState(d)
		rt.Repeat(map[string]func(*rapid.T){
			"offence": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(rt, "later")) * time.Second)
				j := d.jails[0]
				j.counts.found++
				j.window.add(address(rapid.IntRange(0, 20).Draw(rt, "target")), now, 1, rapid.Bool().Draw(rt, "established"))
			},
			"ban": func(rt *rapid.T) {
				target := address(rapid.IntRange(0, 20).Draw(rt, "target"))
				d.jails[0].end(target, now, now)
				d.jails[0].window.remove(target)
			},
			"expire": func(*rapid.T) { d.jails[0].window.expire(now.Add(-600 * time.Second)) },
			"forget": func(rt *rapid.T) { d.jails[0].forget(address(rapid.IntRange(0, 20).Draw(rt, "target"))) },
			"save": func(rt *rapid.T) {
				if err := d.Save(); err != nil {
					rt.Fatal(err)
				}
				saved = dumpState(d)
			},
			"restart": func(rt *rapid.T) {
				d = newDetector(t, o)
				if got := dumpState(d); got != saved {
					rt.Fatalf("after a restart:\n%s\nsaved was\n%s", got, saved)
				}
			},
			"power failure": func(rt *rapid.T) {
				before := sizeOf(t, o.StatePath)
				whole := d.file.wantsWhole()
				if err := d.Save(); err != nil {
					rt.Fatal(err)
				}
				after := sizeOf(t, o.StatePath)
				now := dumpState(d)
				cut := after
				if !whole { // a whole file comes by a rename, or not at all
					cut = rapid.Int64Range(before, after).Draw(rt, "cut")
				}
				if err := os.Truncate(o.StatePath, cut); err != nil {
					rt.Fatal(err)
				}
				if cut == after {
					saved = now
				}
				d = newDetector(t, o)
				if got := dumpState(d); got != saved {
					rt.Fatalf("after a write torn at %d of %d..%d:\n%s\nwant\n%s", cut, before, after, got, saved)
				}
			},
		})
	})
}

func TestDamageAnywhereButAtTheEndIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d := newDetector(t, stateOptions(t, path))
	for i := range 5 {
		d.jails[0].window.add(address(i), time.Now(), 1, true)
		if err := d.Save(); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(good[:bytes.LastIndexByte(good[:len(good)-1], '\n')], '\n') // of the last batch's two lines
	for i := 0; i < last; i += 7 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(stateOptions(t, path)); !errors.Is(err, ErrState) {
			t.Fatalf("byte %d of %d flipped: %v, want ErrState", i, len(good), err)
		}
	}
}

func TestTooManyCountedBansLoseThoseThatEndFirst(t *testing.T) {
	d := newDetector(t, stateOptions(t, ""))
	j, now := d.jails[0], time.Now()
	for i := range maxBans {
		j.bans[address(i)] = banCount{Count: 1, End: now.Add(-time.Duration(maxBans-i) * time.Second)}
	}
	j.purge(now)
	if _, kept := j.bans[address(maxBans-1)]; !kept || len(j.bans) != maxBans-maxBans/10 {
		t.Errorf("%d of %d counted bans are left, the newest among them: %v", len(j.bans), maxBans, kept)
	}
}

// Without longer bans for those who come again, a ban that ended is soon forgotten: fifty
// a second would be tens of thousands.
func TestEndedBansAreForgottenWithinAMinute(t *testing.T) {
	d := newDetector(t, stateOptions(t, ""))
	j, now := d.jails[0], time.Now()
	j.def.Detect.Increment.Enabled = false
	j.bans[address(1)] = banCount{End: now.Add(-endedFor - time.Second)}
	j.bans[address(2)] = banCount{End: now.Add(-endedFor + 30*time.Second)}
	j.purge(now)
	if _, kept := j.bans[address(2)]; !kept || len(j.bans) != 1 {
		t.Errorf("at once: %v", j.bans)
	}
	j.purge(now.Add(time.Minute))
	if len(j.bans) != 0 {
		t.Errorf("a minute later: %v", j.bans)
	}
}

func FuzzStateFile(f *testing.F) {
	var b bytes.Buffer
	at := source.Position{}
	encode(&b, []record{{Version: stateVersion}, {Topic: "sshd", Counts: &counts{1, 2, 3}}, {Position: &at}})
	f.Add(b.Bytes())
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var batches [][]record
		err := loadState(path, func(batch []record) { batches = append(batches, batch) })
		if err == nil && len(batches) == 0 {
			t.Fatal("a file without a state is taken for one")
		}
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, batch := range batches {
			if _, err := encode(&again, batch); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, again.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := loadState(path, func(batch []record) {
			if !reflect.DeepEqual(batch, batches[n]) {
				t.Fatalf("%v became %v", batches[n], batch)
			}
			n++
		}); err != nil {
			t.Fatal(err)
		}
	})
}
