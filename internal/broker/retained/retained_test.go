package retained

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"banmesh/internal/store"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		os.Exit(m.Run()) // the fuzzer leaves goroutines of its own
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

func openStore(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path, func(topic string) string { return topic[:1] }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// running runs a store and gives a function that stops it.
func running(t testing.TB, s *Store) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func message(topic, payload string, number uint64) *Message {
	return &Message{Topic: topic, Payload: []byte(payload), QoS: 1, Epoch: 7, Number: number, Received: time.Unix(1700000000, 0)}
}

// put waits until a message is durable.
func put(t testing.TB, s *Store, m *Message) {
	t.Helper()
	if _, err := s.Put(m, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsDurableComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	s := openStore(t, path)
	stop := running(t, s)
	put(t, s, message("a/1", "one", 1))
	put(t, s, message("a/1", "two", 2))
	put(t, s, message("b/1", "three", 3))
	put(t, s, message("b/2", "gone", 4))
	if _, err := s.Delete("b/2"); err != nil {
		t.Fatal(err)
	}
	stop()
	s = openStore(t, path)
	running(t, s)
	m := s.Get("a/1")
	if m == nil || string(m.Payload) != "two" || m.Number != 2 || m.Epoch != 7 || m.QoS != 1 || m.Received.Unix() != 1700000000 || m.Owner != "a" {
		t.Errorf("got %+v", m)
	}
	if s.Get("b/2") != nil || len(s.Match("+/1")) != 2 || len(s.All()) != 2 {
		t.Error("the wrong messages came back")
	}
	st := s.Standing("a")
	of, all := st.Owner, st.All
	if of.Messages != 1 || all.Messages != 2 || all.Bytes != 2*overhead+len("a/1two")+len("b/1three") {
		t.Errorf("usage %+v of %+v", of, all)
	}
}

// Copying the file at the moment of each acknowledgement gives the file that a power cut
// leaves behind.
func TestWhatWasAcknowledgedIsOnDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.db")
	s := openStore(t, path)
	running(t, s)
	for i := range uint64(20) {
		put(t, s, message(fmt.Sprint("t/", i), "x", i))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, fmt.Sprint("copy", i))
		if err := os.WriteFile(copied, b, 0o600); err != nil {
			t.Fatal(err)
		}
		again := openStore(t, copied)
		if got := again.Status().Messages; got != int(i)+1 {
			t.Errorf("%d messages on disk after %d acknowledgements", got, i+1)
		}
		if err := again.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChangesAreNumberedAndWrittenInGroups(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "r.db"))
	told := make(chan uint64, 10)
	s.OnDurable(func(n uint64) { told <- n })
	const n = 2000
	for i := range uint64(n) {
		if got, err := s.Put(message(fmt.Sprint("t/", i%10), "x", i), nil); err != nil || got != i+1 {
			t.Fatalf("change %d has number %d, %v", i+1, got, err)
		}
	}
	running(t, s)
	if got := <-told; got != n {
		t.Errorf("durable up to %d, want %d", got, n)
	}
	if c := s.Status().Commits; c != 1 {
		t.Errorf("%d messages took %d groups", n, c)
	}
}

// A judge sees the message that is replaced and no other, however many put at
// once.
func TestOfRacingMessagesTheNewestStays(t *testing.T) {
	s := openStore(t, "")
	older := errors.New("older")
	for round := range 200 {
		topic := fmt.Sprint("t/", round)
		var all sync.WaitGroup
		for i := range uint64(8) {
			all.Go(func() {
				_, err := s.Put(message(topic, "x", i), func(old *Message, _ Standing) error {
					if old != nil && old.Number > i {
						return older
					}
					return nil
				})
				if err != nil && !errors.Is(err, older) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if m := s.Get(topic); m.Number != 7 {
			t.Fatalf("number %d stayed", m.Number)
		}
	}
}

func TestAGroupIsAsOldAsItsFirstMessageAcrossRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	now := time.Hour
	open := func() (*Store, func()) {
		s, err := Open(path, func(topic string) string { return topic }, quiet)
		if err != nil {
			t.Fatal(err)
		}
		s.TestingOnlyElapsed(func() time.Duration { return now })
		return s, running(t, s)
	}
	s, stop := open()
	put(t, s, message("old/1", "x", 1))
	now = 3 * time.Hour
	put(t, s, message("new/1", "x", 1))
	put(t, s, message("old/1", "y", 2))
	stop()
	now = time.Hour // of the second run
	s, _ = open()
	var names []string
	s.Newest(func(name string, u Usage, age time.Duration) bool {
		names = append(names, fmt.Sprint(name, " ", u.Messages, " ", age))
		return true
	})
	if got := fmt.Sprint(names); got != "[new 1 1h0m0s old 1 3h0m0s]" {
		t.Error(got)
	}
	if _, err := s.Delete("new/1"); err != nil {
		t.Fatal(err)
	}
	put(t, s, message("new/1", "x", 1))
	if age := s.Standing("new/1").Age; age != 0 {
		t.Errorf("a group that had gone is %v old", age)
	}
}

func TestADiskThatFailsLosesNothingAndAcknowledgesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	s := openStore(t, path)
	// A file that is closed stands for a disk that takes nothing.
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	acked := make(chan uint64, 1)
	s.OnDurable(func(n uint64) { acked <- n })
	if _, err := s.Put(message("a/1", "one", 1), nil); err != nil {
		t.Fatal(err)
	}
	if s.commit() == nil {
		t.Fatal("the disk took it")
	}
	st := s.Status()
	if st.Fault == "" || st.Pending != 1 || len(acked) != 0 {
		t.Errorf("after the failure: %+v", st)
	}
	if m := s.Get("a/1"); m == nil {
		t.Error("readers lost it")
	}
	// A newer message of the topic is not undone by the old one's retry.
	if _, err := s.Put(message("a/1", "two", 2), nil); err != nil {
		t.Fatal(err)
	}
	if s.commit() == nil {
		t.Fatal("the disk took it")
	}
	var err error
	if s.db, err = store.OpenAs("broker", path); err != nil {
		t.Fatal(err)
	}
	if err := s.commit(); err != nil {
		t.Fatal(err)
	}
	if n := <-acked; n != 2 {
		t.Errorf("durable up to %d", n)
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path)
	running(t, s)
	if m := s.Get("a/1"); m == nil || string(m.Payload) != "two" {
		t.Errorf("on disk: %+v", m)
	}
}

func TestADiskThatHangsBoundsMemory(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "r.db"))
	big := string(bytes.Repeat([]byte("x"), 1<<20))
	var err error
	for i := range 200 {
		if _, err = s.Put(message(fmt.Sprint("t/", i), big, 1), nil); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrBusy) {
		t.Errorf("200 MB waited: %v", err)
	}
	running(t, s)
}

// One topic that is put again and again waits once.
func TestAReplacedMessageDoesNotWaitTwice(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "r.db"))
	big := string(bytes.Repeat([]byte("x"), 1<<20))
	for i := range uint64(200) {
		if _, err := s.Put(message("t/1", big, i), nil); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	running(t, s)
}

// filled is the used part of a store's file with a thousand messages in it.
func filled(t *testing.T) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "r.db")
	s := openStore(t, path)
	stop := running(t, s)
	for i := range uint64(1000) {
		if _, err := s.Put(message(fmt.Sprint("t/", i), string(bytes.Repeat([]byte{byte(i)}, 900)), i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size, err := store.UsedSize(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, content[:size] // without the room that bbolt takes ahead
}

// reopened opens the rest of a file. It wants a clear refusal, or all
// messages as they were.
func reopened(t *testing.T, name, path string, content []byte) (refused bool) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, nil, quiet)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		return true
	}
	defer s.db.Close()
	for i := range uint64(1000) {
		m := s.Get(fmt.Sprint("t/", i))
		if m == nil || !bytes.Equal(m.Payload, bytes.Repeat([]byte{byte(i)}, 900)) || m.Number != i {
			t.Errorf("%s: message %d is served as %+v", name, i, m)
			break
		}
	}
	return false
}

func TestATruncatedFileIsAClearRefusal(t *testing.T) {
	path, content := filled(t)
	for i := range 20 {
		n := len(content) * i / 20
		if n > 0 && !reopened(t, fmt.Sprintf("%d of %d bytes", n, len(content)), path, content[:n]) {
			t.Errorf("%d of %d bytes: served", n, len(content))
		}
	}
}

func TestFlippedBitsAreNotServed(t *testing.T) {
	path, content := filled(t)
	refused := 0
	const n = 200
	for i := range n {
		flipped := bytes.Clone(content)
		at := len(content) / n * i
		flipped[at+i%37] ^= 1 << (i % 8)
		if reopened(t, fmt.Sprintf("a bit at %d", at), path, flipped) {
			refused++
		}
	}
	if refused < n/4 { // half of the pages are free
		t.Errorf("%d of %d were noticed", refused, n)
	}
}

func TestADamagedFileIsAClearRefusal(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"text":    []byte("hello"),
		"zeros":   make([]byte, 64<<10),
		"garbage": bytes.Repeat([]byte{0xa5}, 64<<10),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, nil, quiet); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(dir, nil, quiet); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a directory: %v", err)
	}
}

func TestASecondBrokerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	s := openStore(t, path)
	running(t, s)
	if _, err := Open(path, nil, quiet); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v", err)
	}
}

func TestABackupOpens(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "r.db"))
	running(t, s)
	put(t, s, message("a/1", "one", 1))
	to := filepath.Join(dir, "backup.db")
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Backup(f); errors.Join(err, f.Close()) != nil {
		t.Fatal(err)
	}
	again := openStore(t, to)
	running(t, again)
	if m := again.Get("a/1"); m == nil || string(m.Payload) != "one" {
		t.Errorf("in the backup: %+v", m)
	}
}

func TestAStoreWithoutAFileAcknowledgesAtOnce(t *testing.T) {
	s := openStore(t, "")
	put(t, s, message("a/1", "one", 1))
	if n, err := s.Backup(io.Discard); !errors.Is(err, ErrMemory) || n != 0 {
		t.Errorf("there is nothing to back up: %d, %v", n, err)
	}
	running(t, s)
}

func TestAClosedStoreSaysSo(t *testing.T) {
	s := openStore(t, "")
	running(t, s)()
	if _, err := s.Put(message("a/1", "one", 1), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func FuzzARecordNeverPanics(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encodeRecord(message("a/1", "one", 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeRecord("t", b)
		if err == nil && !bytes.Equal(encodeRecord(m), b) {
			t.Errorf("%x reads as %+v", b, m)
		}
	})
}

// A group that began in the store's first second has the age 0 in the file,
// which was taken for no age: the store then called itself damaged.
func TestAGroupOfTheFirstSecondComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	now := time.Duration(0)
	open := func() (*Store, func()) {
		s := openStore(t, path)
		s.TestingOnlyElapsed(func() time.Duration { return now })
		return s, running(t, s)
	}
	s, stop := open()
	put(t, s, message("a/1", "x", 1))
	now = 3 * time.Second
	put(t, s, message("a/1", "y", 2))
	put(t, s, message("a/2", "z", 1))
	stop()
	s, _ = open()
	if m := s.Get("a/1"); m == nil || string(m.Payload) != "y" {
		t.Errorf("the message came back as %+v", m)
	}
	if age := s.Standing("a/1").Age; age != 6*time.Second {
		t.Errorf("the group is %v old", age)
	}
}
