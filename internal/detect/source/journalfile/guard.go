package journalfile

import (
	"fmt"
	"runtime/debug"
	"slices"
	"unsafe"
)

// Guard calls f and turns a fault in the mapping of one of the files into
// [ErrCorrupt]: the kernel reports so that a mapped file was truncated. Other
// panics go on.
func Guard(files func() []*File, f func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if fault, ok := r.(interface{ Addr() uintptr }); ok {
			for _, file := range files() {
				if file.contains(fault.Addr()) {
					err = &FaultError{File: file}
					return
				}
			}
		}
		panic(r)
	}()
	return f()
}

// A FaultError is [ErrCorrupt] for a file that was truncated while it was read.
type FaultError struct{ File *File }

func (e *FaultError) Error() string {
	return fmt.Sprintf("%s: %v: it was truncated while it was read", e.File.f.Name(), ErrCorrupt)
}

// Unwrap gives [ErrCorrupt].
func (e *FaultError) Unwrap() error { return ErrCorrupt }

func (f *File) contains(addr uintptr) bool {
	return within(f.m, addr) || slices.ContainsFunc(f.stale, func(m []byte) bool { return within(m, addr) })
}

func within(m []byte, addr uintptr) bool {
	if len(m) == 0 {
		return false
	}
	start := uintptr(unsafe.Pointer(&m[0]))
	return addr >= start && addr-start < uintptr(len(m))
}
