package compat

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"banmesh/internal/firewall/testnet"
	"banmesh/internal/settings"
)

// Each page begins with the lines that a user needs, and the configuration on it
// is valid.
func TestThePagesConfigurationIsValid(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/compat/*.md")
	testnet.Must(t, err)
	if len(pages) < 6 {
		t.Fatalf("%d pages", len(pages))
	}
	token := filepath.Join(t.TempDir(), "http.token")
	testnet.Must(t, os.WriteFile(token, []byte("documentation-token\n"), 0o600))
	printed := regexp.MustCompile(`printf '([^']*)' >> /etc/banmesh/agent\.toml`)
	block := regexp.MustCompile("(?s)```toml\n(.*?)```")
	for _, page := range pages {
		b, err := os.ReadFile(page)
		testnet.Must(t, err)
		text := string(b)
		if _, first, found := strings.Cut(text, "```"); !found || !strings.Contains(strings.ToLower(text), "three lines") {
			t.Errorf("%s has no three lines", page)
		} else if first, _, _ = strings.Cut(first, "```"); strings.Count(strings.TrimSpace(first), "\n") > 4 {
			t.Errorf("%s begins with more than a few lines: %s", page, first)
		}
		var all []string
		for _, m := range printed.FindAllStringSubmatch(text, -1) {
			all = append(all, strings.ReplaceAll(m[1], `\n`, "\n"))
		}
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		if len(all) == 0 {
			t.Errorf("%s shows no configuration", page)
		}
		for _, c := range all {
			dir := t.TempDir()
			testnet.Must(t, os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(strings.ReplaceAll(c, "/etc/banmesh/http.token", token)), 0o600))
			if _, err := settings.Load(dir, ""); err != nil {
				t.Errorf("%s: %v\n%s", page, err, c)
			}
		}
	}
}

// What the page has routers and programs fetch is there.
func TestThePagesAddressesAnswer(t *testing.T) {
	t.Parallel()
	n := newLists(t)
	b, err := os.ReadFile("../../docs/compat/lists.md")
	testnet.Must(t, err)
	seen := 0
	for _, m := range regexp.MustCompile(`http://192\.0\.2\.1:7937(/v1/[^"\s\\\x60]+)`).FindAllStringSubmatch(string(b), -1) {
		seen++
		w := httptest.NewRecorder()
		n.mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, strings.TrimSuffix(m[1], ";"), nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s", m[1], w.Code, w.Body)
		}
	}
	_, formats, found := strings.Cut(string(b), "| `GET /v1/bans.…` |")
	formats, _, ended := strings.Cut(formats, "\n\n")
	if !found || !ended {
		t.Fatal("the page has no table of formats")
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z`, ]+)` \\|").FindAllStringSubmatch(formats, -1) {
		for _, name := range strings.Split(m[1], "`, `") {
			seen++
			w := httptest.NewRecorder()
			n.mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/bans."+name, nil))
			if w.Code != http.StatusOK || w.Body.Len() == 0 {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
	}
	if seen < 16 {
		t.Errorf("%d addresses: the test looks in the wrong place", seen)
	}
	var feed map[string]struct {
		URL4  string `json:"url_4"`
		URL6  string `json:"url_6"`
		Rule  string `json:"rule"`
		Chain string `json:"chain"`
	}
	if err := json.Unmarshal([]byte(snippet(t, "lists.md", "json")), &feed); err != nil || !strings.Contains(feed["banmesh"].URL4, "kind=ipv4") || !strings.Contains(feed["banmesh"].URL6, "kind=ipv6") || feed["banmesh"].Rule != "feed 1" || feed["banmesh"].Chain != "in" {
		t.Errorf("banIP's feed: %+v %v", feed, err)
	}
}
