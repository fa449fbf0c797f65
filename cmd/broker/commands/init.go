package commands

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"

	"github.com/spf13/cobra"

	"banmesh/internal/broker/settings"
	"banmesh/internal/cli"
	"banmesh/internal/wire"
)

// initial is the configuration that init writes.
var initial = template.Must(template.New("broker.toml").Parse(`# Configuration of the community broker; ` + "`broker check`" + ` reads it without side effects.

# The network whose signed feeds are admitted.
network = "{{.Network}}"

# What clients call this broker: a login is good for these names only.
names = ["{{.Name}}"]

# Retained messages and banned keys.
state_dir = "{{.State}}"

# Nodes log in by proof of their key; nobody needs an account.
keys = true
# Clients without a login: "none", "read" or "full".
anonymous = "none"

# Name operators here to admit only them.
# operators = ["aaaabbbbccccddddeeeeffffgg"]
# Operators that get a known one's share of the store from the first day.
# vouched = ["aaaabbbbccccddddeeeeffffgg"]

# Accounts of a private network; ` + "`broker hash --generate`" + ` makes a password and its hash.
# [users.alice]
# hash = "pbkdf2-sha256$..."
# access = "full"

[[listeners]]
kind = "tls"
address = ":8883"
cert_file = "{{.Cert}}" # read again when it changes
key_file = "{{.Key}}"

# [[listeners]]
# kind = "wss"
# address = ":8884"
# cert_file = "{{.Cert}}"
# key_file = "{{.Key}}"

# [[listeners]]
# kind = "unix"
# address = "/run/banmesh-broker/mqtt.sock"
# mode = "0660"

[limits]
connections = 10000
connections_per_address = 64
node_bytes = 37748736       # retained for one node
total_bytes = 536870912     # all of them together
operator_bytes = 67108864   # one operator whom this broker knows
newcomer_bytes = 262144     # one whom it does not, on its first day; twice as much each day
publish_rate = 100.0        # messages a second of one node
publish_burst = 2000
feed_age = "90d"            # feeds unheard of for 90 days are collected

[log]
level = "info"
addresses = false           # clients' addresses stay out of the logs

[http]
listen = "127.0.0.1:9884"   # /metrics and /healthz
`))

func newInitCommand(p *paths) *cobra.Command {
	v := struct{ Network, Name, State, Cert, Key string }{}
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a configuration for the internet",
		Long: `Write a configuration with TLS, logins by proof of key, quotas and metrics. A file that
exists is left alone.
` + exitHelp,
		Example: "  broker init --network example --name broker.example.org",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := wire.CheckNetwork(v.Network); err != nil {
				return &cli.Error{Err: fmt.Errorf("--network: %w", err), Code: cli.ExitUsage, Hint: "name the network that the broker serves: --network example"}
			}
			if v.Name == "" {
				host, err := os.Hostname()
				if err != nil {
					return err
				}
				v.Name = host
			}
			live := "/etc/letsencrypt/live/" + v.Name
			if v.Cert == "" {
				v.Cert = live + "/fullchain.pem"
			}
			if v.Key == "" {
				v.Key = live + "/privkey.pem"
			}
			var text bytes.Buffer
			if err := initial.Execute(&text, v); err != nil {
				return err
			}
			if _, err := settings.Parse(p.config, text.Bytes()); err != nil {
				return fmt.Errorf("the values do not make a configuration: %w", err)
			}
			if err := os.MkdirAll(filepath.Dir(p.config), 0o755); err != nil {
				return err
			}
			f, err := os.OpenFile(p.config, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
			if errors.Is(err, fs.ErrExist) {
				return cli.Hint(fmt.Errorf("%s exists already", p.config), "edit it, or name another file with --config")
			}
			if err != nil {
				return err
			}
			_, err = f.Write(text.Bytes())
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "wrote %s\nnext: check the certificate's paths, then `broker check` and `broker run`\n", p.config)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&v.Network, "network", "", "the network that the broker serves")
	f.StringVar(&v.Name, "name", "", "host name that clients dial (default this host's)")
	f.StringVar(&v.State, "state-dir", "/var/lib/banmesh-broker", "directory of the state")
	f.StringVar(&v.Cert, "cert-file", "", "certificate chain (default Let's Encrypt's place)")
	f.StringVar(&v.Key, "key-file", "", "its key")
	return c
}
