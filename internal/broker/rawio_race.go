//go:build race

package broker

import "syscall"

// The race detector takes bytes that pass a socket for an order of events, where
// it sees the call.

func rawRead(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }

func rawWrite(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
