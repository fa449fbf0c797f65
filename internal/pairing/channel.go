package pairing

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// hello begins the joiner's messages, and is the channel that the code is bound to.
const hello = "banmesh-pair/1\n"

// channel is a connection whose both ends have shown that they know the code. Messages
// are AES-256-GCM with a key a direction; the nonce counts, so that none can be
// left out, repeated or exchanged.
type channel struct {
	conn      net.Conn
	out, in   cipher.AEAD
	sent, got uint64
}

// keysOf derives the confirmations and the keys of both directions.
func keysOf(session [64]byte) (joiner, host []byte, up, down cipher.AEAD, err error) {
	derive := func(label string) []byte {
		k, e := hkdf.Expand(sha256.New, session[:], "banmesh pair "+label, 32)
		err = errors.Join(err, e)
		return k
	}
	seal := func(label string) cipher.AEAD {
		b, e := aes.NewCipher(derive(label))
		if e != nil {
			err = errors.Join(err, e)
			return nil
		}
		a, e := cipher.NewGCM(b)
		err = errors.Join(err, e)
		return a
	}
	joiner, host = derive("joiner confirms"), derive("host confirms")
	return joiner, host, seal("to host"), seal("to joiner"), err
}

// step gives the other side's program the time of one step.
func step(c net.Conn) error { return c.SetDeadline(time.Now().Add(stepTime)) }

// call is the joiner's side of the exchange. It confirms first, so that a host that is
// none has one guess, and learns whether it was right.
func call(c net.Conn, code Code) (*channel, error) {
	sid := make([]byte, sidSize)
	_, _ = rand.Read(sid) // never fails: it ends the program
	secret := newScalar()
	ya := share(secret, []byte(code), []byte(hello), sid)
	if err := step(c); err != nil {
		return nil, err
	}
	if _, err := c.Write(bytes.Join([][]byte{[]byte(hello), sid, ya}, nil)); err != nil {
		return nil, err
	}
	yb := make([]byte, elementSize)
	if _, err := io.ReadFull(c, yb); err != nil {
		return nil, closedEarly(err)
	}
	k, err := secretElement(secret, yb)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	joiner, host, up, down, err := keysOf(sessionKey(sid, k, ya, nil, yb, nil))
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(joiner); err != nil {
		return nil, err
	}
	confirmed := make([]byte, len(host))
	if _, err := io.ReadFull(c, confirmed); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, ErrCode
		}
		return nil, closedEarly(err)
	}
	if !hmac.Equal(confirmed, host) {
		return nil, ErrCode
	}
	return &channel{conn: c, out: up, in: down}, nil
}

// closedEarly words the end of a connection before anything was said about the code.
func closedEarly(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w, or turned this machine away", ErrProtocol)
	}
	return err
}

// answer is the host's side. A caller that never confirms has learnt nothing and
// costs no try; admit judges a confirmation, with all tries so far.
func answer(c net.Conn, code Code, admit func(right bool) error) (*channel, error) {
	if err := step(c); err != nil {
		return nil, err
	}
	first := make([]byte, len(hello)+sidSize+elementSize)
	if _, err := io.ReadFull(c, first); err != nil {
		return nil, err
	}
	if string(first[:len(hello)]) != hello {
		return nil, ErrProtocol
	}
	sid, ya := first[len(hello):len(hello)+sidSize], first[len(hello)+sidSize:]
	secret := newScalar()
	k, err := secretElement(secret, ya)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	yb := share(secret, []byte(code), []byte(hello), sid)
	joiner, host, up, down, err := keysOf(sessionKey(sid, k, ya, nil, yb, nil))
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(yb); err != nil {
		return nil, err
	}
	confirmed := make([]byte, len(joiner))
	if _, err := io.ReadFull(c, confirmed); err != nil {
		return nil, err
	}
	if err := admit(hmac.Equal(confirmed, joiner)); err != nil {
		return nil, err
	}
	if _, err := c.Write(host); err != nil {
		return nil, err
	}
	return &channel{conn: c, out: down, in: up}, nil
}

func nonce(a cipher.AEAD, n uint64) []byte {
	b := make([]byte, a.NonceSize())
	binary.BigEndian.PutUint64(b[len(b)-8:], n)
	return b
}

// send seals and writes a message.
func (ch *channel) send(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > maxFrame {
		return fmt.Errorf("a message of %d bytes is too long", len(text))
	}
	sealed := ch.out.Seal(nil, nonce(ch.out, ch.sent), text, nil)
	ch.sent++
	if err := step(ch.conn); err != nil {
		return err
	}
	_, err = ch.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(sealed))), sealed...))
	return err
}

// receive reads, opens and strictly decodes a message, waiting at most for wait.
func (ch *channel) receive(v any, wait time.Duration) error {
	if err := ch.conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	text, err := ch.open(ch.conn)
	if err != nil {
		return err
	}
	return decode(text, v)
}

// open reads one sealed message.
func (ch *channel) open(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame+uint32(ch.in.Overhead()) {
		return nil, fmt.Errorf("%w: a message of %d bytes", ErrProtocol, n)
	}
	// It grows with the bytes that come, whatever the head announces.
	var sealed bytes.Buffer
	if _, err := io.CopyN(&sealed, r, int64(n)); err != nil {
		return nil, err
	}
	text, err := ch.in.Open(nil, nonce(ch.in, ch.got), sealed.Bytes(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: a message was changed on its way", ErrProtocol)
	}
	ch.got++
	return text, nil
}

// decode reads a message's text: known fields, one value.
func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one value in a message", ErrProtocol)
	}
	return nil
}
