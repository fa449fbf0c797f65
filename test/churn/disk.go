package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// diskSize is of the file system that the states of all nodes lie on.
const diskSize = 1 << 30

// A disk is a file system that can be frozen: whoever writes to it waits meanwhile,
// as at a disk that does not answer.
type disk struct {
	path   string
	absent bool // it is a directory like any other, and never stalls
	frozen bool
	until  time.Time
}

// newDisk mounts a file as a disk, in the mount namespace of this program, where the
// machine can.
func newDisk(ctx context.Context, dir string) (*disk, error) {
	image, path := filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, diskSize), os.Mkdir(path, 0o755)); err != nil {
		return nil, err
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, path}} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			// As in a container, which has no devices.
			fmt.Printf("the disk never stalls: %s: %v: %s\n", args[0], err, out)
			return &disk{path: path, absent: true}, nil
		}
	}
	return &disk{path: path}, nil
}

// freeze makes the disk answer nobody for so long, or until it is thawed before.
func (d *disk) freeze(ctx context.Context, lasts time.Duration) error {
	if d.frozen || d.absent {
		return nil
	}
	if out, err := exec.CommandContext(ctx, "fsfreeze", "-f", d.path).CombinedOutput(); err != nil {
		return fmt.Errorf("fsfreeze: %w: %s", err, out)
	}
	d.frozen, d.until = true, time.Now().Add(lasts)
	return nil
}

// thaw makes it answer again. A process that waits for it cannot even be killed before.
func (d *disk) thaw() error {
	if !d.frozen {
		return nil
	}
	if out, err := exec.CommandContext(context.Background(), "fsfreeze", "-u", d.path).CombinedOutput(); err != nil {
		return fmt.Errorf("fsfreeze: %w: %s", err, out)
	}
	d.frozen = false
	return nil
}

// close takes the disk away.
func (d *disk) close() error {
	if d.absent {
		return nil
	}
	return errors.Join(d.thaw(), unix.Unmount(d.path, unix.MNT_DETACH))
}
