package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Certificate is one that a listener shows.
type Certificate struct {
	Listener string    `json:"listener"`
	Names    []string  `json:"names"`
	Ends     time.Time `json:"ends"`
}

// RenewBy is how long before its end a certificate should have been renewed.
// Whoever renews by machine does so at a third of 90 days.
const RenewBy = 14 * 24 * time.Hour

// certificate gives the certificate that a listener shows new clients now, or
// false where it has none.
func (l *listener) certificate() (c Certificate, ok bool) {
	if l.tls == nil {
		return c, false
	}
	var pair *tls.Certificate
	if l.tls.GetCertificate != nil {
		pair, _ = l.tls.GetCertificate(&tls.ClientHelloInfo{})
	} else if len(l.tls.Certificates) > 0 {
		pair = &l.tls.Certificates[0]
	}
	if pair == nil || len(pair.Certificate) == 0 {
		return c, false
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return c, false
	}
	return Certificate{Listener: l.name(), Names: append([]string{}, leaf.DNSNames...), Ends: leaf.NotAfter.UTC()}, true
}

// name says where a listener is.
func (l *listener) name() string { return string(l.kind) + "://" + l.Addr().String() }

// certificates gives those of all listeners.
func (b *Broker) certificates() []Certificate {
	out := []Certificate{} // an empty listing is an empty array
	for _, l := range b.listeners {
		if c, ok := l.certificate(); ok {
			out = append(out, c)
		}
	}
	return out
}

// certificateEnds collects the end of each listener's certificate.
type certificateEnds struct {
	b    *Broker
	desc *prometheus.Desc
}

func newCertificateEnds(b *Broker) certificateEnds {
	return certificateEnds{b, prometheus.NewDesc("banmesh_broker_certificate_end_timestamp_seconds", "When the certificate that a listener shows ends, as a Unix time.", []string{"listener"}, nil)}
}

func (c certificateEnds) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

func (c certificateEnds) Collect(to chan<- prometheus.Metric) {
	for _, one := range c.b.certificates() {
		to <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(one.Ends.Unix()), one.Listener)
	}
}

// watchEvery is how often the ends of certificates are looked at.
const watchEvery = 12 * time.Hour

// watchCertificates logs those that should have been renewed, until ctx ends.
func (b *Broker) watchCertificates(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		for _, c := range b.ending(b.now()) {
			b.log.Warn("a certificate should have been renewed", "listener", c.Listener, "ends", c.Ends)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// ending gives the certificates that should have been renewed.
func (b *Broker) ending(now time.Time) []Certificate {
	return slices.DeleteFunc(b.certificates(), func(c Certificate) bool { return c.Ends.Sub(now) >= RenewBy })
}
