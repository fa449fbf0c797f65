package agent

import (
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/policy"
)

// A ban that refuses nothing is told as such, with an agent and without.
func TestABanOfAnObservedTopicIsExplainedAsObserved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config   string
		observed bool
	}{
		"enforced":             {"", false},
		"the topic observed":   {"observe = true\n", true},
		"every topic observed": {"[firewall]\nmode = \"observe\"\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, quiet+c.config)
			target := ban.MustTarget("45.1.1.1")
			n.post("/v1/bans", control.BanRequest{Target: target, Topic: "sshd"}, nil)
			running := n.explain(target.String())
			n.stop()
			offline, err := ExplainOffline(t.Context(), Options{ConfigDir: n.dir + "/config", StateDir: n.dir + "/state"}, target)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range []control.Explanation{running, offline} {
				if len(x.Standings) != 1 || x.Standings[0].Action != policy.Ban.String() || x.Standings[0].Observed != c.observed {
					t.Errorf("offline %v: %+v", x.Offline, x.Standings)
				}
			}
		})
	}
}
