// Command benchgate measures the wallet gate with a million denied wallets
// beside a bare handler in the same run, and the client package's checks in a
// million addresses and a million wallets. It prints a line a figure.
//
//	go run ./test/livepeer/benchgate
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/client"
	"banmesh/internal/ban"
	"banmesh/internal/export"
	"banmesh/internal/gate"
	"banmesh/internal/wallet"
	"banmesh/test/livepeer"
)

const secretPath = "00112233445566778899aabbccddeeff"

// walletAt gives the n-th wallet of the benchmark's list.
func walletAt(n int) (w [20]byte) {
	r := rand.New(rand.NewPCG(uint64(n), 42))
	binary.LittleEndian.PutUint64(w[:], r.Uint64())
	binary.LittleEndian.PutUint64(w[8:], r.Uint64())
	binary.LittleEndian.PutUint32(w[16:], r.Uint32())
	return w
}

// addrAt gives the n-th address: every fourth or so of 10.0.0.0/8 and its
// neighbours, spread.
func addrAt(n int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n)*2654435761)
	return netip.AddrFrom4(b)
}

// denied answers from the table of bans in force, as the agent's does.
type denied struct{ table *export.Table }

func (d denied) Denied(w [20]byte) (gate.Denial, bool) {
	t, err := ban.TargetOfWallet(w)
	if err != nil {
		return gate.Denial{}, false
	}
	found := d.table.Check(t)
	if len(found) == 0 {
		return gate.Denial{}, false
	}
	return gate.Denial{Topic: found[0].Topic, Class: found[0].Class, Until: found[0].Until}, true
}

func main() {
	count := flag.Int("bans", 1_000_000, "denied wallets, and as many banned addresses")
	calls := flag.Int("calls", 20_000, "calls of each kind")
	flag.Parse()
	if err := run(context.Background(), *count, *calls); err != nil {
		fmt.Fprintln(os.Stderr, "benchgate: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, count, calls int) error {
	table := export.NewTable(nil)
	until := time.Now().Add(24 * time.Hour)
	for n := 0; n < count; n += 1000 {
		var batch []export.Entry
		for i := n; i < min(n+1000, count); i++ {
			w, err := ban.TargetOfWallet(walletAt(i))
			if err != nil {
				return err
			}
			a, err := ban.TargetOfAddr(addrAt(i))
			if err != nil {
				return err
			}
			batch = append(batch, export.Entry{Target: w, Topic: "broadcaster-addresses", Until: until}, export.Entry{Target: a, Topic: "livepeer", Until: until})
		}
		table.Apply(batch, nil)
	}
	if err := measureGate(ctx, table, count, calls); err != nil {
		return err
	}
	return measureClient(ctx, table, count)
}

// measureGate asks the gate and a bare handler by turns.
func measureGate(ctx context.Context, table *export.Table, count, calls int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := gate.New(gate.Options{Wallets: denied{table}, Log: slog.New(slog.DiscardHandler), Path: secretPath})
	if err != nil {
		return err
	}
	l, _, err := gate.Listen("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	gateDone := make(chan error, 1)
	go func() { gateDone <- g.Run(ctx, l) }()
	bareListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	bare := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "{}")
	})}
	bare.SetKeepAlivesEnabled(false)
	bareDone := make(chan error, 1)
	go func() { bareDone <- bare.Serve(bareListener) }()

	kept := &http.Server{Handler: bare.Handler}
	keptListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	keptDone := make(chan error, 1)
	go func() { keptDone <- kept.Serve(keptListener) }()

	pass := livepeer.Orchestrator{URL: g.URL(l), Client: http.DefaultClient}
	base := livepeer.Orchestrator{URL: "http://" + bareListener.Addr().String(), Client: http.DefaultClient}
	alive := livepeer.Orchestrator{URL: "http://" + keptListener.Addr().String(), Client: http.DefaultClient}
	var tookBare, tookAlive, tookPass, tookDenied []time.Duration
	timed := func(o livepeer.Orchestrator, who [20]byte, into *[]time.Duration, refuse bool) error {
		text := wallet.Format(who)
		began := time.Now()
		_, err := o.Authenticate(text)
		*into = append(*into, time.Since(began))
		if (err != nil) != refuse {
			return fmt.Errorf("%s: %v", text, err)
		}
		return nil
	}
	for n := range calls {
		stranger := walletAt(count + n)
		for _, c := range []struct {
			o      livepeer.Orchestrator
			who    [20]byte
			into   *[]time.Duration
			refuse bool
		}{{base, stranger, &tookBare, false}, {pass, stranger, &tookPass, false}, {pass, walletAt(n % count), &tookDenied, true}, {alive, stranger, &tookAlive, false}} {
			if err := timed(c.o, c.who, c.into, c.refuse); err != nil {
				return err
			}
		}
	}
	cancel()
	bare.Close()
	kept.Close()
	<-bareDone
	<-keptDone
	if err := <-gateDone; err != nil {
		return err
	}
	http.DefaultClient.CloseIdleConnections()
	p99 := func(d []time.Duration) (half, most float64) {
		slices.Sort(d)
		return d[len(d)/2].Seconds() * 1e3, d[len(d)*99/100].Seconds() * 1e3
	}
	for _, f := range []struct {
		name string
		took []time.Duration
		aim  string
	}{{"gate-bare-handler", tookBare, "-"}, {"gate-bare-handler-keepalive", tookAlive, "-"}, {"gate-allowed", tookPass, "<1"}, {"gate-denied", tookDenied, "<1"}} {
		half, most := p99(f.took)
		fmt.Printf("figure %s-p50 %.3f ms aim -\n", f.name, half)
		fmt.Printf("figure %s-p99 %.3f ms aim %s\n", f.name, most, f.aim)
	}
	_, b := p99(tookBare)
	_, p := p99(tookPass)
	fmt.Printf("figure gate-allowed-p99-by-bare %.2f times aim -\n", p/b)
	return nil
}

// heap gives the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// threadTime gives the processor time of the calling thread, so that others on
// the machine, who would double the time on the wall, count less.
func threadTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err) // RUSAGE_THREAD is as old as Linux 2.6.26
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measureClient lets a client take the table over a unix socket and times its
// checks.
func measureClient(ctx context.Context, table *export.Table, count int) error {
	h, err := export.New(export.Options{Bans: table, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	h.Register(mux)
	dir, err := os.MkdirTemp("", "benchgate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return err
	}
	s := &http.Server{Handler: mux}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() { s.Close(); <-done }()

	before := heap()
	began := time.Now()
	c, err := client.Open(ctx, client.Options{Socket: filepath.Join(dir, "s")})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	fmt.Printf("figure client-snapshot %.2f s aim -\n", time.Since(began).Seconds())
	if got := c.Status().Bans; got != 2*count {
		return fmt.Errorf("the client knows %d bans, want %d", got, 2*count)
	}
	fmt.Printf("figure client-memory-%d-bans %d MB aim -\n", 2*count, (heap()-before)>>20)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const asked = 1 << 13
	var strangers, known [asked]netip.Addr
	var strangeWallets, knownWallets [asked][20]byte
	for i := range asked {
		strangers[i], known[i] = addrAt(count+i), addrAt(i*97%count)
		strangeWallets[i], knownWallets[i] = walletAt(count+i), walletAt(i*97%count)
	}
	for _, f := range []struct {
		name  string
		check func(int) bool
		want  bool
		aim   string
	}{
		{"client-ip-not-banned", func(i int) bool { return c.IP(strangers[i%asked]) }, false, "<100"},
		{"client-ip-banned", func(i int) bool { return c.IP(known[i%asked]) }, true, "-"},
		{"client-wallet-not-denied", func(i int) bool { return c.Wallet(strangeWallets[i%asked]) }, false, "<100"},
		{"client-wallet-denied", func(i int) bool { return c.Wallet(knownWallets[i%asked]) }, true, "-"},
	} {
		wrong := 0
		var rounds []float64
		for range 7 {
			const checks = 200_000
			began := threadTime()
			for i := range checks {
				if f.check(i) != f.want {
					wrong++
				}
			}
			rounds = append(rounds, float64((threadTime()-began).Nanoseconds())/checks)
		}
		if wrong > 0 {
			return fmt.Errorf("%s: %d wrong answers", f.name, wrong)
		}
		slices.Sort(rounds)
		fmt.Printf("figure %s %.1f ns aim %s\n", f.name, rounds[len(rounds)/2], f.aim)
	}
	if s := c.Status(); !s.Connected {
		return fmt.Errorf("the client lost the agent: %s", s.Error)
	}
	return nil
}
