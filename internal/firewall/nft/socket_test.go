package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
	"banmesh/internal/firewall/testnet"
)

// netlinkMessage makes a message with flags and a body.
func netlinkMessage(kind, flags uint16, seq uint32, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(headerSize+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	return append(append(b, 0, 0, 0, 0), body...)
}

// Whatever is wrong with a dump, it is read to its end and not beyond it: the kernel
// says nothing more, and whoever waited for it would stand still for receiveTimeout.
func TestADumpIsReadToItsEndAndNotBeyond(t *testing.T) {
	const (
		seq  = 7
		kind = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM
		intr = unix.NLM_F_DUMP_INTR
	)
	element, done := netlinkMessage(kind, 0, seq, 1, 2, 3, 4), netlinkMessage(unix.NLMSG_DONE, 0, seq, 0, 0, 0, 0)
	refused := errors.New("refused by the reader")
	for name, x := range map[string]struct {
		datagrams [][]byte
		each      error
		want      error
		calls     int
	}{
		"whole": {[][]byte{slices.Concat(element, element), element, done}, nil, nil, 3},
		"changed at its end": {
			[][]byte{element, netlinkMessage(unix.NLMSG_DONE, intr, seq, 0, 0, 0, 0)}, nil, errInterrupted, 1,
		},
		"changed in its last datagram": {
			[][]byte{element, slices.Concat(netlinkMessage(kind, intr, seq), done)}, nil, errInterrupted, 1,
		},
		"changed in its first datagram": {
			[][]byte{netlinkMessage(kind, intr, seq), element, done}, nil, errInterrupted, 0,
		},
		"refused in its last datagram": {[][]byte{slices.Concat(element, done)}, refused, refused, 1},
		"refused in its first":         {[][]byte{element, slices.Concat(element, done)}, refused, refused, 1},
		"failed":                       {[][]byte{netlinkMessage(unix.NLMSG_ERROR, 0, seq, 0xfe, 0xff, 0xff, 0xff)}, nil, unix.ENOENT, 0},
		"of an earlier request first":  {[][]byte{netlinkMessage(unix.NLMSG_DONE, 0, seq-1, 0, 0, 0, 0), element, done}, nil, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fds[0])
			defer unix.Close(fds[1])
			if err := unix.SetNonblock(fds[0], true); err != nil {
				t.Fatal(err)
			}
			next := netlinkMessage(unix.NLMSG_DONE, 0, seq+1, 0, 0, 0, 0)
			for _, b := range append(x.datagrams, next) {
				if err := unix.Send(fds[1], b, 0); err != nil {
					t.Fatal(err)
				}
			}
			s := socket{fd: fds[0], in: make([]byte, datagram)}
			calls := 0
			err = s.answer(seq, true, func(message) error {
				calls++
				return x.each
			})
			if !errors.Is(err, x.want) || calls != x.calls {
				t.Errorf("%v after %d calls, want %v after %d", err, calls, x.want, x.calls)
			}
			if b, err := s.read(0); err != nil || !bytes.Equal(b, next) {
				t.Errorf("the next answer is %x, %v, want %x", b, err, next)
			}
		})
	}
}

// Bans that end while the process stands still in the middle of a check are missed by
// nobody: no other program took them away.
func TestBansThatEndDuringACheckWereNotTakenAway(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	start := time.Now()
	late := time.Duration(0) // how far the clock goes after it was asked once
	calls := 0
	o := Options{Now: func() time.Time {
		if calls++; calls > 1 {
			return start.Add(late)
		}
		return start
	}}
	o.testing.mono = func() time.Duration { return 0 }
	n := newTest(t, o)
	for _, size := range []int{20, readBack + 20} { // read whole, and counted
		calls, late = 0, 0
		var list []firewall.Ban
		for i := range size {
			list = append(list, firewall.Ban{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32), Topic: "sshd", Until: start.Add(30 * time.Second)})
		}
		testnet.Must(t, n.Configure(ctx, simple()))
		testnet.Must(t, n.Replace(ctx, slices.Values(list)))
		_, err := n.Check(ctx)
		testnet.Must(t, err)
		// As the kernel does at their end.
		testnet.Run(t, "nft", "flush", "map", "inet", "banmesh", mapHost4)
		calls, late = 0, time.Minute
		if d, err := n.Check(ctx); err != nil || len(d.What) > 0 {
			t.Errorf("of %d bans: %v, %v", size, d.What, err)
		}
	}
}

// The kernel counts bans that have just ended: nobody put them there.
func TestBansThatHaveJustEndedAreNoStrangers(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	// The turn of a bucket, at which the state lets go of ended bans.
	start := desired.Second((time.Now().Unix()>>desired.BucketBits + 1) << desired.BucketBits).Time().Add(-time.Second)
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	var list []firewall.Ban
	for i := range readBack + 200 {
		until := start.Add(time.Hour)
		if i < 100 {
			until = start.Add(2 * time.Second)
		}
		list = append(list, firewall.Ban{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32), Topic: "sshd", Until: until})
	}
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(list)))
	for i := range 4 {
		n.foreign = true // as by any other program's change
		if i == 2 {
			n.reload = reloadForced
		}
		if d, err := n.Check(ctx); err != nil || len(d.What) > 0 {
			t.Errorf("%s after the start: %v, %v", now.Sub(start), d.What, err)
		}
		now = now.Add(time.Second)
	}
}
