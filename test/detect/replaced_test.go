package detect_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// forgeable are sshd's sample lines that name two addresses, one of which a client
// writes, and forms that no sshd of today writes: the topic finds nobody there.
const forgeable = 6

// TestTopicsThatReplaceFiltersFindWhatTheyFind runs the sample lines of each filter that
// an import replaces through the filter and the topic.
func TestTopicsThatReplaceFiltersFindWhatTheyFind(t *testing.T) {
	config, tests := places(t)
	for _, r := range detect.Replacements() {
		text, err := os.ReadFile(filepath.Join(tests, "files", "logs", r.Filter))
		if err != nil {
			t.Fatal(err)
		}
		all := topics.Builtin()
		def := all[slices.IndexFunc(all, func(d *topics.Definition) bool { return d.Name == r.Topic })]
		for _, mode := range r.Modes {
			spec := filepath.Join(config, "filter.d", r.Filter+".conf")
			if mode != "" {
				spec += "[mode=" + mode + "]"
			}
			theirs, err := detect.NewSampler(&topics.Definition{Name: "theirs", Target: "ip", Detect: &topics.Detect{
				Fail2ban: spec, MaxRetry: 1, FindTime: def.Detect.FindTime, BanTime: def.Detect.BanTime,
			}}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			ours, err := detect.NewSampler(def, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			found, missed := 0, 0
			for line := range strings.Lines(string(text)) {
				sample := topics.Sample{Line: strings.TrimRight(line, "\n")}
				if want := theirs.Find(sample).Target; !strings.HasPrefix(line, "#") && !want.IsZero() {
					found++
					if ours.Find(sample).Target != want {
						missed++
						t.Logf("%s: the topic misses %s", spec, sample.Line)
					}
				}
			}
			if found == 0 || missed > 0 && r.Filter != "sshd" || missed > forgeable {
				t.Errorf("%s finds %d lines, of which topic %s misses %d", spec, found, r.Topic, missed)
			}
		}
	}
}
