package agent

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// A bouncer goes on with its last answer while the agent is down. Whoever was let off by
// an edit of the files meanwhile is told as ended when the agent is back.
func TestABouncerIsToldOfAnUnbanByFiles(t *testing.T) {
	t.Parallel()
	const with = quiet + "[lapi]\nlisten = \"127.0.0.1:0\"\n"
	n := newNode(t, with)
	var key control.BouncerKey
	n.post("/v1/bouncers", control.BouncerRequest{Name: "edge"}, &key)
	pull := func(startup string) (fresh, deleted string) {
		t.Helper()
		n.eventually("bouncers are answered", func() bool { return n.a.bouncers.Listen() != "" })
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.a.bouncers.Listen()+"/v1/decisions/stream?startup="+startup, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", key.Key)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%d %s: %v", answer.StatusCode, b, err)
		}
		fresh, deleted, _ = strings.Cut(string(b), `"deleted":`)
		return fresh, deleted
	}
	for _, address := range []string{"198.51.100.1", "198.51.100.2"} {
		n.post("/v1/bans", control.BanRequest{Topic: "sshd", Target: ban.MustTarget(address), For: 3600}, nil)
	}
	n.eventually("both are told", func() bool {
		fresh, _ := pull("true")
		return strings.Contains(fresh, "198.51.100.1") && strings.Contains(fresh, "198.51.100.2")
	})
	n.stop()
	n.configure("never_ban = [{target = \"198.51.100.1\"}]\n" + with)
	n.start()
	n.eventually("the bouncer is told that one is gone", func() bool {
		fresh, deleted := pull("false")
		return strings.Contains(fresh, "198.51.100.2") && !strings.Contains(fresh, "198.51.100.1") && strings.Contains(deleted, "198.51.100.1") && !strings.Contains(deleted, "198.51.100.2")
	})
}
