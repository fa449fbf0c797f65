// Package prometheus checks the metrics of live programs, and the dashboards and
// alerts that go by them, with Prometheus's own rules and, where it is installed,
// Prometheus itself.
package prometheus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

const (
	rulesFile = "../../deploy/prometheus/banmesh.rules.yml"
	testFile  = "../../deploy/prometheus/banmesh.test.yml"
	docsFile  = "../../docs/metrics.md"
)

// queries gives every query of the dashboards and alerts, by where it stands.
func queries(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	dashboards, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(dashboards) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	for _, file := range dashboards {
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(read(t, file), &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, p := range d.Panels {
			for i, x := range p.Targets {
				expr := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(x.Expr)
				out[fmt.Sprintf("%s, %s, %d", filepath.Base(file), p.Title, i)] = expr
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)- alert: (\w+)\n\s+expr: (.+)$`).FindAllStringSubmatch(string(read(t, rulesFile)), -1) {
		out["alert "+m[1]] = m[2]
	}
	return out
}

var metricName = regexp.MustCompile(`\bbanmesh_\w+`)

// TestDashboardsAndAlertsAskForMetricsThatExist compares names; docs/metrics.md is
// held by tests of the programs.
func TestDashboardsAndAlertsAskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, name := range metricName.FindAllString(string(read(t, docsFile)), -1) {
		known[name] = true
	}
	all := queries(t)
	if len(all) < 60 {
		t.Errorf("%d queries are found", len(all))
	}
	for where, expr := range all {
		for _, name := range metricName.FindAllString(expr, -1) {
			if !known[name] && !known[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("%s asks for %s, which no program has", where, name)
			}
		}
	}
}

func TestAlertRulesPassTheirTest(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is not here, and make test installs it")
		}
		t.Skip("promtool is not here: make test-prometheus installs it")
	}
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", testFile}} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestLiveProgramsServeMetricsAsPrometheusWantsThem runs a broker and two agents in
// a network of their own: alice finds an offender in a log, bob bans on her word.
func TestLiveProgramsServeMetricsAsPrometheusWantsThem(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace with bans in its kernel needs root")
	}
	if os.Getenv(inside) == "" {
		c := exec.CommandContext(t.Context(), "unshare", "--net", "--mount", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), inside+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	n := startNetwork(t)
	for name, url := range n.metrics {
		text := get(t, url)
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", name, p.Metric, p.Text)
		}
		for _, want := range []string{`banmesh_build_info{goversion="go`, "go_goroutines ", "process_resident_memory_bytes "} {
			if !strings.Contains(text, "\n"+want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
		if promtool, err := exec.LookPath("promtool"); err == nil {
			c := exec.CommandContext(t.Context(), promtool, "check", "metrics")
			c.Stdin = strings.NewReader(text)
			if out, err := c.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
				t.Errorf("promtool check metrics of %s: %v\n%s", name, err, out)
			}
		}
	}
	alice, bob := get(t, n.metrics["alice"]), get(t, n.metrics["bob"])
	for _, want := range []struct{ text, line string }{
		{alice, "banmesh_line_to_kernel_seconds_count 1"},
		{alice, `banmesh_bans{origin="here",topic="sshd"} 3`},
		{bob, "banmesh_claim_to_kernel_seconds_count 1"},
		{bob, `banmesh_bans{origin="peers",topic="sshd"} 2`},
		{bob, `banmesh_peer_claims{operator="alice"} `},
		{bob, `banmesh_peer_banning_claims{operator="alice"} 2`},
		{bob, `banmesh_peer_oldest_feed_timestamp_seconds{operator="alice"} `},
		{bob, `banmesh_certificate_end_timestamp_seconds `},
		{bob, `banmesh_held_claims{reason="over budget"} 0`},
		{bob, `banmesh_enforcing 1`},
	} {
		if !strings.Contains(want.text, "\n"+want.line) {
			t.Errorf("no %s in\n%s", want.line, regexp.MustCompile(`(?m)^(#|go_|process_).*\n`).ReplaceAllString(want.text, ""))
		}
	}
	if strings.Contains(alice+bob, attacker) {
		t.Error("an offender's address is in the metrics")
	}
	askPrometheus(t, n)
}

// askPrometheus has a Prometheus scrape the programs and asks it everything that
// dashboards and alerts ask.
func askPrometheus(t *testing.T, n *network) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("prometheus is not here, and make test installs it")
		}
		t.Log("prometheus is not here: make test-prometheus installs it")
		return
	}
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	target := func(name string) string {
		return strings.TrimSuffix(strings.TrimPrefix(n.metrics[name], "http://"), "/metrics")
	}
	n.write("prometheus.yml", fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: banmesh-agent
    static_configs: [{targets: [%q, %q]}]
  - job_name: banmesh-broker
    static_configs: [{targets: [%q]}]
`, rules, target("alice"), target("bob"), target("broker")))
	n.start(program, "--config.file="+n.path("prometheus.yml"), "--storage.tsdb.path="+n.path("tsdb"), "--web.listen-address=127.0.0.1:9090")
	ask := func(expr string) (samples int, err error) {
		resp, err := http.Get("http://127.0.0.1:9090/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		var a struct {
			Status, Error string
			Data          struct{ Result []json.RawMessage }
		}
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
			return 0, err
		}
		if a.Status != "success" {
			return 0, fmt.Errorf("%s", a.Error)
		}
		return len(a.Data.Result), nil
	}
	eventually(t, "Prometheus scrapes all three twice", func() bool {
		samples, err := ask(`count_over_time(up[1m]) >= 2 and up == 1`)
		return err == nil && samples == 3
	})
	answered := 0
	for where, expr := range queries(t) {
		samples, err := ask(expr)
		if err != nil {
			t.Errorf("%s: %v: %s", where, err, expr)
		}
		if samples > 0 && !strings.HasPrefix(where, "alert") {
			answered++
		}
	}
	// Panels of absent events have nothing to show.
	if answered < 40 {
		t.Errorf("%d queries of dashboards have an answer", answered)
	}
	var r struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	eventually(t, "all rules were evaluated", func() bool {
		return json.Unmarshal([]byte(get(t, "http://127.0.0.1:9090/api/v1/rules")), &r) == nil && len(r.Data.Groups) == 2 &&
			!slices.ContainsFunc(r.Data.Groups, func(g struct {
				Rules []struct{ Name, Health, LastError string }
			},
			) bool {
				return slices.ContainsFunc(g.Rules, func(x struct{ Name, Health, LastError string }) bool { return x.Health != "ok" })
			})
	})
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(b)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}
