package recall_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// alertSource is how a test of CrowdSec's hub says whom its log has an alert for.
var alertSource = regexp.MustCompile(`"([0-9A-Fa-f.:]+)" in results\[\d+\]\.Overflow\.GetSources\(\)`)

// TestTopicsFindTheAlertSourcesOfCrowdSecsHub prints whom the shipped topics find
// and ban of those whom CrowdSec's hub has an alert for. HUB_TESTS is
// the hub's folder .tests; without it there is nothing to read. It holds no floor: what
// is asked for differs from edition to edition.
func TestTopicsFindTheAlertSourcesOfCrowdSecsHub(t *testing.T) {
	root := os.Getenv("HUB_TESTS")
	if root == "" {
		t.Skip("HUB_TESTS does not name the folder of the hub's tests")
	}
	asserts, err := filepath.Glob(filepath.Join(root, "*", "scenario.assert"))
	if err != nil {
		t.Fatal(err)
	}
	all, found, banned := 0, 0, 0
	for _, path := range asserts {
		dir := filepath.Dir(path)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sources := map[string]bool{}
		for _, m := range alertSource.FindAllStringSubmatch(string(text), -1) {
			sources[m[1]] = true
		}
		if len(sources) == 0 {
			continue
		}
		log := sampleLog(t, dir)
		hits, bans := foundInLog(t, log), bannedInLog(t, log)
		for _, source := range slices.Sorted(maps.Keys(sources)) {
			all++
			by, banners := topicsThatName(hits, source), topicsThatName(bans, source)
			if len(by) > 0 {
				found++
			}
			if len(banners) > 0 {
				banned++
			}
			fmt.Printf("%-34s %-24s found by %v, banned by %v\n", filepath.Base(dir), source, by, banners)
		}
		for target, by := range hits {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(sources)), func(s string) bool { return names(target, s) }) {
				fmt.Printf("%-34s %-24s no alert; found by %v, banned by %v\n", filepath.Base(dir), target, by, bans[target])
			}
		}
	}
	fmt.Printf("figure recall-hub-found %d sources aim %d\nfigure recall-hub-banned %d sources aim %d\n", found, all, banned, all)
}

// topicsThatName gives the topics that found the target which holds an address.
func topicsThatName(found map[string][]string, address string) []string {
	for target, by := range found {
		if names(target, address) {
			return by
		}
	}
	return nil
}

// sampleLog gives the text of a hub test's log.
func sampleLog(t *testing.T, dir string) []byte {
	config, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(config)) {
		if name, ok := strings.CutPrefix(line, "log_file:"); ok {
			text, err := os.ReadFile(filepath.Join(dir, strings.Trim(strings.TrimSpace(name), `"'`)))
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
	}
	t.Fatalf("%s names no log", dir)
	return nil
}

// foundInLog gives the topics that count a line of a log against a target.
func foundInLog(t *testing.T, log []byte) map[string][]string {
	found := map[string][]string{}
	for _, d := range topics.Builtin() {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		sampler, err := detect.NewSampler(d, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(log))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			target := sampler.FindNext(topics.Sample{Line: lines.Text()}).Target
			if name := target.String(); !target.IsZero() && !slices.Contains(found[name], string(d.Name)) {
				found[name] = append(found[name], string(d.Name))
			}
		}
	}
	return found
}

// bannedInLog gives the topics that ban a target for a log, with their shipped
// thresholds.
func bannedInLog(t *testing.T, log []byte) map[string][]string {
	banned := map[string][]string{}
	for _, d := range topics.Builtin() {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		_, err := detect.Replay(context.Background(), detect.Options{Jails: []detect.Jail{{Definition: d}}}, bytes.NewReader(log), "log", time.Now(), func(v detect.Decision) error {
			if name := v.Target.String(); !slices.Contains(banned[name], string(v.Topic)) {
				banned[name] = append(banned[name], string(v.Topic))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return banned
}
