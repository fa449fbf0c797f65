package main

import (
	"cmp"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/test/detect/hostile"
	"banmesh/topics"
)

// longLines measures every shipped topic on lines of the longest size that a source
// gives, made to cost much: the dearest line in processor time of its thread, the
// cheapest of several runs, and the most steps of the matcher a byte.
func longLines() error {
	fmt.Println("\nlines of 64 KiB, every shipped topic: CPU of the dearest line, and steps a byte")
	now := time.Now().Truncate(time.Second)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	worst, of, steps, lines := time.Duration(0), "", 0.0, 0
	for _, d := range topics.Builtin() {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		s, err := detect.NewSampler(d, now)
		if err != nil {
			return err
		}
		dearest, most, text := time.Duration(0), 0.0, ""
		hostile.Lines(d, source.MaxLine, 2, func(x topics.Sample) {
			lines++
			before, _ := s.Work()
			took := cpu(func() { s.Find(x) })
			after, _ := s.Work()
			most = max(most, float64(after-before)/float64(len(x.Line)))
			for n := 0; n < 5 && took > dearest; n++ {
				took = min(took, cpu(func() { s.Find(x) }))
			}
			if took > dearest {
				dearest, text = took, x.Line
			}
		})
		fmt.Printf("  %-20s %7.2f ms %5.1f steps a byte  %.60q ... %.30q\n", d.Name, dearest.Seconds()*1000, most, text, text[max(0, len(text)-30):])
		if dearest > worst {
			worst, of = dearest, string(d.Name)
		}
		steps = max(steps, most)
	}
	fmt.Printf("  %d lines; the dearest is one of %s\n", lines, cmp.Or(of, "none"))
	figure("detect-line-of-64-KiB-dearest", worst.Seconds()*1000, "ms", "<5")
	figure("detect-line-of-64-KiB-most-steps", steps, "steps/byte", "<=16")
	return nil
}

// cpu gives the processor time of this thread that f takes.
func cpu(f func()) time.Duration {
	before := threadTime()
	f()
	return threadTime() - before
}

func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
