package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// refusal is the warning that the newest configuration is not in force.
func (n *node) refusal() string {
	n.t.Helper()
	var s control.Status
	if err := n.client.Get(n.t.Context(), "/v1/status", nil, &s); err != nil {
		n.t.Fatal(err)
	}
	for _, w := range s.Warnings {
		if w.Code == "configuration" {
			return w.Text
		}
	}
	return ""
}

// A fault in a file and a restart do not end protection together: the node runs with the
// configuration that was in force, says so, and takes the mended one.
func TestARefusedConfigurationLeavesTheLastGoodOneInForceAcrossARestart(t *testing.T) {
	t.Parallel()
	const good = "[topics.sshd]\ndetect = false\nbantime = \"2h\"\n[[never_ban]]\ntarget = \"45.9.9.9\"\n"
	for name, bad := range map[string]string{
		"no TOML":     good + "[[",
		"a field":     good + "[topics.sshd.x]\ny = 1\n",
		"no value":    strings.Replace(good, "2h", "soon", 1),
		"another one": "[firewall]\nmode = \"perhaps\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, good)
			if text := n.refusal(); text != "" {
				t.Errorf("a good configuration: %s", text)
			}
			n.configure(bad)
			for range 2 {
				n.restart()
				if text := n.refusal(); !strings.Contains(text, "the newest configuration is not in force: ") || !strings.Contains(text, "agent.toml") {
					t.Errorf("status says %q", text)
				}
				if err := n.client.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget("45.9.9.9"), Topic: "sshd"}, nil); err == nil {
					t.Error("a never-ban entry of the last good configuration does not hold")
				}
			}
			if err := n.client.Post(t.Context(), "/v1/reload", control.ReloadRequest{Yes: true}, nil); err == nil || n.refusal() == "" {
				t.Error("a reload takes the refused configuration")
			}
			n.configure(strings.Replace(good, "45.9.9.9", "45.9.9.8", 1))
			n.post("/v1/reload", control.ReloadRequest{Yes: true}, nil)
			if text := n.refusal(); text != "" {
				t.Errorf("mended: %s", text)
			}
			n.configure(bad)
			n.restart()
			if err := n.client.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget("45.9.9.8"), Topic: "sshd"}, nil); err == nil {
				t.Error("the copy is not the configuration that was reloaded last")
			}
			if left, _ := filepath.Glob(filepath.Join(n.dir, "state", lastGoodFile+"-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Without a copy, or with a damaged one, a refused configuration is no start.
func TestARefusedConfigurationWithoutAGoodOneIsNoStart(t *testing.T) {
	t.Parallel()
	config, state := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(config, "agent.toml"), []byte("[["), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", `{"agent.toml":"W1s="}`, `{"../agent.toml":""}`} {
		if text != "" {
			if err := os.WriteFile(filepath.Join(state, lastGoodFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if s, refused, err := settingsAtStart(config, state); err == nil {
			t.Errorf("with the copy %q: %v, %v", text, s, refused)
		}
	}
}

func TestTheCopyOfTheConfigurationIsBounded(t *testing.T) {
	t.Parallel()
	config, state := t.TempDir(), t.TempDir()
	for _, size := range []int64{lastGoodMost, lastGoodMost + 1} {
		if err := os.WriteFile(filepath.Join(config, "x.list"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(config, "x.list"), size); err != nil {
			t.Fatal(err)
		}
		if err := keepLastGood(config, state); (err == nil) != (size <= lastGoodMost) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
