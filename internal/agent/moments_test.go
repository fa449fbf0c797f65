package agent

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Lines that a client may have written whole, and the burst that this node's
// own pause leaves in a log, count for nobody, and somebody is told.
func TestLinesOfAClientAndOfAPauseAreToldOf(t *testing.T) {
	t.Parallel()
	const greeting = "http: TLS handshake error from 45.1.1.%d:%d: EOF"
	for code, c := range map[string]struct {
		write func(*node, logFile)
		want  string
	}{
		"tainted": {func(n *node, l logFile) {
			// An unauthenticated request breaks the line after a header.
			for range 4 {
				appendRaw(t, l, "E1121 08:19:58.689960    9781 segment_rpc.go:418] manifestID=x\n")
				l.saysAt(time.Now(), "http: TLS handshake error from 45.1.1.1:1: tls: first record does not look like a TLS handshake")
			}
		}, "livepeer: 4 log lines that a client may have written did not count"},
		"stalled": {func(n *node, l logFile) {
			at := time.Now()
			for i := range 40 {
				address, port := 1+i%5, 5000+i
				n.connects("livepeer", fmt.Sprintf("45.1.1.%d:%d", address, port))
				l.saysAt(at, greeting, address, port)
			}
		}, "this node stood still at"},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			log := newLog(t)
			n := newNode(t, detecting("livepeer", log, ""))
			if w, ok := n.warns(code); ok {
				t.Fatalf("before anything happened: %+v", w)
			}
			c.write(n, log)
			n.eventually("somebody is told", func() bool {
				w, ok := n.warns(code)
				return ok && strings.Contains(w.Text, c.want)
			})
			if own := n.a.ledger.Own.Claims("livepeer"); len(own) != 0 {
				t.Errorf("banned are %v", own)
			}
		})
	}
}

// appendRaw writes to a log as it stands.
func appendRaw(t *testing.T, l logFile, text string) {
	t.Helper()
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	f.Close()
}
