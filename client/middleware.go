package client

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/netip"
)

// Middleware answers 403 to requests of banned peers and hands the others to
// next. The peer is the connection's, never a header's: behind a proxy it is
// the proxy, and the proxy should ask the agent's /v1/check itself. wallet
// gives the wallet of a request whose signature was verified; nil means none.
func (c *Client) Middleware(next http.Handler, wallet func(*http.Request) (w [20]byte, ok bool)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && c.Banned(ap.Addr()) {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		if wallet != nil {
			if address, ok := wallet(r); ok && c.Denied(address) {
				http.Error(w, "forbidden", http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

const (
	// maxPayment bounds a payment header: Go's servers take 1 MiB of headers.
	maxPayment = 1 << 20
	// paymentSender is the number of the field sender of go-livepeer's
	// net.Payment, whose bytes are the wallet.
	paymentSender = 2
	// Wire types of protocol buffers.
	wireVarint, wire64, wireBytes, wire32 = 0, 1, 2, 5
)

// WalletFromPayment gives the sender that a Livepeer-Payment header names:
// base64 of a protocol buffer whose field 2 is the wallet. The name is a
// claim: nothing is verified here, so refuse a wallet by it if you like, but
// never report an offence of it.
func WalletFromPayment(header string) (w [20]byte, ok bool) {
	if len(header) > maxPayment {
		return w, false
	}
	b, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		return w, false
	}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 {
			return [20]byte{}, false
		}
		b = b[n:]
		length, skip := uint64(0), 0
		switch tag & 7 {
		case wireVarint:
			_, skip = binary.Uvarint(b)
			if skip <= 0 {
				return [20]byte{}, false
			}
		case wireBytes:
			length, skip = binary.Uvarint(b)
			if skip <= 0 {
				return [20]byte{}, false
			}
		case wire64:
			length = 8
		case wire32:
			length = 4
		default:
			return [20]byte{}, false
		}
		b = b[skip:]
		if length > uint64(len(b)) {
			return [20]byte{}, false
		}
		if tag>>3 == paymentSender {
			// The last of several wins, as in every protocol buffer.
			if tag&7 != wireBytes || length != uint64(len(w)) {
				return [20]byte{}, false
			}
			copy(w[:], b)
			ok = true
		}
		b = b[length:]
	}
	return w, ok && w != [20]byte{}
}
