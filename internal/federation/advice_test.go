package federation

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestAdviceNamesWhatAPersonCanDo(t *testing.T) {
	t.Parallel()
	network := func(err error) error {
		return fmt.Errorf("connecting: %w", fmt.Errorf("%w : %w", packets.ErrorNetworkError, err))
	}
	for name, c := range map[string]struct {
		err    error
		broker Broker
		want   string
	}{
		"a key that is not believed":    {fmt.Errorf("connecting: %w", packets.ErrorRefusedBadUsernameOrPassword), Broker{}, "is broker.example one of the `names`"},
		"a password that is wrong":      {fmt.Errorf("connecting: %w", packets.ErrorRefusedBadUsernameOrPassword), Broker{User: "x"}, "password_file"},
		"a banned key":                  {fmt.Errorf("connecting: %w", packets.ErrorRefusedNotAuthorised), Broker{}, "ban-key"},
		"nobody listens":                {network(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), Broker{}, "does the broker run"},
		"an authority of one's own":     {network(x509.UnknownAuthorityError{}), Broker{}, "ca_file"},
		"a certificate of another name": {network(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}), Broker{}, "server_name"},
		"a certificate of another time": {network(x509.CertificateInvalidError{Reason: x509.Expired}), Broker{}, "timedatectl"},
		"a name that nobody knows":      {network(&net.DNSError{Err: "no such host", Name: "x"}), Broker{}, "getent hosts broker.example"},
		"something else":                {errors.New("EOF"), Broker{}, ""},
	} {
		if got := advice(c.err, c.broker, "broker.example"); got == "" != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q in it", name, got, c.want)
		}
	}
}

// A failure is said of the address that failed, not of the one that is tried
// next, and is logged once, not at every turn.
func TestAFailureIsToldOfItsOwnAddress(t *testing.T) {
	t.Parallel()
	l, err := newLink(0, Broker{URL: "tcp://a.example:1883", Others: []string{"tcp://b.example:1883"}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l.log = slog.New(slog.NewTextHandler(&log, nil))
	for range 3 {
		for _, u := range l.urls {
			l.url = u
			l.failed(errors.New("refused by " + u.Hostname()))
			s := l.status()
			if s.URL != u.String() || s.Error != u.String()+": refused by "+u.Hostname() {
				t.Errorf("%s says %q", s.URL, s.Error)
			}
		}
	}
	if n := strings.Count(log.String(), "broker_unreachable"); n != 2 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}
