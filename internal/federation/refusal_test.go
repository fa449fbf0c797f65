package federation

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"banmesh/internal/wire"
)

func TestABrokersReasonForARefusalIsShownAndLiesAreNot(t *testing.T) {
	t.Parallel()
	l, err := newLink(0, Broker{URL: "tcp://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	l.now, l.log = time.Now, slog.New(slog.DiscardHandler)
	for _, lie := range []string{"", "{}", `{"reason":"\u202eevil","topic":"x","count":1}`, strings.Repeat("x", 4096)} {
		l.refuses([]byte(lie))
		if r := l.status().Refusal; r != (wire.Refusal{}) {
			t.Errorf("%.40q is shown as %+v", lie, r)
		}
	}
	said := wire.Refusal{Reason: "quota", Topic: wire.Name{Network: "net", Kind: wire.KindCard}.String(), Count: 2}
	notice, err := wire.AppendRefusal(nil, said)
	if err != nil {
		t.Fatal(err)
	}
	l.refuses(notice)
	if r := l.status().Refusal; r != said {
		t.Errorf("shown: %+v", r)
	}
}
