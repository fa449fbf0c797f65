package broker

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The end of each listener's certificate is in status, metrics and warnings, as
// it is after a renewal.
func TestTheEndOfACertificateIsShown(t *testing.T) {
	t.Parallel()
	current := selfSigned(t, "broker.example", nil)
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &current, nil }}
	b := start(t, Options{Network: "net", Anonymous: AccessFull, Listeners: []Listener{{Kind: TLS, Address: "127.0.0.1:0", TLS: config}, {Kind: TCP, Address: "127.0.0.1:0"}}})
	list := b.Status().Certificates
	if len(list) != 1 || list[0].Listener != "tls://"+b.Addr().String() || len(list[0].Names) != 1 || list[0].Names[0] != "broker.example" || time.Until(list[0].Ends) > time.Hour {
		t.Fatalf("%+v", list)
	}
	w := httptest.NewRecorder()
	b.Public().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if want := `banmesh_broker_certificate_end_timestamp_seconds{listener="` + list[0].Listener + `"} `; !strings.Contains(w.Body.String(), want) {
		t.Errorf("/metrics lacks %s", want)
	}
	// To be renewed from 14 days before its end.
	end := list[0].Ends
	for at, want := range map[time.Time]int{end.Add(-RenewBy): 0, end.Add(-RenewBy + time.Second): 1, end.Add(time.Hour): 1} {
		if got := len(b.ending(at)); got != want {
			t.Errorf("%v before its end: %d to be renewed, want %d", end.Sub(at), got, want)
		}
	}
}
