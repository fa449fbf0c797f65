package retained

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
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

// running runs a store and gives what stops it.
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
	done := make(chan error, 1)
	if err := s.Put(m, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
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
	if err := s.Delete("b/2", nil); err != nil {
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
	of, all := s.Usage("a")
	if of.Messages != 1 || all.Messages != 2 || all.Bytes != 2*overhead+len("a/1two")+len("b/1three") {
		t.Errorf("usage %+v of %+v", of, all)
	}
}

// Copying the file at the moment of each acknowledgement is what a power cut
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

func TestAcknowledgementsComeInOrderAndInGroups(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "r.db"))
	const n = 2000
	order := make(chan int, n)
	for i := range n {
		if err := s.Put(message(fmt.Sprint("t/", i%10), "x", uint64(i)), func(error) { order <- i }); err != nil {
			t.Fatal(err)
		}
	}
	running(t, s)
	for i := range n {
		if got := <-order; got != i {
			t.Fatalf("acknowledgement %d came as number %d", got, i)
		}
	}
	if c := s.Status().Commits; c != 1 {
		t.Errorf("%d messages took %d groups", n, c)
	}
}

func TestADiskThatFailsLosesNothingAndAcknowledgesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	s := openStore(t, path)
	// A read-only handle stands for a disk that takes nothing.
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	acked := make(chan error, 1)
	if err := s.Put(message("a/1", "one", 1), func(err error) { acked <- err }); err != nil {
		t.Fatal(err)
	}
	if s.commit() == nil {
		t.Fatal("the disk took it")
	}
	st := s.Status()
	if st.Fault == "" || st.Pending != 1 || st.Waiting != 1 || len(acked) != 0 {
		t.Errorf("after the failure: %+v", st)
	}
	if m := s.Get("a/1"); m == nil {
		t.Error("readers lost it")
	}
	// A newer message of the topic is not undone by the old one's retry.
	if err := s.Put(message("a/1", "two", 2), nil); err != nil {
		t.Fatal(err)
	}
	if s.commit() == nil {
		t.Fatal("the disk took it")
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	if s.db, err = bbolt.Open(path, 0o600, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-acked; err != nil {
		t.Error(err)
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
		if err = s.Put(message(fmt.Sprint("t/", i), big, 1), nil); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrBusy) {
		t.Errorf("200 MB waited: %v", err)
	}
	running(t, s)
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

func TestABackupOpensAndOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "r.db"))
	running(t, s)
	put(t, s, message("a/1", "one", 1))
	to := filepath.Join(dir, "backup.db")
	if err := s.Backup(to); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(to); !errors.Is(err, os.ErrExist) {
		t.Errorf("the second backup: %v", err)
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
	if err := s.Backup("x"); err == nil {
		t.Error("there is nothing to back up")
	}
	running(t, s)
}

func TestAClosedStoreSaysSo(t *testing.T) {
	s := openStore(t, "")
	running(t, s)()
	if err := s.Put(message("a/1", "one", 1), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func FuzzARecordNeverPanics(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encodeRecord(message("a/1", "one", 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeRecord([]byte("t"), b)
		if err == nil && !bytes.Equal(encodeRecord(m), b) {
			t.Errorf("%x reads as %+v", b, m)
		}
	})
}
