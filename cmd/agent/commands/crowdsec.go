package commands

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
)

// savedSuffix names the copy of CrowdSec's credentials as they were.
const savedSuffix = ".before-banmesh"

func newCrowdSecCommand(p *paths) *cobra.Command {
	c := &cobra.Command{
		Use: "crowdsec", Short: "Let CrowdSec itself get this node's bans and tell its own",
		Example: "  agent crowdsec join\n  agent crowdsec leave",
		Long: `CrowdSec on this machine asks a central service for bans, and tells it whom it found. This node can be that service:
[crowdsec] listen = "127.0.0.1:8090" in agent.toml, then join.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newCrowdSecJoinCommand(p), newCrowdSecLeaveCommand(p))
	return c
}

func credentialsFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "credentials", "/etc/crowdsec/online_api_credentials.yaml", "CrowdSec's file")
}

func newCrowdSecJoinCommand(p *paths) *cobra.Command {
	var file string
	var yes bool
	c := &cobra.Command{
		Use: "join", Short: "Have CrowdSec on this machine ask this node in place of its central service",
		Example: "  agent crowdsec join\n  agent crowdsec join --yes",
		Long: `Show the line of CrowdSec's credentials that would change, and change it: url. A copy of the file is kept, which leave puts
back. From then on CrowdSec gets this node's bans and no other community's, and tells its alerts to this node alone.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := os.ReadFile(file)
			if err != nil {
				return &cli.Error{Err: fmt.Errorf("reading CrowdSec's credentials: %w", err), Code: cli.ExitPartly, Hint: "cscli capi register makes them; --credentials names another file"}
			}
			q := control.CrowdSecRequest{Login: credential(b, "login"), Password: credential(b, "password")}
			if q.Login == "" || q.Password == "" {
				return &cli.Error{Err: fmt.Errorf("%s has no login and password", file), Code: cli.ExitPartly, Hint: "cscli capi register makes them"}
			}
			var s control.Status
			if err := p.client().Get(c.Context(), "/v1/status", nil, &s); err != nil {
				return err
			}
			url := capiURL(s)
			if url == "" {
				return &cli.Error{Err: errors.New("nobody answers CrowdSec yet"), Code: cli.ExitPartly, Hint: "add [crowdsec] with listen = \"127.0.0.1:8090\" to agent.toml and restart the agent"}
			}
			w := c.OutOrStdout()
			if credential(b, "url") == url {
				fmt.Fprintf(w, "%s names %s already\n", file, url)
			} else {
				fmt.Fprintf(w, "%s\n- url: %s\n+ url: %s\n", file, cli.Printable(credential(b, "url")), url)
			}
			if !yes {
				if err := ask(c, "CrowdSec gets this node's bans from then on, and no longer its community's list"); err != nil {
					return err
				}
			}
			var a control.CrowdSecAnswer
			if err := p.client().Post(c.Context(), "/v1/crowdsec/join", q, &a); err != nil {
				return err
			}
			if credential(b, "url") != url {
				if err := writeCredentials(file, b, url); err != nil {
					return err
				}
			}
			fmt.Fprintln(w, "joined: systemctl restart crowdsec")
			return nil
		},
	}
	credentialsFlag(c, &file)
	c.Flags().BoolVar(&yes, "yes", false, "do it without a question")
	return c
}

func newCrowdSecLeaveCommand(p *paths) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "leave", Short: "Put CrowdSec's credentials back as they were before join",
		Example: "  agent crowdsec leave",
		Long:    "Put CrowdSec's credentials back as they were before join, and let it in no more. Bans that it told stay until their ends: agent withdraw --all --by crowdsec.\n" + cli.ExitHelp,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := os.ReadFile(file + savedSuffix)
			if errors.Is(err, fs.ErrNotExist) {
				return &cli.Error{Err: fmt.Errorf("%s is not there: CrowdSec has not joined by that file", file+savedSuffix), Code: cli.ExitPartly}
			}
			if err != nil {
				return fmt.Errorf("reading CrowdSec's credentials as they were: %w", err)
			}
			if err := replaceFile(file, b); err != nil {
				return err
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "%s\n+ url: %s\n", file, cli.Printable(credential(b, "url")))
			if err := os.Remove(file + savedSuffix); err != nil {
				return fmt.Errorf("removing the copy: %w", err)
			}
			err = p.client().Post(c.Context(), "/v1/crowdsec/leave", control.CrowdSecRequest{Login: credential(b, "login")}, nil)
			if r, ok := errors.AsType[*control.RefusedError](err); err != nil && (!ok || r.Code != control.CodeMissing) {
				return err
			}
			fmt.Fprintln(w, "left: systemctl restart crowdsec")
			return nil
		},
	}
	credentialsFlag(c, &file)
	return c
}

// capiURL gives where this node answers CrowdSec, "" for nowhere.
func capiURL(s control.Status) string {
	for _, x := range s.Compat {
		if x.Protocol == "capi" {
			return "http://" + x.Listen + "/"
		}
	}
	return ""
}

// credential gives a value of CrowdSec's credentials, a flat file of YAML.
func credential(b []byte, key string) string {
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Trim(strings.TrimSpace(v), `"'`)
		}
	}
	return ""
}

// writeCredentials changes the line of url, and keeps the file as it was beside it.
func writeCredentials(file string, b []byte, url string) error {
	var out strings.Builder
	found := false
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "url:") {
			line, found = "url: "+url+"\n", true
		}
		out.WriteString(line)
	}
	if !found {
		out.WriteString("url: " + url + "\n")
	}
	if _, err := os.Stat(file + savedSuffix); errors.Is(err, fs.ErrNotExist) { // of a first join, when it is joined again
		if err := replaceFile(file+savedSuffix, b); err != nil {
			return err
		}
	}
	return replaceFile(file, []byte(out.String()))
}

// replaceFile writes a file as a whole, readable by its owner alone.
func replaceFile(file string, b []byte) error {
	next := file + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("writing CrowdSec's credentials: %w", err)
	}
	if err := os.Rename(next, file); err != nil {
		return fmt.Errorf("writing CrowdSec's credentials: %w", err)
	}
	return nil
}
