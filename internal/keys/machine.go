package keys

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banmesh/internal/wholefile"
	"banmesh/internal/wire"
)

// machineFile says on which machine the keys beside it are used.
const machineFile = "machine"

// ErrOtherMachine says that the keys are those of another machine.
var ErrOtherMachine = errors.New("these keys are another machine's: two machines must not write with one key")

// ErrMachineFile says that it cannot be read whose keys these are.
var ErrMachineFile = errors.New("the mark of the machine is damaged")

// isMark says whether a text is one of [Machine].
func isMark(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == markSize
}

// markSize is the length of a machine's mark, in bytes.
const markSize = 16

// Machine tells this machine from a copy of it: a hash of its machine-id, which
// itself is to be told to nobody (machine-id(5)). It is "" where nothing lasts
// that tells machines apart: without a machine-id, and in a container, whose
// image may hold one. root is "/", getenv [os.Getenv].
func Machine(root string, getenv func(string) string) string {
	// systemd and podman set the one, Kubernetes the other.
	if getenv("container") != "" || getenv("KUBERNETES_SERVICE_HOST") != "" {
		return ""
	}
	for _, sign := range []string{"/run/systemd/container", "/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Lstat(filepath.Join(root, sign)); err == nil {
			return ""
		}
	}
	for _, name := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		id := strings.TrimSpace(string(b))
		if raw, bad := hex.DecodeString(id); err != nil || bad != nil || len(raw) != 16 || bytes.Equal(raw, make([]byte, 16)) {
			continue // "uninitialized", as an image before its first boot has it
		}
		sum := hmac.New(sha256.New, []byte(id))
		sum.Write([]byte("banmesh keys 1"))
		return hex.EncodeToString(sum.Sum(nil)[:markSize])
	}
	return ""
}

// Bind ties the keys to a machine, at the first start on it; "" ties them to
// none. On another machine than before, where two could write with one key, it
// makes a key of this machine's own, and says so, or fails with
// [ErrOtherMachine] where the root key is not here to certify one. The node that
// the keys were of stays as it is: it may well be at work.
func (id *Identity) Bind(machine string, now time.Time) (copied bool, err error) {
	if machine == "" || id.dir == "" {
		return false, nil
	}
	path := filepath.Join(id.dir, machineFile)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading whose keys these are: %w", err)
	}
	switch before := strings.TrimSpace(string(b)); {
	case before == machine:
		return false, nil
	case before != "" && !isMark(before):
		return false, fmt.Errorf("%s: %w", path, ErrMachineFile)
	case before != "":
		if !id.HasRoot() {
			return false, fmt.Errorf("%s: %w", path, ErrOtherMachine)
		}
		if err := id.Part(now); err != nil {
			return false, fmt.Errorf("making this machine a node of its own: %w", err)
		}
		copied = true
	}
	return copied, Move(id.dir, machine)
}

// Part makes this machine a node of its own, with a new key, beside the one that
// it was.
func (id *Identity) Part(now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.root == nil {
		return ErrNoRoot
	}
	path := filepath.Join(id.dir, nextKeyFile)
	if err := newKeyFile(path, nodeKeyTitle); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the node's key: %w", err)
	}
	node, err := readKeyFile(path, nodeKeyTitle)
	if err != nil {
		return err
	}
	next := wire.NextCard(id.card, now)
	next.Certify(publicOf(node), now)
	if err := id.sign(next, apart); err != nil {
		return err
	}
	return id.takeNextKey(node)
}

// Move ties the keys in dir to a machine, whichever they were tied to: it takes
// the other one's place.
func Move(dir, machine string) error {
	path := filepath.Join(dir, machineFile)
	if machine == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("noting whose keys these are: %w", err)
		}
		return nil
	}
	if err := wholefile.Write(path, []byte(machine+"\n"), 0o600); err != nil {
		return fmt.Errorf("noting whose keys these are: %w", err)
	}
	return nil
}
