// Command bench measures how this node answers CrowdSec's bouncers, beside
// CrowdSec's own local API with the same decisions in the same run:
// everything at first, nothing new, and a thousand bouncers that poll.
//
//	go run ./test/compat/bench
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/ban"
	"banmesh/internal/compat/lapi"
	"banmesh/internal/export"
	"banmesh/test/compat/crowdsec"
)

func main() {
	decisions := flag.Int("decisions", 100_000, "bans in force")
	bouncers := flag.Int("bouncers", 1000, "bouncers that poll every ten seconds")
	flag.Parse()
	if err := run(*decisions, *bouncers); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func figure(name string, value float64, unit, aim string) {
	fmt.Printf("figure %s %.4g %s aim %s\n", name, value, unit, aim)
}

func run(decisions, bouncers int) error {
	dir, err := os.MkdirTemp("", "bench-compat")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%d decisions; one client at first, then %d that poll every ten seconds\n", decisions, bouncers)
	if err := publicList(dir, decisions); err != nil {
		return err
	}
	ours, err := ours(dir, decisions)
	if err != nil {
		return err
	}
	defer ours.close()
	if err := ours.measure(bouncers); err != nil {
		return err
	}
	return theirs(dir, decisions)
}

// address gives the nth address of a documentation-like range.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{45, byte(n >> 16), byte(n >> 8), byte(n)})
}

type node struct {
	table *export.Table
	http  *http.Server
	url   string
	keys  []string
}

func ours(dir string, decisions int) (*node, error) {
	n := &node{table: export.NewTable(nil)}
	until := time.Now().Add(24 * time.Hour)
	list := make([]export.Entry, 0, decisions)
	for i := range decisions {
		t, err := ban.TargetOfAddr(address(i))
		if err != nil {
			return nil, err
		}
		list = append(list, export.Entry{Target: t, Topic: "sshd", Class: ban.ClassAuth, Until: until})
	}
	n.table.Apply(list, nil)
	keys, err := credentials.OpenKeys(filepath.Join(dir, "bouncers.json"))
	if err != nil {
		return nil, err
	}
	for i := range 8 {
		k, err := keys.Add(fmt.Sprint("bouncer-", i), nil, time.Now())
		if err != nil {
			return nil, err
		}
		n.keys = append(n.keys, k)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n.url = "http://" + l.Addr().String()
	n.http = &http.Server{Handler: lapi.New(lapi.Options{Table: n.table, Keys: keys, Log: slog.New(slog.DiscardHandler)}), ReadHeaderTimeout: time.Second}
	go n.http.Serve(l) //nolint:errcheck // ends with close
	return n, nil
}

func (n *node) close() { n.http.Close() }

// pull asks once and gives the time and the bytes of the answer. agent tells
// bouncers of one key apart.
func pull(client *http.Client, url, key string) (time.Duration, int64, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, err
	}
	r.Header.Set("X-Api-Key", key)
	r.Header.Set("User-Agent", "bench/v1")
	began := time.Now()
	answer, err := client.Do(r)
	if err != nil {
		return 0, 0, err
	}
	defer answer.Body.Close()
	size, err := io.Copy(io.Discard, answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return time.Since(began), size, err
}

// median asks several times and gives the middle time.
func median(times int, url, key string) (time.Duration, int64, error) {
	var all []time.Duration
	var size int64
	for range times {
		d, n, err := pull(http.DefaultClient, url, key)
		if err != nil {
			return 0, 0, err
		}
		all, size = append(all, d), n
	}
	slices.Sort(all)
	return all[len(all)/2], size, nil
}

func (n *node) measure(bouncers int) error {
	stream := n.url + "/v1/decisions/stream?startup="
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	first, size, err := pull(http.DefaultClient, stream+"true", n.keys[0])
	runtime.ReadMemStats(&after)
	if err != nil {
		return err
	}
	figure("lapi_startup", first.Seconds(), "s", "0.2")
	figure("lapi_startup_answer", float64(size)/(1<<20), "MiB", "-")
	figure("lapi_startup_allocated", float64(after.TotalAlloc-before.TotalAlloc)/(1<<20), "MiB", "20")
	nothing, _, err := median(200, stream+"false", n.keys[0])
	if err != nil {
		return err
	}
	figure("lapi_empty_delta", float64(nothing.Microseconds()), "us", "100")
	return n.poll(bouncers)
}

// poll has bouncers ask every ten seconds for twenty, over connections that they
// keep, while a ban comes each second.
func (n *node) poll(bouncers int) error {
	const every, rounds = 10 * time.Second, 2
	clients := make([]*http.Client, 8)
	for i := range clients {
		clients[i] = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: bouncers}}
	}
	stream := n.url + "/v1/decisions/stream?startup=false"
	if _, _, err := pull(clients[0], stream, n.keys[0]); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			t, _ := ban.TargetOfAddr(netip.AddrFrom4([4]byte{46, 0, byte(i >> 8), byte(i)}))
			n.table.Apply([]export.Entry{{Target: t, Topic: "sshd", Class: ban.ClassAuth, Until: time.Now().Add(time.Hour)}}, nil)
			time.Sleep(time.Second)
		}
	}()
	used := cpu()
	began := time.Now()
	var failed error
	var mu sync.Mutex
	var running sync.WaitGroup
	for i := range bouncers {
		running.Go(func() {
			for round := range rounds {
				time.Sleep(time.Until(began.Add(time.Duration(round)*every + every*time.Duration(i)/time.Duration(bouncers))))
				if _, _, err := pull(clients[i%8], stream, n.keys[i%8]); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	running.Wait()
	// Client and server are one process: the server's part is the smaller one.
	figure(fmt.Sprintf("lapi_%d_bouncers_polling_with_their_clients", bouncers), 100*(cpu()-used).Seconds()/time.Since(began).Seconds(), "%_of_a_core", "-")
	used, began = cpu(), time.Now()
	for range 2000 {
		if failed != nil {
			return failed
		}
		n.http.Handler.ServeHTTP(discard{http.Header{}}, request(stream, n.keys[0]))
	}
	figure(fmt.Sprintf("lapi_%d_bouncers_polling", bouncers), 100*(cpu()-used).Seconds()/2000*float64(bouncers)/every.Seconds(), "%_of_a_core", "2")
	return nil
}

func request(url, key string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		panic(err) // the URL is ours
	}
	r.RemoteAddr = "127.0.0.1:1"
	r.Header.Set("X-Api-Key", key)
	r.Header.Set("User-Agent", "bench/v1")
	return r
}

// discard takes an answer without a network.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// theirs measures CrowdSec's own server.
func theirs(dir string, decisions int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	s, err := crowdsec.Start(ctx, dir, ".")
	if errors.Is(err, crowdsec.ErrMissing) {
		fmt.Println(err)
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Stop()
	var csv strings.Builder
	csv.WriteString("duration,scope,value,reason,type\n")
	for i := range decisions {
		fmt.Fprintf(&csv, "24h,ip,%s,bench,ban\n", address(i))
	}
	if err := s.Import(ctx, csv.String()); err != nil {
		return err
	}
	stream := s.URL + "/v1/decisions/stream?startup="
	first, _, err := pull(http.DefaultClient, stream+"true", crowdsec.Key)
	if err != nil {
		return err
	}
	figure("crowdsec_startup", first.Seconds(), "s", "-")
	time.Sleep(3 * time.Second) // it repeats the last two
	nothing, _, err := median(50, stream+"false", crowdsec.Key)
	if err != nil {
		return err
	}
	figure("crowdsec_empty_delta", float64(nothing.Microseconds()), "us", "-")
	return nil
}
