package agent

import (
	"fmt"
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
				l.writes("E1121 08:19:58.689960    9781 segment_rpc.go:418] manifestID=x\n")
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

// A line after one that shows a client's line break is doubted: it counts for the
// very connection that it names alone, however many there are, and the status
// says so.
func TestLinesThatAClientMayHaveWrittenAreToldAndBanNobody(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	n := newNode(t, detecting("livepeer", log, ""))
	const forged = "http: TLS handshake error from 45.1.1.1:%d: tls: first record does not look like a TLS handshake"
	// 45.1.1.1 is connected, but from another port: its address alone proves nothing here.
	n.connects("livepeer", "45.1.1.1:4000", "45.1.1.2:4001", "45.1.1.2:4002", "45.1.1.2:4003", "45.1.1.2:4004", "45.1.1.2:4005")
	for i := range 6 {
		log.writes("I1121 08:19:58.123456       1 rpc.go:42] name=x\n" + time.Now().Format("2006/01/02 15:04:05 ") + fmt.Sprintf(forged, 5000+i) + "\n")
	}
	for i := range 5 {
		log.writes(time.Now().Format("2006/01/02 15:04:05 ") + fmt.Sprintf(strings.Replace(forged, "45.1.1.1", "45.1.1.2", 1), 4001+i) + "\n")
	}
	n.eventually("the real one is banned", func() bool { return len(n.a.ledger.Own.Claims("livepeer")) == 1 })
	n.eventually("the status tells of the forged ones", func() bool {
		w, ok := n.warns("tainted")
		return ok && strings.Contains(w.Text, "livepeer: 6 log lines that a client may have written did not count") && w.Fix != ""
	})
	if own := n.a.ledger.Own.Claims("livepeer"); own[0].Target.String() != "45.1.1.2" {
		t.Errorf("banned is %v", own)
	}
}
