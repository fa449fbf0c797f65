package page

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"banmesh/internal/control"
)

// outlives says that the charts of an agent that was killed are those of before.
func outlives(t *testing.T, w *world) {
	if os.Getenv(alone) != "" {
		knock(t, "203.0.113.7", 30)
		eventually(t, "the kernel meets a banned address", func() bool {
			var s control.Status
			w.web.get("/v1/status", nil, &s)
			return slices.ContainsFunc(s.Topics, func(t control.TopicStatus) bool { return t.Topic == "sshd" && t.Packets >= 30 })
		})
	}
	charts := func() string {
		b := open(t, baseOf(t, w.signInLink()), false)
		b.signIn(w)
		var legends []string
		b.run("reading the charts", chromedp.Evaluate(`[...document.querySelectorAll("#charts figure")].map(f => f.querySelector("strong").textContent + ": " + (f.querySelector(".legend")?.textContent.trim() ?? "none"))`, &legends))
		return strings.Join(legends, "\n")
	}
	before := charts()
	w.web.kill()
	w.web.start(w.program, w.config)
	if after := charts(); after != before || !strings.Contains(before, "postfix") || os.Getenv(alone) != "" && !strings.Contains(before, "Packets met, by topic: sshd ") {
		t.Errorf("before the kill\n%s\nafter it\n%s", before, after)
	}
}
