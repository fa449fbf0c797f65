package frame

import (
	"bytes"
	"errors"
	"testing"
)

func TestAHeaderIsReadAsSoonAsItIsThere(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		most int
		want Header
		ok   bool
		err  error
	}{
		{"nothing", nil, 100, Header{}, false, nil},
		{"a type alone", []byte{0x30}, 100, Header{}, false, nil},
		{"a short packet", []byte{0x32, 5}, 100, Header{3, 2, 5, 2}, true, nil},
		{"half a length", []byte{0x30, 0x80}, 100, Header{Type: 3}, false, nil},
		{"a long packet", []byte{0x30, 0x80, 0x01}, 1000, Header{3, 0, 128, 3}, true, nil},
		{"the longest", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 1 << 30, Header{3, 0, 268435455, 5}, true, nil},
		{"too large", []byte{0x30, 0x80, 0x01}, 130, Header{}, false, ErrTooLarge},
		{"five bytes of length", []byte{0x30, 0x80, 0x80, 0x80, 0x80}, 100, Header{}, false, ErrMalformed},
	} {
		h, ok, err := ParseHeader(c.in, c.most)
		if ok != c.ok || !errors.Is(err, c.err) || ok && h != c.want {
			t.Errorf("%s: %+v, %v, %v", c.name, h, ok, err)
		}
	}
}

func TestAPublicationReadsBack(t *testing.T) {
	for _, size := range []int{0, 1, 120, 127, 128, 20_000} {
		for qos := range byte(3) {
			b, id := AppendPublish([]byte("before"), "a/b", bytes.Repeat([]byte("x"), size), qos, qos == 1)
			b = b[len("before"):]
			if qos > 0 {
				b[id], b[id+1] = 1, 2
			}
			h, ok, err := ParseHeader(b, len(b))
			if err != nil || !ok || h.Size+h.Remaining != len(b) {
				t.Fatalf("size %d: %+v %v %v", size, h, ok, err)
			}
			p, err := ParsePublish(h, b[h.Size:])
			if err != nil || string(p.Topic) != "a/b" || len(p.Payload) != size || p.QoS != qos || p.Retain != (qos == 1) || (qos > 0) != (p.ID == 0x102) {
				t.Errorf("size %d QoS %d: %+v %v", size, qos, p, err)
			}
		}
	}
}

func TestOnlyMQTTsFiltersPass(t *testing.T) {
	for f, want := range map[string]bool{
		"a": true, "a/b": true, "+": true, "#": true, "a/#": true, "+/a/+": true, "/": true, "//": true, "$SYS/#": true,
		"": false, "a#": false, "#/a": false, "a/#/b": false, "a+": false, "+a/b": false, "a/b+": false, "##": false,
	} {
		if err := CheckFilter([]byte(f)); (err == nil) != want {
			t.Errorf("%q: %v", f, err)
		}
	}
}

func FuzzPacketsNeverPanicAndNeverLie(f *testing.F) {
	publish, _ := AppendPublish(nil, "a/b", []byte("x"), 1, true)
	publish[len(publish)-2] = 1
	f.Add(publish)
	f.Add([]byte{0x10, 16, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 4, 'n', 'o', 'd', 'e'})
	f.Add([]byte{0x82, 6, 0, 1, 0, 1, 'a', 1})
	f.Add([]byte{0xa2, 5, 0, 1, 0, 1, 'a'})
	f.Add([]byte{0x40, 2, 0, 1})
	f.Add([]byte{0x82, 5, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 1 << 16
		h, ok, err := ParseHeader(b, most)
		if err != nil || !ok {
			return
		}
		if h.Size+h.Remaining > most {
			t.Fatalf("a frame of %d bytes passed", h.Size+h.Remaining)
		}
		if len(b) < h.Size+h.Remaining {
			return
		}
		body := b[h.Size : h.Size+h.Remaining]
		if h.Type == Connect {
			n, err := ParseConnect(h, body)
			if err == nil && n.Level == Level311 && (body[n.LevelAt]&0x7f != 4 || (body[n.FlagsAt]&FlagClean != 0) != n.Clean) {
				t.Fatalf("the offsets of %x are wrong: %+v", body, n)
			}
		}
		if Check(h, body) == nil && h.Type == Publish {
			p, err := ParsePublish(h, body)
			if err != nil || p.QoS > 2 || len(p.Topic) == 0 || (p.ID == 0) != (p.QoS == 0) {
				t.Fatalf("%x passed as %+v, %v", b, p, err)
			}
		}
	})
}
