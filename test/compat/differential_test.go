package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/firewall/testnet"
	"banmesh/test/compat/crowdsec"
)

// CrowdSec's own local API and ours give a bouncer the same answers about the
// same bans, but for numbers, reasons and fractions of a second.
func TestCrowdSecsOwnServerGivesTheSameAnswers(t *testing.T) {
	t.Parallel()
	theirs, err := crowdsec.Start(t.Context(), t.TempDir(), "../..")
	if errors.Is(err, crowdsec.ErrMissing) {
		t.Skip(err)
	}
	testnet.Must(t, err)
	defer theirs.Stop()
	ours := newLAPI(t)
	ban := func(kind, value string, d time.Duration) {
		t.Helper()
		ours.ban(value, d)
		testnet.Must(t, theirs.Add(t.Context(), kind, value, d.String()))
	}
	ban("--ip", "192.0.2.7", time.Hour)
	ban("--ip", "192.0.2.8", 2*time.Hour)
	ban("--range", "203.0.113.0/24", time.Hour)
	ban("--range", "2001:db8:5::/64", time.Hour)
	live := []string{
		"?ip=192.0.2.7", "?ip=203.0.113.9", "?ip=2001:db8:5::77", "?ip=198.51.100.1", "?range=203.0.113.0/25", "?range=192.0.2.0/24&contains=false",
		"?scopes=ip", "?scopes=range", "?type=captcha", "?type=ban&ip=192.0.2.8", "?value=192.0.2.7", "?limit=10", "",
	}
	compare := func(paths ...string) {
		t.Helper()
		for _, path := range paths {
			got, want := decisionsOf(t, ours.url+"v1/decisions"+path, ours.key), decisionsOf(t, theirs.URL+"/v1/decisions"+path, crowdsec.Key)
			if got != want {
				t.Errorf("%s:\nours   %s\ntheirs %s", path, got, want)
			}
		}
	}
	compare(live...)
	compare("/stream?startup=true")
	ours.lift("192.0.2.7")
	testnet.Must(t, theirs.Delete(t.Context(), "--ip", "192.0.2.7"))
	ban("--ip", "192.0.2.9", time.Hour)
	compare(live...)
	// Theirs forgets what it told; ours repeats it, so only the new parts are
	// the same: an address that ended, one that began.
	got := decisionsOf(t, ours.url+"v1/decisions/stream?startup=false", ours.key)
	for _, want := range []string{"deleted Ip 192.0.2.7", "new Ip 192.0.2.9"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in our delta: %s", want, got)
		}
		if theirs := decisionsOf(t, theirs.URL+"/v1/decisions/stream?startup=false", crowdsec.Key); want == "deleted Ip 192.0.2.7" && !strings.Contains(theirs, want) {
			t.Errorf("%q is not in their delta: %s", want, theirs)
		}
	}
	// Neither wants a request without a key.
	for _, url := range []string{ours.url + "v1/decisions", theirs.URL + "/v1/decisions"} {
		if status, body := ask(t, url, "wrong"); status != http.StatusForbidden || body != `{"message":"access forbidden"}` {
			t.Errorf("%s: %d %s", url, status, body)
		}
	}
}

// decisionsOf gives an answer as lines of scope, value and end in minutes,
// sorted; null as itself.
func decisionsOf(t *testing.T, url, key string) string {
	t.Helper()
	status, body := ask(t, url, key)
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", url, status, body)
	}
	if body == "null" {
		return body
	}
	type decision struct{ Duration, Scope, Type, Value string }
	lists := map[string][]decision{}
	var err error
	if strings.HasPrefix(body, "[") {
		var list []decision
		err = json.Unmarshal([]byte(body), &list)
		lists["live"] = list
	} else {
		err = json.Unmarshal([]byte(body), &lists)
	}
	testnet.Must(t, err)
	var out []string
	for name, list := range lists {
		for _, d := range list {
			rest, err := time.ParseDuration(d.Duration)
			testnet.Must(t, err)
			end := fmt.Sprint(rest.Round(time.Minute))
			if name == "deleted" {
				end = "ended"
			}
			out = append(out, strings.Join([]string{name, d.Scope, d.Value, d.Type, end}, " "))
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), "\n")
}

func ask(t *testing.T, url, key string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	testnet.Must(t, err)
	r.Header.Set("X-Api-Key", key)
	r.Header.Set("User-Agent", "documentation/v1")
	answer, err := http.DefaultClient.Do(r)
	testnet.Must(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	testnet.Must(t, err)
	return answer.StatusCode, string(b)
}
