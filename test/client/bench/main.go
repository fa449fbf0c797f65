// Command bench measures the client module with a million addresses and a million
// wallets: how long it takes to learn them from the agent's own handlers, the
// memory that they take, and its checks. It prints a line a figure.
//
//	go run ./test/client/bench
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"banmesh.example/client"
	"banmesh/internal/ban"
	"banmesh/internal/export"
	"banmesh/test/livepeer"
)

// walletAt gives the n-th wallet of the benchmark's list.
func walletAt(n int) (w [20]byte) {
	r := rand.New(rand.NewPCG(uint64(n), 42))
	binary.LittleEndian.PutUint64(w[:], r.Uint64())
	binary.LittleEndian.PutUint64(w[8:], r.Uint64())
	binary.LittleEndian.PutUint32(w[16:], r.Uint32())
	return w
}

// addrAt gives the n-th address, spread over all.
func addrAt(n int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n)*2654435761)
	return netip.AddrFrom4(b)
}

func main() {
	count := flag.Int("bans", 1_000_000, "denied wallets, and as many banned addresses")
	follow := flag.String("follow", "", "measure the agent's side behind a socket: the benchmark's own second half")
	flag.Parse()
	run := serve
	if *follow != "" {
		run = func(ctx context.Context, count int) error { return measure(ctx, *follow, count) }
	}
	if err := run(context.Background(), *count); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// serve plays the agent, in a process of its own, as the agent is one.
func serve(ctx context.Context, count int) error {
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
	h, err := export.New(export.Options{Bans: table, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	h.Register(mux)
	dir, err := os.MkdirTemp("", "benchclient")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: mux}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() { s.Close(); <-done }()
	c := exec.CommandContext(ctx, os.Args[0], "-bans", fmt.Sprint(count), "-follow", socket)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}

// heap gives the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// measure follows the agent and times the checks.
func measure(ctx context.Context, socket string, count int) error {
	before := heap()
	began := time.Now()
	c, err := client.Open(ctx, client.Options{Socket: socket, Topics: []string{"livepeer", "broadcaster-addresses"}})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	fmt.Printf("figure client-snapshot %.2f s aim <2\n", time.Since(began).Seconds())
	if got := c.Status().Bans; got != 2*count {
		return fmt.Errorf("the client knows %d bans, want %d", got, 2*count)
	}
	fmt.Printf("figure client-memory-%d-bans %.1f MB aim <40\n", 2*count, float64(heap()-before)/1e6)
	const asked = 1 << 14
	var strangers, known [asked]netip.Addr
	var strangeWallets, knownWallets [asked][20]byte
	for i := range asked {
		strangers[i], known[i] = addrAt(count+i), addrAt(i*61%count)
		strangeWallets[i], knownWallets[i] = walletAt(count+i), walletAt(i*61%count)
	}
	for _, f := range []struct {
		name  string
		check func(int) bool
		want  bool
		aim   string
	}{
		{"client-ip-not-banned", func(i int) bool { return c.Banned(strangers[i]) }, false, "<100"},
		{"client-ip-banned", func(i int) bool { return c.Banned(known[i]) }, true, "-"},
		{"client-wallet-not-denied", func(i int) bool { return c.Denied(strangeWallets[i]) }, false, "<100"},
		{"client-wallet-denied", func(i int) bool { return c.Denied(knownWallets[i]) }, true, "-"},
	} {
		wrong := 0
		perCheck := livepeer.Measure(func() {
			for i := range asked {
				if f.check(i) != f.want {
					wrong++
				}
			}
		}, asked)
		if wrong > 0 {
			return fmt.Errorf("%s: %d wrong answers", f.name, wrong)
		}
		fmt.Printf("figure %s %.1f ns aim %s\n", f.name, perCheck, f.aim)
	}
	if s := c.Status(); !s.Connected {
		return fmt.Errorf("the client lost the agent: %s", s.Error)
	}
	return nil
}
