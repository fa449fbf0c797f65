package gate

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// dup gives a descriptor of its own, as systemd hands over.
func dup(f *os.File) (uintptr, error) {
	fd, err := unix.Dup(int(f.Fd()))
	return uintptr(fd), err
}

// closeRights closes descriptors that came with a message.
func closeRights(t *testing.T, b []byte) {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}
