package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWhatTheServiceMayNotReadIsNamed(t *testing.T) {
	dir := t.TempDir()
	// Those above belong to the test, and who they let in is not its matter.
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	open, secret, hidden := filepath.Join(dir, "open"), filepath.Join(dir, "secret"), filepath.Join(dir, "shut", "open")
	if err := os.Mkdir(filepath.Dir(hidden), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{open: 0o644, secret: 0o640, hidden: 0o644} {
		if err := os.WriteFile(name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(hidden), 0o700); err != nil {
		t.Fatal(err)
	}
	stranger := someone{name: "banmesh", uid: 1 << 20}
	list := stranger.withheld([]string{open, secret, hidden})
	if len(list) != 2 || !strings.HasPrefix(list[0].Text, secret+": ") || !strings.HasPrefix(list[1].Text, hidden+": ") {
		t.Fatalf("got %+v", list)
	}
	if !strings.Contains(list[0].Fix, "chgrp banmesh "+secret) || !strings.Contains(list[1].Fix, "chgrp banmesh "+filepath.Dir(hidden)+" && chmod g+x ") {
		t.Errorf("fixes %q and %q", list[0].Fix, list[1].Fix)
	}
	owner, member := someone{uid: uint32(os.Getuid())}, someone{uid: 1 << 20, groups: []uint32{uint32(os.Getgid())}}
	if list := owner.withheld([]string{open, secret, hidden}); len(list) != 0 {
		t.Errorf("the owner may not read %+v", list)
	}
	if list := member.withheld([]string{secret}); len(list) != 0 {
		t.Errorf("a member of the group may not read %+v", list)
	}
}

// The same command is named wherever a file may not be read: by init, check, doctor and
// status.
func TestTheFixOfAPermissionIsTheLeastThatHelps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "x.log")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := AccessFix("banmesh", file, 4); got != "chgrp banmesh "+file+" && chmod g+r "+file {
		t.Errorf("of a file that its owner alone may read: %s", got)
	}
	if got := AccessFix("banmesh", filepath.Join(dir, "gone"), 5); !strings.HasPrefix(got, "chgrp banmesh ") || !strings.Contains(got, " chmod g+rx ") {
		t.Errorf("of a directory that is gone: %s", got)
	}
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	const adm = 4
	for mode, want := range map[os.FileMode]string{
		0o640: "usermod -aG adm banmesh && systemctl restart banmesh-agent",
		0o620: "chmod g+r " + file + " && usermod -aG adm banmesh && systemctl restart banmesh-agent",
		0o600: "chgrp banmesh " + file + " && chmod g+r " + file,
	} {
		if err := errors.Join(os.Chown(file, 0, adm), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
		if got := AccessFix("banmesh", file, 4); got != want {
			t.Errorf("of adm's, mode %o: %s", mode, got)
		}
	}
}

func TestTheRightsOfAUnitAreRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	groups, all := unitRights(filepath.Join(dir, "*.conf"))
	if !slices.Equal(groups, serviceGroups) || all {
		t.Errorf("the unit alone: %q, %t", groups, all)
	}
	logs, err := os.ReadFile("../../deploy/systemd/logs.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.conf": "[Service]\nSupplementaryGroups=gitea git\n", "logs.conf": string(logs)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	groups, all = unitRights(filepath.Join(dir, "*.conf"))
	if !slices.Equal(groups, append(slices.Clone(serviceGroups), "gitea", "git")) || !all {
		t.Errorf("extended: %q, %t", groups, all)
	}
}
