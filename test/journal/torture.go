package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"banmesh/internal/detect/source"
)

// sender is the user whose messages go to a journal of his own.
const sender = 1500

// send sends numbered messages: FROM TO PAUSE, in microseconds, every 20.
func send(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: journal send FROM TO PAUSE")
	}
	var v [3]int
	for i, a := range args {
		n, err := strconv.Atoi(a)
		if err != nil {
			return err
		}
		v[i] = n
	}
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.Close()
	for i := v[0]; i < v[1] && ctx.Err() == nil; i++ {
		message := fmt.Sprintf("message %d", i)
		if i%37 == 0 {
			message += strings.Repeat(" and more of it", 100)
		}
		if err := log(c, "torture", message); err != nil {
			return err
		}
		if i%20 == 0 {
			wait(ctx, time.Duration(v[2])*time.Microsecond)
		}
	}
	return ctx.Err()
}

// torture sends from two users while journald rotates, moves from memory to
// disk, and the reader stops and goes on, each time with nothing but its
// position.
func torture(ctx context.Context, count int) error {
	j, err := startJournald(ctx)
	if err != nil {
		return err
	}
	defer j.stop()
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := log(c, "torture", "beginning"); err != nil {
		return err
	}
	wait(ctx, 300*time.Millisecond)

	seen := make([]int, count)
	garbled, total, restarts := 0, atomic.Int64{}, 0
	position := source.Position{}
	var s source.Source
	start := func() (stop func() error, err error) {
		s, err = source.Open(source.Spec{Journal: []string{"SYSLOG_IDENTIFIER=torture"}}, position, source.Options{})
		if err != nil {
			return nil, err
		}
		running, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			done <- s.Run(running, func(l source.Line) error {
				word, tail, ok := strings.Cut(string(l.Text), " ")
				head, _, _ := strings.Cut(tail, " ")
				n, err := strconv.Atoi(head)
				switch {
				case word == "beginning":
				case !ok || err != nil || n < 0 || n >= count:
					garbled++
				default:
					seen[n]++
					total.Add(1)
				}
				return nil
			})
		}()
		return func() error {
			cancel()
			err := <-done
			b, err2 := json.Marshal(s.Position())
			position = source.Position{}
			return errors.Join(err, err2, json.Unmarshal(b, &position))
		}, nil
	}
	// The first start notes where the journal ends; then sending begins.
	stop, err := start()
	if err != nil {
		return err
	}
	for ; len(s.Position().Journal) == 0 && ctx.Err() == nil; wait(ctx, 5*time.Millisecond) {
	}

	var group sync.WaitGroup
	var failure atomic.Pointer[error]
	var finished atomic.Int32
	for i := range 2 {
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "send", strconv.Itoa(i*count/2), strconv.Itoa((i+1)*count/2), "2000")
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		if i == 1 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: sender, Gid: sender}
		}
		group.Go(func() {
			if err := cmd.Run(); err != nil {
				failure.Store(&err)
			}
			finished.Add(1)
		})
	}
	random := rand.New(rand.NewPCG(3, 4))
	rotations := 0
	for step := 0; finished.Load() < 2 && ctx.Err() == nil; step++ {
		wait(ctx, time.Duration(20+random.IntN(60))*time.Millisecond)
		switch {
		case step == 10:
			err = j.flush()
		case step%2 == 0:
			rotations++
			err = j.rotate()
		default:
			if err = stop(); err == nil {
				restarts++
				wait(ctx, time.Duration(random.IntN(40))*time.Millisecond)
				stop, err = start()
			}
		}
		if err != nil {
			return err
		}
	}
	group.Wait()
	for deadline := time.Now().Add(20 * time.Second); total.Load() < int64(count) && time.Now().Before(deadline) && ctx.Err() == nil; {
		wait(ctx, 50*time.Millisecond)
	}
	wait(ctx, 500*time.Millisecond) // time for one that comes twice
	if err := stop(); err != nil {
		return err
	}
	if err := failure.Load(); err != nil {
		return *err
	}
	lost, twice := 0, 0
	for i, n := range seen {
		if n == 0 {
			lost++
			if lost < 10 {
				fmt.Println("lost", i)
			}
		} else if n > 1 {
			twice++
			if twice < 10 {
				fmt.Println("twice", i)
			}
		}
	}
	fmt.Printf("%d messages, %d rotations, %d restarts: %d lost, %d twice, %d garbled\n", count, rotations, restarts, lost, twice, garbled)
	figure("journal-torture-lost", float64(lost), "lines", "0")
	figure("journal-torture-twice", float64(twice), "lines", "0")
	if lost+twice+garbled > 0 {
		return errors.New("lines were lost, read twice or garbled")
	}
	return ctx.Err()
}
