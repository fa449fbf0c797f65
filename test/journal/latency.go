package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"banmesh/internal/detect/source"
)

// latency measures the time from sending a message to the handler's call, and
// to journalctl's output, at the same time.
func latency(ctx context.Context, count int) error {
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
	if err := log(c, "sshd", "first"); err != nil {
		return err
	}
	wait(ctx, 500*time.Millisecond)

	type arrival struct {
		n  int
		at time.Time
	}
	ours, theirs := make(chan arrival, count+16), make(chan arrival, count+16)
	number := func(text string) (int, bool) {
		_, tail, ok := strings.Cut(text, "latency ")
		n, err := strconv.Atoi(strings.TrimSpace(tail))
		return n, ok && err == nil
	}
	s, err := source.Open(source.Spec{Journal: []string{"SYSLOG_IDENTIFIER=sshd"}}, source.Position{}, source.Options{})
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() {
		err := s.Run(running, func(l source.Line) error {
			if n, ok := number(string(l.Text)); ok {
				ours <- arrival{n, time.Now()}
			}
			return nil
		})
		if err != nil {
			fmt.Println("source:", err)
		}
	})
	cmd := exec.CommandContext(running, "journalctl", "--follow", "--lines=0", "--output=cat", "SYSLOG_IDENTIFIER=sshd")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	group.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, ok := number(lines.Text()); ok {
				theirs <- arrival{n, time.Now()}
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it is killed
	})
	wait(ctx, 2*time.Second) // both follow by then

	sent := make([]time.Time, count)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range count {
		sent[i] = time.Now()
		if err := log(c, "sshd", fmt.Sprintf("latency %d", i)); err != nil {
			return err
		}
		wait(ctx, time.Duration(50+random.IntN(500))*time.Millisecond)
	}
	wait(ctx, time.Second)
	cancel()
	group.Wait()
	report := func(name string, from chan arrival) (time.Duration, error) {
		close(from)
		var times []time.Duration
		for a := range from {
			if a.n < 0 || a.n >= count {
				return 0, fmt.Errorf("message %d was never sent", a.n)
			}
			times = append(times, a.at.Sub(sent[a.n]))
		}
		if len(times) != count {
			return 0, fmt.Errorf("%s gave %d of %d messages", name, len(times), count)
		}
		slices.Sort(times)
		fmt.Printf("%s: median %v, 95 %% %v, most %v\n", name, times[count/2], times[count*95/100], times[count-1])
		return times[count/2], nil
	}
	mine, err := report("journal reader", ours)
	if err != nil {
		return err
	}
	other, err := report("journalctl -f", theirs)
	if err != nil {
		return err
	}
	figure("journal-latency-median", mine.Seconds()*1000, "ms", "<10")
	figure("journalctl-latency-median", other.Seconds()*1000, "ms", "peer")
	if mine > 10*time.Millisecond {
		return errors.New("the median is above 10 ms")
	}
	return nil
}
