package detect_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banmesh/internal/detect/f2bconf"
)

// asJSON turns the lists that fail2ban-client prints into JSON, a line each.
const asJSON = `import sys,ast,json
for l in sys.stdin:
    if l.startswith('['):
        print(json.dumps(ast.literal_eval(l)))`

// TestEveryJailOfTheInstalledConfigurationReadsAsFail2banReadsIt enables all
// jails and compares with the commands of fail2ban itself to its server.
func TestEveryJailOfTheInstalledConfigurationReadsAsFail2banReadsIt(t *testing.T) {
	config, _ := places(t)
	if _, err := exec.LookPath("fail2ban-client"); err != nil {
		t.Skip("fail2ban-client is not installed")
	}
	dir := filepath.Join(t.TempDir(), "etc")
	if out, err := exec.Command("cp", "-r", config, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	log := filepath.Join(t.TempDir(), "any.log")
	if err := os.WriteFile(log, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "jail.local"), []byte("[DEFAULT]\nenabled = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// fail2ban gives up on a jail without a log, so each jail gets one.
	ours, err := f2bconf.ReadJails(dir)
	if err != nil {
		t.Log(err)
	}
	var local strings.Builder
	local.WriteString("[DEFAULT]\nenabled = true\n")
	for _, j := range ours {
		local.WriteString("[" + j.Name + "]\nlogpath = " + log + "\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "jail.local"), []byte(local.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if ours, err = f2bconf.ReadJails(dir); err != nil {
		t.Log(err)
	}
	compared := len(compareJails(t, dir, ours))
	t.Logf("%d jails compared", compared)
	if compared < 80 {
		t.Errorf("only %d jails were compared", compared)
	}
}

// compareJails compares jails with the commands that fail2ban gives its server for the
// same configuration, and gives the names of those that it takes.
func compareJails(t *testing.T, dir string, ours []*f2bconf.Jail) (taken []string) {
	var dump bytes.Buffer
	client := exec.Command("fail2ban-client", "-c", dir, "-d")
	client.Stdout = &dump
	if err := client.Run(); err != nil {
		t.Logf("fail2ban-client: %v", err)
	}
	convert := exec.Command("python3", "-c", asJSON)
	convert.Stdin = &dump
	out, err := convert.Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := commands(t, out)
	for _, j := range ours {
		want, ok := theirs[j.Name]
		if !ok {
			continue // fail2ban leaves out jails with faults
		}
		taken = append(taken, j.Name)
		for key, got := range map[string][]string{
			"addfailregex": j.Filter.Failregex, "addignoreregex": j.Filter.Ignoreregex, "prefregex": one(j.Filter.Prefregex),
			"addlogpath": j.Logpath, "maxretry": one(j.Options["maxretry"]), "findtime": one(j.Options["findtime"]), "bantime": one(j.Options["bantime"]),
			"usedns": one(j.Options["usedns"]), "addignoreip": strings.Fields(strings.ReplaceAll(j.Options["ignoreip"], ",", " ")), "addjournalmatch": strings.Fields(strings.Join(j.Filter.Journalmatch, " ")),
		} {
			if key == "addlogpath" && strings.HasPrefix(j.Backend, "systemd") {
				continue
			}
			if !slices.Equal(got, want[key]) {
				t.Errorf("jail %s: %s:\n got %q\nwant %q", j.Name, key, got, want[key])
			}
		}
		if got := strings.Join(j.Filter.Datepattern, "\n"); got != strings.Trim(strings.Join(want["datepattern"], "\n"), "\n") {
			t.Errorf("jail %s: datepattern:\n got %q\nwant %q", j.Name, got, want["datepattern"])
		}
	}
	return taken
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// commands gathers, by jail and command, the values that were set.
func commands(t *testing.T, out []byte) map[string]map[string][]string {
	all := map[string]map[string][]string{}
	for _, line := range bytes.Split(bytes.TrimSpace(out), []byte("\n")) {
		var c []any
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		verb, _ := c[0].(string)
		if len(c) < 4 || verb != "set" && verb != "multi-set" {
			continue
		}
		jail, _ := c[1].(string)
		key, _ := c[2].(string)
		if all[jail] == nil {
			all[jail] = map[string][]string{}
		}
		if key == "addignoreip" || key == "addjournalmatch" { // each word is an argument
			for _, x := range c[3:] {
				word, _ := x.(string)
				all[jail][key] = append(all[jail][key], word)
			}
			continue
		}
		switch v := c[3].(type) {
		case []any:
			for _, x := range v {
				s, _ := x.(string)
				all[jail][key] = append(all[jail][key], s)
			}
		case string:
			// Options of the jail are set after those of its filter.
			if strings.HasPrefix(key, "add") {
				all[jail][key] = append(all[jail][key], v)
			} else {
				all[jail][key] = []string{v}
			}
		case float64:
			b, _ := json.Marshal(v)
			all[jail][key] = []string{string(b)}
		}
	}
	return all
}
