package f2bbans

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// script makes a database as fail2ban 1.0 does, with rows that need overflow
// pages and a tree of several levels.
const script = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("PRAGMA page_size = " + sys.argv[3])
db.execute("CREATE TABLE jails(name TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL DEFAULT 1)")
db.execute("CREATE TABLE bips(ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL, bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY(ip, jail), FOREIGN KEY(jail) REFERENCES jails(name))")
db.execute("CREATE TABLE bans(jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL, bancount INTEGER NOT NULL default 1, data JSON)")
for i in range(int(sys.argv[2])):
    db.execute("INSERT INTO bips VALUES(?,?,?,?,?,?)", ("192.0.%d.%d" % (i // 256, i % 256), "sshd", 1700000000 + i, -1 if i == 3 else 600 * i, 1, '{"matches": "' + "x" * (i * 7 % 9000) + '"}'))
db.execute("DELETE FROM bips WHERE timeofban = 1700000001")
db.commit()
`

func written(t testing.TB, rows, page int) string {
	path := filepath.Join(t.TempDir(), "fail2ban.sqlite3")
	out, err := exec.Command("python3", "-c", script, path, fmt.Sprint(rows), fmt.Sprint(page)).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("python3, which writes the database as fail2ban does, is not installed")
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestBansAreReadAsSQLiteWroteThem(t *testing.T) {
	for _, page := range []int{512, 4096, 65536} {
		const rows = 2000
		bans, err := Read(written(t, rows, page))
		if err != nil {
			t.Fatal(err)
		}
		if len(bans) != rows-1 {
			t.Fatalf("pages of %d: %d bans, want %d", page, len(bans), rows-1)
		}
		seen := map[string]bool{}
		for _, b := range bans {
			i := int(b.At.Unix() - 1700000000)
			want := Ban{Jail: "sshd", IP: fmt.Sprintf("192.0.%d.%d", i/256, i%256), At: time.Unix(1700000000+int64(i), 0), For: time.Duration(600*i) * time.Second}
			if i == 3 {
				want.For = -time.Second
			}
			if b != want {
				t.Errorf("pages of %d: got %+v, want %+v", page, b, want)
			}
			seen[b.IP] = true
		}
		if len(seen) != rows-1 || seen["192.0.0.1"] {
			t.Errorf("pages of %d: %d addresses; deleted one there: %t", page, len(seen), seen["192.0.0.1"])
		}
	}
}

func TestWhatIsLeftOfABan(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		ban  Ban
		left time.Duration
		ok   bool
	}{
		"in force":       {Ban{At: now.Add(-time.Minute), For: time.Hour}, 59 * time.Minute, true},
		"over":           {Ban{At: now.Add(-time.Hour), For: time.Hour}, 0, false},
		"for good":       {Ban{At: now.Add(-time.Hour), For: -time.Second}, Longest, true},
		"for very long":  {Ban{At: now, For: 10 * Longest}, Longest, true},
		"from long ago ": {Ban{At: time.Unix(0, 0), For: time.Hour}, 0, false},
	} {
		if left, ok := c.ban.Left(now); ok != c.ok || ok && left != c.left {
			t.Errorf("%s: %v, %t", name, left, ok)
		}
	}
}

func TestWhatIsNoDatabaseIsSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); !errors.Is(err, ErrDatabase) {
		t.Errorf("got %v", err)
	}
	if _, err := Read(path + "-missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, page := range []int{512, 4096} {
		b, err := os.ReadFile(written(f, 30, page))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		bans, err := Parse(b)
		if err != nil && !errors.Is(err, ErrDatabase) {
			t.Error(err)
		}
		if len(bans) > len(b) {
			t.Errorf("%d bans in %d bytes", len(bans), len(b))
		}
	})
}
