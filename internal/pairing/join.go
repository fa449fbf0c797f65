package pairing

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/wire"
)

// A Joiner is a machine that goes to a host with the code.
type Joiner struct {
	// Host is the other machine's name or address, with or without a port.
	Host    string
	Code    Code
	Request Request
	// Take writes an offer down, which was checked before. Its error is told to the
	// host.
	Take func(Offer, *wire.Card) error
	Now  func() time.Time
}

// Join pairs this machine. When it gives an error that Take did not, nothing was written.
func (j *Joiner) Join(ctx context.Context) error {
	host, port := address(j.Host)
	d := net.Dialer{Timeout: stepTime}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	ch, err := call(c, j.Code)
	if err != nil {
		return err
	}
	if err := ch.send(j.Request); err != nil {
		return err
	}
	var r reply
	if err := ch.receive(&r, confirmTime); err != nil {
		return fmt.Errorf("the connection ended before the other machine answered: %w", err)
	}
	if r.Offer == nil {
		return fmt.Errorf("%w: %s", ErrRefused, r.Fault)
	}
	key, err := j.Request.Key()
	if err != nil {
		return err
	}
	card, err := r.Offer.check(host, key, j.Now())
	if err != nil {
		err = fmt.Errorf("the offer of the other machine: %w", err)
	} else {
		// From here on a closed connection changes nothing.
		stop()
		err = j.Take(*r.Offer, card)
	}
	if err != nil {
		_ = ch.send(done{Fault: err.Error()}) // the error is told here as well
		return err
	}
	if ch.send(done{Joined: true}) == nil {
		var seen done
		_ = ch.receive(&seen, stepTime) // so that the last message is on its way before this side closes
	}
	return nil
}

// address divides what a person typed: a name or an address, IPv6 with or without
// brackets, and a port behind it, [Port] where there is none.
func address(text string) (host, port string) {
	if host, port, err := net.SplitHostPort(text); err == nil {
		return host, port
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text = strings.TrimSuffix(inner, "]")
	}
	return text, strconv.Itoa(Port)
}
