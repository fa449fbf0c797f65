package neverban

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/ban"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree writes files below a new root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func utmp(kind uint16, user, line, host string, addr [16]byte) string {
	b := make([]byte, 384)
	binary.NativeEndian.PutUint16(b, kind)
	copy(b[8:], line)
	copy(b[44:], user)
	copy(b[76:], host)
	copy(b[348:], addr[:])
	return string(b)
}

func network() (Network, error) {
	return Network{
		Addresses: []Address{
			{Prefix: netip.MustParsePrefix("127.0.0.1/8"), Interface: "lo"},
			{Prefix: netip.MustParsePrefix("8.8.4.20/24"), Interface: "eth0"},
			{Prefix: netip.MustParsePrefix("2a00:1::5/64"), Interface: "eth0"},
			{Prefix: netip.MustParsePrefix("9.17.0.1/16"), Interface: "docker0", Kind: "bridge"},
			{Prefix: netip.MustParsePrefix("9.18.0.1/16"), Interface: "br0", Kind: "bridge"},
			{Prefix: netip.MustParsePrefix("9.19.0.2/24"), Interface: "wg0", Kind: "wireguard"},
			{Prefix: netip.MustParsePrefix("9.20.0.2/32"), Peer: netip.MustParsePrefix("9.20.0.1/32"), Interface: "ppp0", Kind: "ppp"},
		},
		Gateways: []Gateway{{Addr: netip.MustParseAddr("8.8.4.1"), Interface: "eth0", Default: true}},
	}, nil
}

func TestEverythingThatANodeNeedsIsFound(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/resolv.conf":                 "# managed\nnameserver 127.0.0.53\noptions edns0\n",
		"run/systemd/resolve/resolv.conf": "nameserver 9.9.9.9\nnameserver fe80::1%eth0\n",
		"etc/chrony/chrony.conf":          "pool pool.example.org iburst\nserver 9.1.1.1 iburst\n",
		"proc/net/udp":                    "  sl  local_address rem_address   st\n 100: 14040808:8A2F 02010109:007B 01 00000000:00000000 00:00000000 00000000 0 0 77 2\n",
		"run/utmp":                        utmp(7, "root", "pts/0", "9.2.2.2", [16]byte{}) + utmp(8, "gone", "pts/1", "9.2.2.3", [16]byte{}) + utmp(7, "eve", "pts/2", "host.example", [16]byte{9, 2, 2, 4}),
		"run/systemd/sessions/3":          "UID=0\nUSER=root\nREMOTE=1\nREMOTE_HOST=9.2.2.5\nSTATE=active\n",
		"run/systemd/sessions/4":          "UID=0\nREMOTE=0\nREMOTE_HOST=9.2.2.6\n",
		"proc/41/cmdline":                 "sshd: alice@pts/3\x00\x00",
		"proc/41/fd/4":                    "-> socket:[1001]",
		"proc/42/cmdline":                 "sshd: root [priv]\x00",
		"proc/42/fd/4":                    "-> socket:[1002]",
		"proc/43/cmdline":                 "sshd-session: bob@notty\x00",
		"proc/43/fd/4":                    "-> socket:[1003]",
		"proc/net/tcp":                    "  sl\n 0: 14040808:0016 07020209:C001 01 0:0 0:0 0 0 0 1001 1\n 1: 14040808:0016 08020209:C001 01 0:0 0:0 0 0 0 1002 1\n",
		"proc/net/tcp6":                   "  sl\n 0: 0000000000000000FFFF000014040808:0016 0000000000000000FFFF000009020209:C001 01 0:0 0:0 0 0 0 1003 1\n",
		"etc/systemd/timesyncd.conf":      "[Time]\n#NTP=\nNTP=9.1.1.9\n",
		"run/systemd/sessions/not/a/file": "REMOTE=1\n",
	})
	set, entries, err := Discover(context.Background(), Options{
		Root: root, Network: network, Now: time.Unix(1_800_000_000, 0),
		Brokers: []string{"broker.example.org", "9.3.3.3"},
		Extra: []Entry{
			{Prefix: netip.MustParsePrefix("9.4.4.0/24"), Source: SourceManual, Reason: "office"},
			{Prefix: netip.MustParsePrefix("9.5.5.0/24"), Source: SourceManual, Until: time.Unix(1_700_000_000, 0)},
		},
		Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			switch name {
			case "broker.example.org":
				return []netip.Addr{netip.MustParseAddr("9.3.3.4"), netip.MustParseAddr("2a00:2::1")}, nil
			}
			return nil, errors.New("no such name")
		},
	})
	if err == nil || !strings.Contains(err.Error(), "pool.example.org") {
		t.Errorf("the name that cannot be looked up is not reported: %v", err)
	}
	for target, want := range map[string]Source{
		"127.0.0.1":     SourceOwn,
		"127.3.3.3":     SourceBogon,
		"8.8.4.20":      SourceOwn,
		"8.8.4.1":       SourceGateway,
		"8.8.4.0/24":    SourceGateway,
		"0.0.0.0/1":     SourceManual,
		"2a00:1::/64":   SourceOwn,
		"9.17.5.5":      SourceContainer,
		"9.19.0.77":     SourceVPN,
		"9.20.0.1":      SourceVPN,
		"9.9.9.9":       SourceResolver,
		"9.1.1.1":       SourceTime,
		"9.1.1.2":       SourceTime,
		"9.1.1.9":       SourceTime,
		"9.3.3.3":       SourceBroker,
		"2a00:2::/64":   SourceBroker,
		"9.2.2.2":       SourceAdmin,
		"9.2.2.4":       SourceAdmin,
		"9.2.2.5":       SourceAdmin,
		"9.2.2.7":       SourceAdmin,
		"9.2.2.9":       SourceAdmin,
		"9.4.4.200":     SourceManual,
		"10.1.2.3":      SourceBogon,
		"2001:db8::1":   SourceBogon,
		"100.64.0.0/16": SourceBogon,
		"240.0.0.1":     SourceBogon,
	} {
		p, _ := ban.MustTarget(target).Prefix()
		e, ok := set.Overlaps(p)
		if target == "0.0.0.0/1" {
			if !ok {
				t.Errorf("%s is not protected", target)
			}
			continue
		}
		if !ok || e.Source != want {
			t.Errorf("%s is protected by %v (%v), want %s", target, e, ok, want)
		}
	}
	for _, target := range []string{"8.8.4.21", "8.8.5.0/24", "2a00:1:0:1::/64", "9.18.0.5", "9.2.2.3", "9.2.2.6", "9.2.2.8", "9.5.5.5"} {
		if why, ok := set.Protects(ban.MustTarget(target)); ok {
			t.Errorf("%s is protected by %s and should not be", target, why)
		}
	}
	if why, ok := set.Protects(ban.MustTarget("0xabcdefabcdefabcdefabcdefabcdefabcdefabcd")); ok {
		t.Errorf("a wallet is protected by %s", why)
	}
	for _, e := range entries {
		if e.Reason == "" && e.Source != SourceManual {
			t.Errorf("%v has no reason", e)
		}
	}
}

func TestPrivateNeighboursCanBeLeftToTheNodesOwnDetection(t *testing.T) {
	_, entries, err := Discover(context.Background(), Options{Root: t.TempDir(), Network: network})
	if err != nil {
		t.Fatal(err)
	}
	local := NewSet(WithoutPrivate(entries))
	for target, want := range map[string]bool{"10.1.1.1": false, "127.0.0.1": true, "8.8.4.1": true, "192.0.2.1": true, "fd00::1": false, "224.0.0.1": true} {
		if _, ok := local.Protects(ban.MustTarget(target)); ok != want {
			t.Errorf("%s protected: %v", target, ok)
		}
	}
	lab := NewSet(Bogons([]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}))
	if _, ok := lab.Protects(ban.MustTarget("198.51.100.7")); ok {
		t.Error("a lab network is protected")
	}
}

func TestThisMachineIsFound(t *testing.T) {
	set, entries, err := Discover(context.Background(), Options{})
	if err != nil {
		t.Log(err) // a container may hide some of it
	}
	if _, ok := set.Protects(ban.MustTarget("127.0.0.1")); !ok {
		t.Errorf("loopback is not protected by %v", entries)
	}
	n, err := kernel()
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Addresses) == 0 {
		t.Error("the kernel knows no address")
	}
	for _, a := range n.Addresses {
		if target, err := ban.TargetOfAddr(a.Prefix.Addr().WithZone("")); err == nil {
			if _, ok := set.Protects(target); !ok {
				t.Errorf("own address %v is not protected", a)
			}
		}
	}
}

func TestWatchingStopsCleanly(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Watch(ctx, func() {}) }()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not stop")
	}
}

func FuzzHostileTables(f *testing.F) {
	f.Add([]byte(" 0: 0100007F:0016 0100007F:C001 01 0:0 0:0 0 0 0 1 1\n"))
	f.Add([]byte(utmp(7, "a", "b", "1.2.3.4", [16]byte{1})))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseUtmp(b)
		authenticated(b)
		lines(b)
	})
}
