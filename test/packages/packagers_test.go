package packages

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banmesh/test/booted"
)

// packagers are the commands of rpm and of Arch's pacman. Arch's /bin/sh is bash.
const packagers = `
rpm() { /usr/bin/rpm --nodeps "$@"; }
install_rpm() { mkdir -p /var/lib/rpm && rpm -Uvh --replacepkgs /root/banmesh-0.1.0-1.x86_64.rpm; }
remove_rpm() { rpm -e banmesh; }
pacman() { ln -sf bash /bin/sh; mkdir -p /var/lib/pacman; printf '[options]\nArchitecture = auto\nSigLevel = Never\nLocalFileSigLevel = Never\n' >/root/pacman.conf; /usr/bin/pacman --config /root/pacman.conf --noconfirm "$@" 2>&1; }
install_pacman() { pacman -Udd /root/banmesh-0.1.0-1-x86_64.pkg.tar.zst; }
remove_pacman() { pacman -Rdd banmesh; }
`

// TestOtherPackagersInstallUpgradeAndRemove has rpm and pacman do it with their own programs: the
// scripts run, an upgrade keeps the agent and its bans, a removal leaves no program, unit or rule.
func TestOtherPackagersInstallUpgradeAndRemove(t *testing.T) {
	if !*packages {
		t.Skip("make test-packages runs it")
	}
	base := t.TempDir()
	top, err := filepath.Abs("../..")
	must(t, err)
	build(t, top, base, "0.1.0", "rpm archlinux")
	h := booted.New(t)
	for _, name := range []string{"banmesh-0.1.0-1.x86_64.rpm", "banmesh-0.1.0-1-x86_64.pkg.tar.zst"} {
		h.Copy(filepath.Join(base, name), "root/"+name, 0o644)
	}
	m := h.Start(4*time.Minute, "")
	m.Must(clean)
	for _, tool := range []string{"rpm", "pacman"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("%s is not here: make test-packages installs it", tool)
			continue
		}
		m.Must(packagers + "install_" + tool + " || exit 1; ! systemctl is-active -q banmesh-agent && [ -e /usr/share/zsh/site-functions/_banmesh ] && id banmesh && banmesh init --yes --enforce --topics sshd --no-selftest && banmesh ban 203.0.113.80 --topic sshd --for 1h")
		m.Must(packagers + "was=$(systemctl show -p MainPID banmesh-agent); install_" + tool + " || exit 1; systemctl is-active banmesh-agent && [ \"$was\" != \"$(systemctl show -p MainPID banmesh-agent)\" ] && banmesh bans | grep 203.0.113.80 && nft list ruleset | grep -q 203.0.113.80")
		m.Must(packagers + "remove_" + tool + " || exit 1; ! systemctl is-active -q banmesh-agent && ! nft list ruleset | grep -i banmesh && ! ls /usr/bin/banmesh /usr/lib/systemd/system/banmesh* 2>/dev/null && [ -d /var/lib/banmesh ]")
	}
}
