package commands

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/broker"
)

func newCheckCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Is the configuration sound?",
		Long: `Read the configuration and the certificates that it names, and show every fault. It
opens no listener, no state, and changes nothing.
` + exitHelp,
		Example: "  broker check\n  broker check --config broker.toml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := p.named()
			if err != nil {
				return err
			}
			o, err := f.Options()
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "%s is sound: %s, %s\n", p.config, networkText(o.Network), listenersText(len(o.Listeners)))
			for _, l := range f.Listeners {
				if info, err := os.Stat(l.KeyFile); err == nil && info.Mode().Perm()&0o044 == 0 {
					fmt.Fprintf(out, "note: only its owner may read %s, and the service is not root: put it into a group, and name that in SupplementaryGroups= of the unit\n", l.KeyFile)
				}
			}
			for _, note := range notes(o) {
				fmt.Fprintln(out, "note:", note)
			}
			return nil
		},
	}
}

func listenersText(n int) string {
	if n == 1 {
		return "1 listener"
	}
	return fmt.Sprintf("%d listeners", n)
}

// notes are settings that are allowed but worth a second thought.
func notes(o broker.Options) (out []string) {
	if o.Open {
		out = append(out, "open = true admits anything to any topic; for private networks only")
	}
	if o.Keys && len(o.Names) == 0 {
		out = append(out, "names is empty: a login that was made for another broker works here too")
	}
	for _, l := range o.Listeners {
		if l.TLS == nil {
			continue
		}
		if pair, err := l.TLS.GetCertificate(&tls.ClientHelloInfo{}); err == nil {
			leaf, err := x509.ParseCertificate(pair.Certificate[0])
			if left := time.Until(leaf.NotAfter); err == nil && left < broker.RenewBy {
				out = append(out, fmt.Sprintf("the certificate of %s ends %s; is its renewal set up?", l.Address, leaf.NotAfter.Format(time.RFC3339)))
			}
		}
	}
	if o.StateDir == "" {
		out = append(out, "state_dir is empty: retained messages are lost with the process")
	}
	switch {
	case o.Anonymous == broker.AccessFull && o.Open:
		out = append(out, `anonymous = "full": everybody may publish anything`)
	case o.Anonymous == broker.AccessFull:
		out = append(out, `anonymous = "full": everybody may publish what its key signed`)
	}
	for _, l := range o.Listeners {
		if (l.Kind == broker.TCP || l.Kind == broker.WebSocket) && !local(l.Address) {
			out = append(out, fmt.Sprintf("listener %s is not encrypted: passwords and who follows whom can be read on the way", l.Address))
		}
	}
	return out
}

// local says whether an address is one of this machine alone.
func local(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
