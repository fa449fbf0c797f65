package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"banmesh/internal/control"
)

// Whom the query socket answers is decided by the user at its other end, as the
// kernel knows it.
func TestTheQuerySocketAnswersTheUsersThatAreNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	n := newNode(t, "[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.sshd]\ndetect = false\n")
	socket := querySocket(filepath.Join(n.dir, "s"))
	for dir := n.dir; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o005 != 0o005 {
			if err := os.Chmod(dir, info.Mode().Perm()|0o055); err != nil {
				t.Fatal(err)
			}
		}
	}
	const nobody = 65534
	ask := func(uid int) error {
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends as another user
			if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				done <- e
				return
			}
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err == nil {
				err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket})
			}
			if err == nil {
				_, err = syscall.Write(fd, []byte("GET /v1/check?ip=192.0.2.7 HTTP/1.0\r\n\r\n"))
			}
			b := make([]byte, 4096)
			read := 0
			if err == nil {
				read, err = syscall.Read(fd, b)
			}
			syscall.Close(fd)
			if err == nil && string(b[:min(read, 12)]) != "HTTP/1.0 200" {
				err = fs.ErrPermission
			}
			done <- err
		}()
		return <-done
	}
	if err := ask(0); err != nil {
		t.Errorf("root: %v", err)
	}
	if err := ask(nobody); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a user that nobody named: %v", err)
	}
	file := filepath.Join(n.dir, "config", "agent.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, []byte("[query]\nusers = [\"65534\"]\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.client.Post(t.Context(), "/v1/reload", control.ReloadRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := ask(nobody); err != nil {
		t.Errorf("a user that is named: %v", err)
	}
}
