package procnet

import (
	"net"
	"slices"
	"testing"
)

func TestTheKernelsTableHasALocalConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := TCP("/")
	if err != nil {
		t.Fatal(err)
	}
	at, from := l.Addr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
	if !slices.ContainsFunc(list, func(s Socket) bool { return s.State == Listening && s.Local == at }) {
		t.Errorf("the listener at %s is not there", at)
	}
	if !slices.ContainsFunc(list, func(s Socket) bool { return s.State == Established && s.Local == from && s.Remote == at }) {
		t.Errorf("the connection from %s is not there", from)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0\n"))
	f.Add([]byte("   1: 0000000000000000FFFF0000010200C0:0016 0000000000000000FFFF000007DA0BC6:C830 01 0:0 0:0 0 0 0 9\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range Parse(b) {
			if !s.Local.Addr().IsValid() || s.Remote.Addr().Is4In6() {
				t.Errorf("%+v", s)
			}
		}
	})
}
