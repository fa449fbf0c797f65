package client

import (
	"io"
	"net/netip"
	"strings"
)

// ErrorLog gives a writer for the ErrorLog of a [net/http.Server], which reports
// failed TLS handshakes as offences of a topic: evidence that stands in no log
// that somebody could write to. Whatever is written goes on to next, if that is
// not nil.
//
//	server.ErrorLog = log.New(bans.ErrorLog("livepeer", os.Stderr), "", 0)
//
// A handshake that ends early is no evidence, nor is HTTP on the TLS port: honest
// clients and monitors leave both.
func (c *Client) ErrorLog(topic string, next io.Writer) io.Writer {
	return &errorLog{c, topic, next}
}

type errorLog struct {
	c     *Client
	topic string
	next  io.Writer
}

// Write takes one message: package log writes each with one call.
func (e *errorLog) Write(b []byte) (int, error) {
	if peer, class, ok := readHandshake(string(b)); ok {
		e.c.Report(Offence{Topic: e.topic, IP: peer, Class: class})
	}
	if e.next == nil {
		return len(b), nil
	}
	return e.next.Write(b)
}

// handshakes are the reasons of net/http that no honest client of a TLS service
// gives, and their classes; one that ends in a space goes on.
var handshakes = []struct{ reason, class string }{
	{"tls: first record does not look like a TLS handshake", "scan"},
	{"tls: unsupported SSLv2 handshake received", "scan"},
	{"tls: oversized record received with length ", "scan"},
	{"tls: client offered only unsupported versions: ", "scan-weak"},
	{"tls: no cipher suite supported by both client and server", "scan-weak"},
	{"tls: no cipher suite supported by both client and server; ", "scan-weak"},
	{"tls: no key exchanges supported by both client and server", "scan-weak"},
	{"tls: client requested unsupported application protocols ", "scan-weak"},
	{"tls: client using inappropriate protocol fallback", "scan-weak"},
	{"tls: missing signature_algorithms from TLS 1.2 peer", "scan-weak"},
	{"unexpected EOF", "scan-weak"},
	{"local error: tls: error decoding message", "scan-weak"},
}

// readHandshake reads a message of net/http about a failed handshake, whole.
func readHandshake(message string) (peer netip.Addr, class string, ok bool) {
	message = strings.TrimSuffix(message, "\n")
	if strings.ContainsAny(message, "\r\n") {
		return peer, "", false
	}
	rest, found := strings.CutPrefix(message, "http: TLS handshake error from ")
	if !found {
		return peer, "", false
	}
	address, reason, found := strings.Cut(rest, ": ")
	if !found {
		return peer, "", false
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return peer, "", false
	}
	for _, h := range handshakes {
		if reason == h.reason || strings.HasSuffix(h.reason, " ") && strings.HasPrefix(reason, h.reason) {
			return ap.Addr(), h.class, true
		}
	}
	return peer, "", false
}
