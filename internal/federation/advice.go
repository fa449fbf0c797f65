package federation

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// advice is how a person can mend a connection that failed, or "".
func advice(err error, b Broker, host string) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		plain     tls.RecordHeaderError
		lookUp    *net.DNSError
	)
	switch {
	case misbehaving(err):
		return "nothing that it sent was taken. Tell who runs it, and use another broker meanwhile"
	case errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, packets.ErrorRefusedNotAuthorised):
		if b.User != "" {
			return "user and password_file of this broker's entry in agent.toml"
		}
		if errors.Is(err, packets.ErrorRefusedNotAuthorised) {
			return "the broker does not serve this node: is its key, or its operator's, banned there (broker ban-key)? A broker with accounts wants user and password_file"
		}
		return fmt.Sprintf("the broker knows this node by its key: is %s one of the `names` of its configuration, and is the clock of both right (timedatectl)? `broker status` counts why. A broker with accounts wants user and password_file", host)
	case errors.Is(err, packets.ErrorRefusedIDRejected):
		return "another client of the broker uses this node's identity: agent feeds"
	case errors.As(err, &authority):
		return "ca_file of this broker's entry in agent.toml names the authority that signed its certificate"
	case errors.As(err, &name):
		return "use the name that the certificate has in url, or say it in server_name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the broker's certificate is of another time: renew it there, or set the clock here (timedatectl)"
	case errors.As(err, &plain):
		return "the port speaks no TLS: tcp:// instead of ssl://, or the broker's other port"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there: does the broker run, and on this address and port? `broker status` says so on its machine"
	case errors.As(err, &lookUp):
		return "the name servers: getent hosts " + host
	}
	return ""
}
