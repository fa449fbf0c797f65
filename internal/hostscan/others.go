package hostscan

import (
	"os"
	"path/filepath"
	"strings"
)

// An Other is a program that bans, or rules a firewall, beside us.
type Other struct{ Name, Text string }

// others gives the programs with our task, or rule the firewall.
func others(root string, running map[string][]uint16) (out []Other) {
	_, fail2ban := running["fail2ban-server"]
	_, crowdsec := running["crowdsec"]
	_, firewalld := running["firewalld"]
	for _, o := range []struct {
		here       bool
		name, text string
	}{
		{fail2ban, "fail2ban", "runs here: `agent import fail2ban --dry-run` shows what its jails become, and docs/compat/fail2ban.md how both run side by side"},
		{crowdsec, "CrowdSec", "runs here: its bouncers can enforce these bans too, see docs/compat/crowdsec-bouncers.md"},
		{exists(root, "/etc/csf/csf.conf"), "CSF", "is here: it flushes iptables when it restarts; nftables tables of others stay"},
		{firewalld, "firewalld", "runs here: its reload leaves other programs' nftables tables alone"},
		{exists(root, "/etc/ufw/ufw.conf") && enabled(root, "/etc/ufw/ufw.conf"), "ufw", "is on: it and the agent's nftables table do not touch each other"},
	} {
		if o.here {
			out = append(out, Other{o.name, o.text})
		}
	}
	return out
}

func enabled(root, file string) bool {
	b, err := os.ReadFile(filepath.Join(root, file))
	return err == nil && strings.Contains(string(b), "ENABLED=yes")
}
