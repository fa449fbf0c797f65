package gate

import (
	"os"
	"syscall"
)

// dup gives a descriptor of its own, as systemd hands over.
func dup(f *os.File) (uintptr, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	return uintptr(fd), err
}
