package commands

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"banmesh/internal/broker/retained"
	"banmesh/internal/cli"
)

func newBackupCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy what is retained while the broker serves",
		Long: `Write a consistent copy of the retained messages to a file that does not exist yet, with the rights of
whoever asks. The copy is on disk and was read back before it has its name. To restore, stop the broker and put the file in place of retained.db
in the state directory, with the owner of that directory: docs/broker.md has the commands for the packaged service.
` + exitHelp,
		Example: "  broker backup /var/backups/retained-$(date +%F).db",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			size, err := backup(c, p, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "wrote %s, %d KiB\n", args[0], size>>10)
			return err
		},
	}
}

// backup writes the copy beside its place, checks it and gives it its name.
func backup(c *cobra.Command, p *paths, path string) (size int64, err error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, cli.Hint(fmt.Errorf("%s: %w", path, fs.ErrExist), "a backup replaces no file: give it a name of its own")
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".backup-*")
	if err != nil {
		return 0, cli.Hint(fmt.Errorf("writing the backup: %w", err), "the file is written by you, not by the broker: choose a directory that you may write in")
	}
	defer os.Remove(f.Name())
	size, err = p.client().Stream(c.Context(), "/v1/backup", f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := retained.CheckFile(f.Name()); err != nil {
		return 0, fmt.Errorf("reading the backup back: %w", err)
	}
	// A link takes no name that somebody took meanwhile.
	if err := os.Link(f.Name(), path); err != nil {
		return 0, fmt.Errorf("writing the backup: %w", err)
	}
	// Its name is durable, too, when the command says that it is written.
	return size, syncDirectory(filepath.Dir(path))
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
