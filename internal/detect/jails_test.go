package detect

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// jailTree writes a fail2ban configuration with a filter "any".
func jailTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["filter.d/any.conf"] = "[Definition]\nfailregex = ^<m-<mode>> <HOST>$\n[Init]\nmode = normal\nm-normal = bad\nm-hard = worse\n"
	files["filter.d/recidive.conf"] = "[Definition]\nfailregex = ^Ban <HOST>$\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// imported gives the jails of a configuration by name, and the faults.
func imported(t *testing.T, jails string) (map[string]Imported, error) {
	t.Helper()
	dir := jailTree(t, map[string]string{
		"jail.conf":     "[DEFAULT]\nenabled = true\nfilter = any\nlogpath = /var/log/x\n" + jails,
		"fail2ban.conf": "[Definition]\nlogtarget = /var/log/banned.log\n",
	})
	list, err := ImportJails(dir)
	out := map[string]Imported{}
	for _, i := range list {
		out[i.Jail] = i
	}
	return out, err
}

func TestWhatNothingSetsIsAsInFail2ban(t *testing.T) {
	jails, err := imported(t, "[a]\n[b]\nmode = hard\n[c]\nmode = hard\nfilter = any[mode=%(mode)s]\n")
	if err != nil {
		t.Fatal(err)
	}
	if d := jails["a"].Definition.Detect; d.MaxRetry != 3 || d.FindTime.Duration() != 10*time.Minute || d.BanTime.Duration() != 10*time.Minute || d.UseDNS {
		t.Errorf("defaults: %+v", d)
	}
	for name, want := range map[string]string{"a": "^bad <HOST>$", "b": "^bad <HOST>$", "c": "^worse <HOST>$"} {
		if got := jails[name].Definition.Detect.Rules[0].Regex; !slices.Equal(got, []string{want}) {
			t.Errorf("jail %s looks for %q, want %q", name, got, want)
		}
	}
}

func TestJailsSpeltAlikeStayApart(t *testing.T) {
	jails, err := imported(t, "[nginx_404]\nmaxretry = 7\n[nginx-404]\n[NGINX 404]\n")
	if err != nil {
		t.Fatal(err)
	}
	for jail, want := range map[string]string{"nginx-404": "nginx-404", "NGINX 404": "nginx-404-2", "nginx_404": "nginx-404-3"} {
		i := jails[jail]
		if string(i.Definition.Name) != want {
			t.Errorf("jail %s is topic %s, want %s", jail, i.Definition.Name, want)
		}
		if said := len(i.Warnings) == 1 && strings.Contains(i.Warnings[0].Text, "another jail is spelt nginx-404 too"); said != (want != "nginx-404") {
			t.Errorf("jail %s warns %v", jail, i.Warnings)
		}
	}
}

func TestJailsThatReadFail2bansLog(t *testing.T) {
	jails, err := imported(t, "[recidive]\nfilter = recidive\nlogpath = /var/log/fail2ban.log\n"+
		"[again]\nlogpath = /var/log/banned.log\n[half]\nlogpath = /var/log/fail2ban.log\n  /var/log/other\n[usual]\nlogpath = /var/log/fail2ban.log\n")
	if err != nil {
		t.Fatal(err)
	}
	if d := jails["recidive"].Definition.Detect; !d.Decisions || len(d.Files)+len(d.Journal) > 0 {
		t.Errorf("recidive counts a ban twice: %+v", d)
	}
	for _, name := range []string{"again", "usual"} {
		if !strings.Contains(jails[name].Refused.Text, "it reads fail2ban's own log") {
			t.Errorf("%s: %q", name, jails[name].Refused)
		}
	}
	if half := jails["half"]; half.Refused.Given() || !slices.Equal(half.Definition.Detect.Files, []string{"/var/log/other"}) {
		t.Errorf("half: %+v", half)
	}
}

func TestJailsWithoutAFilter(t *testing.T) {
	jails, err := imported(t, "[hand]\nfilter =\n[own]\nfilter =\nfailregex = ^own <HOST>$\n[empty]\nfilter = empty\n")
	if err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("a filter that is not there: %v", err)
	}
	if d := jails["hand"].Definition; d.Detect != nil {
		t.Errorf("by hand: %+v", d)
	}
	if d := jails["own"].Definition.Detect; d == nil || !slices.Equal(d.Rules[0].Regex, []string{"^own <HOST>$"}) {
		t.Errorf("the jail's own expression: %+v", d)
	}
}

func TestFaultsStandWhereTheirValueDoes(t *testing.T) {
	_, err := imported(t, "maxretry = many\n[a]\nlogpath = /y\n[b]\nmaxretry = 3\nfindtime = soon\n[c]\nmaxretry = 3\nbantime = 5\nfailregex = ^(<HOST>\n[d]\nmaxretry = 1\nfilter = gone\n")
	for _, want := range []string{"jail.conf:5: maxretry", "jail.conf:10: findtime", "jail.conf:14: ", "jail.conf:17: filter"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the faults lack %q: %v", want, err)
		}
	}
}

func TestOneCauseIsOneLine(t *testing.T) {
	jails, err := imported(t, "ignorecommand = /bin/false\nmaxretry = 2\n[a]\nodd = 1\n[b]\n[c]\n")
	if err != nil {
		t.Fatal(err)
	}
	lines, alone := SharedWarnings([]Imported{jails["a"], jails["b"], jails["c"]})
	if len(lines) != 1 || !strings.Contains(lines[0], "ignorecommand") || !strings.HasSuffix(lines[0], "(3 jails: a, b, c)") {
		t.Errorf("%q", lines)
	}
	left := 0
	for _, w := range jails["a"].Warnings {
		if alone(w) {
			left++
		}
	}
	if left != 1 {
		t.Errorf("a: %v", jails["a"].Warnings)
	}
}
