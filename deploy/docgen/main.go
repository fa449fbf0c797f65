// Command docgen writes the pages that are made of the program itself: the
// references in docs/, and for packages the manual pages, the completions of
// shells and sample configurations with every key.
//
//	go run ./deploy/docgen                    docs/reference.md, docs/commands.md
//	go run ./deploy/docgen -share build/share -version 1.2.3
//
// Equal sources give equal bytes.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	agent "banmesh/cmd/agent/commands"
	broker "banmesh/cmd/broker/commands"
	"banmesh/internal/cli"
)

func main() {
	module := flag.String("module", ".", "directory of the module")
	share := flag.String("share", "", "write manual pages, completions and samples below this directory")
	version := flag.String("version", "", "the version in manual pages")
	flag.Parse()
	// Places in help are those of a machine's own agent, whoever builds.
	for _, v := range [][2]string{
		{"BANMESH_CONFIG_DIR", "/etc/banmesh"},
		{"BANMESH_STATE_DIR", "/var/lib/banmesh"},
		{"BANMESH_SOCKET", "/run/banmesh/agent.sock"},
		{"BANMESH_BROKER_CONFIG", "/etc/banmesh-broker/broker.toml"},
		{"BANMESH_BROKER_SOCKET", "/run/banmesh-broker/broker.sock"},
	} {
		os.Setenv(v[0], v[1])
	}
	var err error
	if *share == "" {
		err = writeDocs(*module)
	} else {
		err = writeShare(*module, *share, *version)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// files are the keys of the three kinds of files.
type files struct{ agent, broker, topic []Key }

func readKeys(module string) (f files, err error) {
	s := newSource(module)
	var faults [3]error
	f.agent, faults[0] = s.keys("internal/config", "Config", "")
	f.broker, faults[1] = s.keys("internal/broker/settings", "File", "")
	f.topic, faults[2] = s.keys("topics", "Definition", "")
	return f, errors.Join(faults[:]...)
}

func writeDocs(module string) error {
	pages, err := docs(module)
	if err != nil {
		return err
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(module, "docs", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// docs gives the references by their names in docs/.
func docs(module string) (map[string]string, error) {
	f, err := readKeys(module)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"reference.md": reference(f.agent, f.broker, f.topic),
		"commands.md":  commands(agent.New(cli.Program{Name: "agent"}), broker.New(cli.Program{Name: "broker"})),
	}, nil
}

const (
	agentSample  = "## /etc/banmesh/agent.toml: every key, none of them set. Lines with one # are settings: remove it to set one.\n## `agent check` reads the file without any effect, `agent reload` takes it over. Examples are no defaults where the\n## text does not say so. `agent topics`, `agent peers` and others write conf.d/*.toml beside this file.\n\n"
	brokerSample = "## /etc/banmesh-broker/broker.toml: every key, none of them set. Lines with one # are settings: remove it to set one.\n## `broker init` writes a file for a broker of a community; `broker check` reads it without any effect.\n\n"
)

func writeShare(module, share, version string) error {
	f, err := readKeys(module)
	if err != nil {
		return err
	}
	out := map[string][]byte{
		"doc/banmesh/examples/agent.toml":  []byte(sample(agentSample, f.agent)),
		"doc/banmesh/examples/broker.toml": []byte(sample(brokerSample, f.broker)),
	}
	// The pages of links are the same commands by other names.
	for _, name := range []string{"banmesh", "agent"} {
		root := agent.New(cli.Program{Name: name, Version: version})
		if err := errors.Join(manuals(out, root, version), completions(out, root, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"banmesh broker", "broker"} {
		root := broker.New(cli.Program{Name: name, Version: version})
		if err := manuals(out, root, version); err != nil {
			return err
		}
		if name == "broker" {
			if err := completions(out, root, name); err != nil {
				return err
			}
		}
	}
	for name, text := range out {
		name = filepath.Join(share, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, text, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// manuals adds a compressed page for every command that runs, and one for the
// root.
func manuals(out map[string][]byte, root *cobra.Command, version string) error {
	root.DisableAutoGenTag = true
	root.InitDefaultHelpCmd()
	var walk func(c *cobra.Command) error
	walk = func(c *cobra.Command) error {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return nil
		}
		var text bytes.Buffer
		// cobra names the date by the day of building unless it is told one.
		head := &doc.GenManHeader{Section: "1", Source: "Banmesh " + version, Manual: "Banmesh", Date: &time.Time{}}
		if err := doc.GenMan(c, head, &text); err != nil {
			return err
		}
		var packed bytes.Buffer
		z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if _, err := z.Write(text.Bytes()); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		name := bytes.ReplaceAll([]byte(c.CommandPath()), []byte(" "), []byte("-"))
		out["man/man1/"+string(name)+".1.gz"] = packed.Bytes()
		for _, sub := range c.Commands() {
			if err := walk(sub); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(root)
}

// completions adds those of three shells, where they look for them.
func completions(out map[string][]byte, root *cobra.Command, name string) error {
	var bash, zsh, fish bytes.Buffer
	if err := errors.Join(root.GenBashCompletionV2(&bash, true), root.GenZshCompletion(&zsh), root.GenFishCompletion(&fish, true)); err != nil {
		return err
	}
	out["bash-completion/completions/"+name] = bash.Bytes()
	out["zsh/vendor-completions/_"+name] = zsh.Bytes()
	out["fish/vendor_completions.d/"+name+".fish"] = fish.Bytes()
	return nil
}
