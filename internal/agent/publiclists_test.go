package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/compat/lists"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
	"banmesh/internal/store"
)

// fatal is the part of a test that the worlds below need.
type fatal interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// listWorld is a ledger, a configuration, and the lists that it names.
type listWorld struct {
	fatal
	dir      string
	state    string // of the agent's; "" is dir
	now      time.Time
	settings *settings.Settings
	ledger   *ledger.Ledger
	store    *store.Store
	lists    *publicLists
	events   []history.Event
	never    []netip.Prefix
}

var listTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newListWorld(t fatal, dir, config string) *listWorld {
	t.Helper()
	w := &listWorld{fatal: t, dir: dir, now: listTime}
	w.configure(config)
	w.open()
	return w
}

func (w *listWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("%v", err)
	}
}

func (w *listWorld) configure(config string) {
	w.Helper()
	w.must(os.MkdirAll(w.dir+"/config", 0o755))
	w.must(os.MkdirAll(w.dir+"/spool", 0o755))
	w.must(os.WriteFile(w.dir+"/config/agent.toml", []byte(strings.ReplaceAll(config, "DIR", w.dir)), 0o644))
	var err error
	w.settings, err = settings.Load(w.dir+"/config", "")
	w.must(err)
}

// open starts as an agent does: with the store and the copies that are on disk.
func (w *listWorld) open() {
	w.Helper()
	var err error
	w.store, err = store.Open(cmp.Or(w.state, w.dir) + "/agent.db")
	w.must(err)
	now := func() time.Time { return w.now }
	w.ledger, err = ledger.Open(ledger.Options{Store: w.store, Policy: w.settings.Policy(), Now: now, Loading: true})
	w.must(err)
	w.lists = newPublicLists(publicListOptions{
		settings: func() *settings.Settings { return w.settings }, apply: w.ledger.Peers.Apply, now: now, state: cmp.Or(w.state, w.dir), log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		note: func(e history.Event) { w.events = append(w.events, e) },
		never: func(t ban.Target) (string, bool) {
			p, _ := t.Prefix()
			i := slices.IndexFunc(w.never, p.Overlaps)
			return "the office", i >= 0
		},
	})
	w.must(w.lists.restore(context.Background()))
	w.ledger.Loaded()
}

// kill ends the agent without a word, and starts it again.
func (w *listWorld) kill() {
	w.Helper()
	w.must(w.store.Close())
	w.open()
}

// reload puts the configuration in force.
func (w *listWorld) reload(config string) {
	w.Helper()
	w.configure(config)
	w.ledger.SetPolicy(w.settings.Policy())
	w.must(w.lists.changed(context.Background()))
}

func (w *listWorld) look() { w.lists.look(context.Background()) }

// write replaces the file of a list.
func (w *listWorld) write(text string) {
	w.Helper()
	path := w.dir + "/drop.txt"
	w.must(os.WriteFile(path, []byte(text), 0o644))
	w.must(os.Chtimes(path, w.now, w.now))
}

// spool leaves a list as `agent fetch` does.
func (w *listWorld) spool(f lists.Fetched, text string) {
	w.Helper()
	sum := sha256.Sum256([]byte(text))
	f.Sum = hex.EncodeToString(sum[:])
	w.record(f, text)
}

func (w *listWorld) record(f lists.Fetched, text string) {
	w.Helper()
	b, err := json.Marshal(f)
	w.must(err)
	w.must(os.WriteFile(lists.BodyFile(w.dir+"/spool", "drop"), []byte(text), 0o644))
	w.must(os.WriteFile(lists.RecordFile(w.dir+"/spool", "drop"), b, 0o644))
}

// bans gives the bans in force as "TARGET TIME-FROM-NOW".
func (w *listWorld) bans() string {
	var out []string
	for _, e := range w.ledger.Enforcement.Desired() {
		if e.Until.After(w.now) {
			out = append(out, fmt.Sprint(e.Target, " ", e.Until.Sub(w.now)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (w *listWorld) want(bans string) {
	w.Helper()
	w.ledger.Expire(w.now)
	if got := w.bans(); got != bans {
		w.Errorf("%q is banned, want %q", got, bans)
	}
}

func (w *listWorld) drop() control.PublicList {
	w.Helper()
	list := w.lists.List()
	if len(list) != 1 {
		w.Fatalf("%d lists", len(list))
	}
	return list[0]
}

func (w *listWorld) codes() (codes []string) {
	for _, x := range w.lists.warnings() {
		codes = append(codes, x.Code)
	}
	return codes
}

const (
	fileList = "[lists.drop]\nfile = 'DIR/drop.txt'\ntopics = ['sshd']\nrule = 'ban'\nfor = '2h'\n"
	urlList  = "[fetch]\nspool = 'DIR/spool'\n[lists.drop]\nurl = 'https://lists.example/drop.txt'\ntopics = ['sshd']\nrule = 'ban'\nfor = '8h'\n"
)

func TestAListCountsUntilItDropsAnEntryOrEnds(t *testing.T) {
	w := newListWorld(t, t.TempDir(), fileList)
	w.look()
	if x := w.drop(); x.Fault == "" || !slices.Equal(w.codes(), []string{"list-fault"}) {
		t.Errorf("without a file: %+v, %v", x, w.codes())
	}
	w.write("203.0.113.0/24\n198.51.100.7\n0.0.0.0/0\n")
	w.look()
	w.want("198.51.100.7 2h0m0s, 203.0.113.0/24 2h0m0s")
	if x := w.drop(); x.Entries != 2 || x.Wide != 1 || x.Format != "lines" || x.Fault != "" || len(w.codes()) != 0 || x.Refused[0].Text != "0.0.0.0/0" {
		t.Errorf("%+v, %v", x, w.codes())
	}
	w.kill()
	w.want("198.51.100.7 2h0m0s, 203.0.113.0/24 2h0m0s")
	w.now = w.now.Add(time.Hour)
	w.write("198.51.100.7\n198.51.100.8\n")
	w.want("198.51.100.7 1h0m0s, 203.0.113.0/24 1h0m0s")
	w.look()
	w.want("198.51.100.7 2h0m0s, 198.51.100.8 2h0m0s")
	// Nobody confirms it: it ends by itself, also while the agent looks on.
	w.now = w.now.Add(2 * time.Hour)
	w.look()
	w.want("")
	if !slices.Equal(w.codes(), []string{"list-ended"}) {
		t.Errorf("ended: %v", w.codes())
	}
	w.kill()
	w.look()
	w.want("")
	w.write("198.51.100.7\n")
	w.look()
	w.want("198.51.100.7 2h0m0s")
}

func TestAFetchedListIsRenewedWhileItsServerConfirmsIt(t *testing.T) {
	w := newListWorld(t, t.TempDir(), urlList)
	f := lists.Fetched{URL: "https://lists.example/drop.txt", Changed: w.now, Confirmed: w.now, Tried: w.now}
	w.spool(f, "203.0.113.0/24\n")
	w.look()
	w.want("203.0.113.0/24 8h0m0s")
	w.now = w.now.Add(59 * time.Minute)
	f.Confirmed = w.now
	w.spool(f, "203.0.113.0/24\n")
	w.look()
	w.want("203.0.113.0/24 7h1m0s") // not worth a renewal
	w.now = w.now.Add(time.Minute)
	f.Confirmed = w.now
	w.spool(f, "203.0.113.0/24\n")
	w.look()
	w.want("203.0.113.0/24 8h0m0s")
	w.kill()
	w.look()
	w.want("203.0.113.0/24 8h0m0s")
	// The server is gone: the last good copy counts until its end.
	w.now = w.now.Add(4 * time.Hour)
	f.Tried, f.Error = w.now, "the server answers 500"
	w.spool(f, "203.0.113.0/24\n")
	w.look()
	w.want("203.0.113.0/24 4h0m0s")
	if x := w.drop(); !strings.Contains(x.Fault, "500") || !slices.Equal(w.codes(), []string{"list-fault"}) {
		t.Errorf("%+v, %v", x, w.codes())
	}
	// A record of the future is believed until now at most.
	f.Error, f.Confirmed = "", w.now.Add(1000*time.Hour)
	w.spool(f, "203.0.113.0/24\n")
	w.look()
	w.want("203.0.113.0/24 8h0m0s")
	// Neither a list nor a record that do not agree, nor an error page, change anything.
	g := f
	w.record(g, "198.51.100.7\n")
	w.look()
	w.spool(g, "<html>\n<body>\nno\n")
	w.look()
	if x := w.drop(); !strings.Contains(x.Fault, "no list") {
		t.Errorf("%+v", x)
	}
	f.URL = "https://other.example/drop.txt"
	w.spool(f, "198.51.100.7\n")
	w.look()
	w.want("203.0.113.0/24 8h0m0s")
}

func numbered(from, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "45.0.%d.%d\n", (from+i)>>8, (from+i)&0xff)
	}
	return b.String()
}

func TestAListThatGrowsTenfoldWaitsForAPerson(t *testing.T) {
	w := newListWorld(t, t.TempDir(), fileList)
	w.write(numbered(0, 200))
	w.look()
	counted := func() int { return len(w.ledger.Peers.Imported("list:drop", "sshd")) }
	if counted() != 200 {
		t.Fatalf("%d count", counted())
	}
	w.write(numbered(0, 2000))
	w.look()
	w.look()
	x := w.drop()
	if counted() != 200 || x.Held == nil || x.Held.After != 2000 || x.Held.Added != 1800 || len(x.Held.Sample) != 5 || !slices.Equal(w.codes(), []string{"list-held"}) {
		t.Fatalf("%d count, held %+v, %v", counted(), x.Held, w.codes())
	}
	holds := 0
	for _, e := range w.events {
		if e.Kind == history.Hold {
			holds++
		}
	}
	if holds != 1 {
		t.Errorf("told %d times", holds)
	}
	w.kill()
	w.look()
	if x := w.drop(); counted() != 200 || x.Held == nil {
		t.Fatalf("after a restart %d count, held %+v", counted(), x.Held)
	}
	ctx := context.Background()
	// The person approves the edition that was shown, and no other.
	w.write(numbered(0, 1999))
	w.look()
	if _, err := w.lists.Approve(ctx, "drop", x.Held.Sum); err == nil || counted() != 200 {
		t.Errorf("an edition that nobody saw was approved: %v", err)
	}
	if _, err := w.lists.Approve(ctx, "drop", w.drop().Held.Sum); err != nil || counted() != 1999 || w.drop().Held != nil {
		t.Errorf("%v; %d count", err, counted())
	}
	w.kill()
	w.look()
	if counted() != 1999 || w.drop().Held != nil {
		t.Errorf("after a restart %d count", counted())
	}
	// One that loses most, or all, is looked at too; back at its old self it is taken.
	for _, n := range []int{100, 0} {
		w.write(numbered(0, n))
		w.look()
		if counted() != 1999 || w.drop().Held == nil {
			t.Errorf("%d entries: %d count", n, counted())
		}
	}
	w.now = w.now.Add(time.Minute)
	w.write(numbered(1, 1999))
	w.look()
	if counted() != 1999 || w.drop().Held != nil {
		t.Errorf("%d count, held %+v", counted(), w.drop().Held)
	}
	for name, want := range map[string]string{"else": "no list is named", "drop": "no edition of the list drop waits"} {
		if _, err := w.lists.Approve(ctx, name, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestADamagedCopyIsForAPerson(t *testing.T) {
	w := newListWorld(t, t.TempDir(), fileList)
	w.write("203.0.113.0/24\n")
	w.look()
	w.must(os.WriteFile(w.lists.file("drop"), []byte("damaged"), 0o600))
	w.kill()
	w.want("")
	w.look()
	x := w.drop()
	if x.Held == nil {
		t.Fatalf("%+v", x)
	}
	w.want("")
	if _, err := w.lists.Approve(context.Background(), "drop", x.Held.Sum); err != nil {
		t.Fatal(err)
	}
	w.want("203.0.113.0/24 2h0m0s")
}

func TestTheOperatorsNetworkOnAListIsRefusedAndTold(t *testing.T) {
	w := newListWorld(t, t.TempDir(), fileList)
	w.never = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	w.write("198.51.100.7\n198.51.0.0/16\n203.0.113.7\n")
	w.look()
	w.want("203.0.113.7 2h0m0s")
	if x := w.drop(); x.Never != 2 || x.Refused[0] != (control.ListRefusal{Text: "198.51.100.7", Why: "the office"}) {
		t.Errorf("%+v", x)
	}
	// Who becomes shielded later is no fault of the list's, over a restart either.
	w.never = append(w.never, netip.MustParsePrefix("203.0.113.7/32"))
	w.now = w.now.Add(time.Hour)
	w.lists.states["drop"].mark = ""
	w.write("198.51.100.7\n198.51.0.0/16\n203.0.113.7\n203.0.113.9\n")
	w.look()
	w.kill()
	w.want("203.0.113.9 2h0m0s")
	if p := w.ledger.Peers.List(); len(p) != 1 || p[0].Total != 0 {
		t.Errorf("%+v", p)
	}
	w.never = w.never[:1]
	w.now = w.now.Add(time.Second)
	w.write("198.51.100.7\n198.51.0.0/16\n203.0.113.7\n")
	w.look()
	// A million lines of junk are refused in one line of the log and one warning.
	w.write(strings.Repeat("x\n", 1_000_000) + "203.0.113.8\n")
	w.look()
	w.want("203.0.113.7 2h0m0s")
	if warnings := w.lists.warnings(); len(warnings) != 1 || !strings.Contains(warnings[0].Text, "1000000") {
		t.Errorf("%+v", warnings)
	}
}

func TestAListFollowsItsConfiguration(t *testing.T) {
	w := newListWorld(t, t.TempDir(), fileList)
	w.write("203.0.113.7\n")
	w.look()
	w.reload(strings.Replace(fileList, "'sshd'", "'sshd', 'recidive'", 1))
	w.want("203.0.113.7 2h0m0s, 203.0.113.7 2h0m0s")
	w.reload(strings.Replace(fileList, "'sshd'", "'recidive'", 1))
	w.want("203.0.113.7 2h0m0s")
	w.reload(strings.Replace(fileList, "2h", "3h", 1))
	w.want("203.0.113.7 3h0m0s")
	w.reload(strings.Replace(fileList, "ban", "watch", 1))
	w.want("")
	if !w.ledger.Watched("sshd", ban.MustTarget("203.0.113.7")) {
		t.Error("it is not watched")
	}
	w.reload(fileList)
	w.want("203.0.113.7 2h0m0s")
	// Another file is another list.
	w.must(os.WriteFile(w.dir+"/other.txt", []byte(numbered(0, 500)+"203.0.113.8\n"), 0o644))
	w.must(os.Chtimes(w.dir+"/other.txt", w.now, w.now))
	w.reload(strings.Replace(fileList, "drop.txt", "other.txt", 1))
	if n := len(w.ledger.Peers.Imported("list:drop", "sshd")); n != 501 {
		t.Errorf("%d entries of the new list count", n)
	}
	// Read in another way it is the same list, and it was a person who said so.
	other := strings.Replace(fileList, "drop.txt", "other.txt", 1)
	w.reload(other + "max_entries = 10\n")
	if x := w.drop(); x.Entries != 10 || x.Beyond != 491 || x.Held != nil || len(w.ledger.Peers.Imported("list:drop", "sshd")) != 10 {
		t.Errorf("%+v", x)
	}
	w.reload(other)
	if x := w.drop(); x.Entries != 501 || x.Held != nil || len(w.ledger.Peers.Imported("list:drop", "sshd")) != 501 {
		t.Errorf("%+v", x)
	}
	w.reload("")
	w.want("")
	if _, err := os.Stat(w.lists.file("drop")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its copy stays: %v", err)
	}
	w.reload(fileList)
	w.look()
	w.kill()
	w.configure("")
	w.kill()
	w.want("")
	if left, _ := filepath.Glob(w.dir + "/lists/*"); len(left) != 0 {
		t.Errorf("copies of lists that are not configured: %q", left)
	}
}

// Whatever happens to a list, a look later the bans are those of its last edition that
// may count.
func TestTheLastGoodEditionCounts(t *testing.T) {
	first := newListWorld(t, t.TempDir(), strings.Replace(fileList, "2h", "1000h", 1))
	first.store.Close()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		w := &listWorld{fatal: t, dir: first.dir, state: filepath.Join(first.dir, fmt.Sprint(run)), now: listTime, settings: first.settings}
		w.must(os.Mkdir(w.state, 0o700))
		if err := os.Remove(w.dir + "/drop.txt"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%v", err)
		}
		w.open()
		defer func() { w.store.Close() }()
		want := map[string]bool{}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			w.now = w.now.Add(time.Second)
			switch rapid.SampledFrom([]string{"edition", "edition", "junk", "gone", "kill", "reload"}).Draw(t, "step") {
			case "edition":
				var list []string
				for i := range 6 {
					if rapid.Bool().Draw(t, "listed") {
						list = append(list, fmt.Sprintf("198.51.100.%d", i))
					}
				}
				w.write(strings.Join(list, "\n"))
				w.look()
				if len(list) > 0 || len(want) == 0 { // an empty one waits
					want = map[string]bool{}
					for _, x := range list {
						want[x] = true
					}
				}
			case "junk":
				w.write("no\nlist\n198.51.100.9\n")
				w.look()
			case "gone":
				if err := os.Remove(w.dir + "/drop.txt"); err == nil {
					w.look()
				}
			case "kill":
				w.kill()
			case "reload":
				w.must(w.lists.changed(context.Background()))
			}
			got := map[string]bool{}
			for _, e := range w.ledger.Enforcement.Desired() {
				got[e.Target.String()] = true
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%v is banned, want %v", got, want)
			}
		}
	})
}
