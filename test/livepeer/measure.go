package livepeer

import (
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Measure gives the nanoseconds of processor time that one of n things takes
// which f does together: the median of seven rounds, each repeated until it is
// a thousand times longer than the clock's steps.
func Measure(f func(), n int) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var rounds []float64
	for range 7 {
		began, times := threadTime(), 0
		for took := time.Duration(0); took < 1000*clockStep(); took = threadTime() - began {
			f()
			times++
		}
		rounds = append(rounds, float64((threadTime()-began).Nanoseconds())/float64(n*times))
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}

// threadTime gives the processor time of the calling thread, so that others on
// the machine, who would double the time on the wall, count less.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(t.Nano())
}

// clockStep gives the step in which that time goes, at least a microsecond.
func clockStep() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 10 * time.Millisecond
	}
	return max(time.Duration(t.Nano()), time.Microsecond)
}
