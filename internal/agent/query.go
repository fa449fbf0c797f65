package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banmesh/internal/control"
)

// querySocket gives the path of the socket for programs, beside the control
// socket: query.sock beside agent.sock, and NAME-query.sock beside NAME.sock.
func querySocket(control string) string {
	dir, name := filepath.Split(control)
	if name == "agent.sock" {
		return dir + "query.sock"
	}
	ext := filepath.Ext(name)
	return dir + strings.TrimSuffix(name, ext) + "-query" + ext
}

// openQuery makes the query socket and its handler, which answers root, this
// process's own user and those of [query].
func (a *agent) openQuery(sockets *control.Sockets) (net.Listener, http.Handler, error) {
	h, err := a.api.Query()
	if err != nil {
		return nil, nil, err
	}
	l, err := sockets.Listen("query", querySocket(a.o.Socket), control.QueryMode)
	if err != nil {
		return nil, nil, err
	}
	return l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uid, ok := r.Context().Value(peerUser{}).(uint32)
		if !ok || !a.mayQuery(uid) {
			control.WriteJSON(w, http.StatusForbidden, control.ErrorAnswer{
				Error: fmt.Sprintf("the query socket does not answer user %d", uid), Code: control.CodeRefused, Hint: fmt.Sprintf("users = [\"%d\"] in [query] of agent.toml", uid),
			})
			return
		}
		h.ServeHTTP(w, r)
	}), nil
}

func (a *agent) mayQuery(uid uint32) bool {
	if uid == 0 || int(uid) == os.Geteuid() {
		return true
	}
	allowed, err := a.current().Config().Query.UIDs()
	return err == nil && slices.Contains(allowed, uid)
}

// peerUser is the key of a request's user in its context.
type peerUser struct{}

// withUser has each request's context carry the user at the other end.
func withUser(s *http.Server) {
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if uid, ok := userOf(conn); ok {
			return context.WithValue(ctx, peerUser{}, uid)
		}
		return ctx
	}
}

// userOf asks the kernel who opened the other end.
func userOf(conn net.Conn) (uid uint32, ok bool) {
	u, isUnix := conn.(*net.UnixConn)
	if !isUnix {
		return 0, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid, ok = cred.Uid, true
		}
	})
	return uid, ok
}
