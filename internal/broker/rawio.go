//go:build !race

package broker

import (
	"syscall"
	"unsafe"
)

// rawRead and rawWrite are read(2) and write(2) on a socket that does not
// block. The scheduler is not told of them: it would hand the processor to
// other goroutines, for instance those that read acknowledgements, in the
// middle of handing a publication to a thousand clients.

func rawRead(fd uintptr, p []byte) (int, error) { return raw(syscall.SYS_READ, fd, p) }

func rawWrite(fd uintptr, p []byte) (int, error) { return raw(syscall.SYS_WRITE, fd, p) }

func raw(call, fd uintptr, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
