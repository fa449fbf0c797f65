// Command benchgate measures the wallet gate's process with a million denied
// wallets beside a bare handler in the same run, then kills, stops and tears
// everything around it under load. It prints a line a figure.
//
//	go run ./test/livepeer/benchgate
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

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

func main() {
	count := flag.Int("denied", 1_000_000, "denied wallets")
	calls := flag.Int("calls", 10_000, "calls of each kind")
	flag.Parse()
	if err := run(context.Background(), *count, *calls); err != nil {
		fmt.Fprintln(os.Stderr, "benchgate: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, count, calls int) error {
	dir, err := os.MkdirTemp("", "benchgate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := livepeer.Build(ctx, dir, ".", "gate")
	if err != nil {
		return err
	}
	entries := make([]gate.Entry, count)
	for i := range entries {
		entries[i] = gate.Entry{Wallet: walletAt(i), Until: time.Now().Add(24 * time.Hour), Reason: gate.Reason{Topic: "broadcaster-addresses", Class: "manual"}}
	}
	began := time.Now()
	whole, err := gate.Encode(gate.Header{Path: secretPath, Written: began}, entries)
	if err != nil {
		return err
	}
	fmt.Printf("figure gate-list-encoded %.2f s aim -\n", time.Since(began).Seconds())
	file := filepath.Join(dir, "wallets")
	if err := gate.WriteFile(file, whole); err != nil {
		return err
	}
	if err := measureLookup(whole, count); err != nil {
		return err
	}
	m := &livepeer.Manager{Program: program, File: file, Watchdog: 1500 * time.Millisecond, Log: io.Discard}
	address, err := livepeer.StartManager(ctx, m)
	if err != nil {
		return err
	}
	defer m.Stop()
	url := gate.URL(address, secretPath)
	if err := measureCalls(url, count, calls); err != nil {
		return err
	}
	if err := torment(ctx, m, url, file, whole); err != nil {
		return err
	}
	return withAgent(ctx, dir, program)
}

// measureLookup times the look into the list in this process: the clock is read
// around many, because one is shorter than the clock's steps.
func measureLookup(whole []byte, count int) error {
	l, err := gate.Decode(whole)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, f := range []struct {
		name   string
		first  int
		denied bool
	}{{"gate-lookup-denied", 0, true}, {"gate-lookup-not-denied", count, false}} {
		const asked = 1 << 14
		var wallets [asked][20]byte
		for i := range wallets {
			wallets[i] = walletAt(f.first + i*61%count)
		}
		wrong := 0
		perLookup := livepeer.Measure(func() {
			for _, w := range wallets {
				if _, denied := l.Denied(w, now); denied != f.denied {
					wrong++
				}
			}
		}, asked)
		if wrong > 0 {
			return fmt.Errorf("%s: %d wrong answers", f.name, wrong)
		}
		fmt.Printf("figure %s %.1f ns aim -\n", f.name, perLookup)
	}
	return nil
}

// measureCalls asks the gate and a bare handler by turns.
func measureCalls(url string, count, calls int) error {
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
	defer func() { bare.Close(); <-bareDone }()
	pass := livepeer.Orchestrator{URL: url, Client: http.DefaultClient}
	base := livepeer.Orchestrator{URL: "http://" + bareListener.Addr().String(), Client: http.DefaultClient}
	began := time.Now()
	for first := wallet.Format(walletAt(0)); ; {
		if _, err := pass.Authenticate(first); err != nil {
			break // refused: the gate has read its list
		}
		if time.Since(began) > time.Minute {
			return errors.New("the gate reads no list")
		}
	}
	fmt.Printf("figure gate-started-with-its-list %.0f ms aim -\n", time.Since(began).Seconds()*1e3)
	var tookBare, tookPass, tookDenied []time.Duration
	for n := range calls {
		stranger := walletAt(count + n)
		for _, c := range []struct {
			o      livepeer.Orchestrator
			who    [20]byte
			into   *[]time.Duration
			refuse bool
		}{{base, stranger, &tookBare, false}, {pass, stranger, &tookPass, false}, {pass, walletAt(n % count), &tookDenied, true}} {
			text := wallet.Format(c.who)
			began := time.Now()
			_, err := c.o.Authenticate(text)
			*c.into = append(*c.into, time.Since(began))
			if (err != nil) != c.refuse {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
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
	}{{"gate-bare-handler", tookBare, "-"}, {"gate-allowed", tookPass, "<1"}, {"gate-denied", tookDenied, "<1"}} {
		half, most := p99(f.took)
		fmt.Printf("figure %s-p50 %.3f ms aim -\nfigure %s-p99 %.3f ms aim %s\n", f.name, half, f.name, most, f.aim)
	}
	_, b := p99(tookBare)
	_, p := p99(tookPass)
	fmt.Printf("figure gate-allowed-p99-by-bare %.2f times aim -\n", p/b)
	return nil
}

// torment lets everything happen to the gate and its file while orchestrators ask
// for a customer and a denied wallet.
func torment(ctx context.Context, m *livepeer.Manager, url, file string, whole []byte) error {
	customer, denied := wallet.Format(walletAt(-1)), wallet.Format(walletAt(0))
	load := livepeer.StartLoad(ctx, url, 4, customer, denied)
	tear := func() error { return os.Truncate(file, 1000) }
	mend := func() error { return gate.WriteFile(file, whole) }
	for _, c := range []struct {
		name   string
		times  int
		happen func() error
		aim    string
	}{
		{"undisturbed", 1, func() error { return nil }, "<250"},
		{"killed", 20, func() error { return m.Signal(unix.SIGKILL) }, "<250"},
		{"restarted", 20, func() error { return m.Signal(unix.SIGTERM) }, "<250"},
		{"file-torn", 5, func() error { return tear() }, "<250"},
		{"file-mended", 5, mend, "<250"},
		{"hung", 3, func() error { return m.Signal(unix.SIGSTOP) }, "<2000"},
	} {
		load.Longest()
		lost := load.Lost()
		for range c.times {
			if err := c.happen(); err != nil {
				return err
			}
			if !load.Wait(ctx, 100) {
				return fmt.Errorf("%s: no calls come through", c.name)
			}
		}
		fmt.Printf("figure gate-%s-longest-call %.0f ms aim %s\n", c.name, load.Longest().Seconds()*1e3, c.aim)
		fmt.Printf("figure gate-%s-lost %d calls aim 0\n", c.name, load.Lost()-lost)
	}
	asked, _, lost := load.Stop()
	fmt.Printf("figure gate-replacements %d times aim -\n", m.Starts()-1)
	fmt.Printf("figure gate-calls-under-torment %d calls aim -\n", asked)
	fmt.Printf("figure gate-customers-refused %d calls aim 0\n", load.Refused(customer)+len(lost))
	for i, err := range lost {
		if i < 3 {
			fmt.Fprintln(os.Stderr, "lost:", err)
		}
	}
	return nil
}
