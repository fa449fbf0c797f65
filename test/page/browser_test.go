package page

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"banmesh/internal/control"
)

var (
	update = flag.Bool("update", false, "write the pictures anew")
	shots  = flag.String("shots", "", "a directory for pictures of every page")
)

// paths are every page, by the name of its picture.
var paths = []struct{ name, path string }{
	{"overview", "/"},
	{"bans", "/bans"},
	{"bans-found", "/bans?search=45.1.0.0%2F29"},
	{"explain", "/explain"},
	{"explain-ban", "/explain?target=45.3.0.1"},
	{"explain-own", "/explain?target=203.0.113.7"},
	{"history", "/history"},
	{"peers", "/peers"},
	{"holds", "/holds"},
	{"topics", "/topics"},
	{"sources", "/sources"},
	{"filters", "/filters"},
	{"rules", "/rules"},
	{"rules-tried", "/rules?last=7d"},
	{"denylists", "/denylists"},
	{"invite", "/invite"},
	{"nodes", "/nodes"},
	{"missing", "/missing"},
}

// A browser is one tab, and all that went wrong in it.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu     sync.Mutex
	faults []string
}

// open starts a tab with a profile of its own.
func open(t *testing.T, base string, scripts bool) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(needBrowser(t)), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true), chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("hide-scrollbars", true))
	alone, stop := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, closeTab := chromedp.NewContext(alone)
	t.Cleanup(func() { closeTab(); stop() })
	b := &browser{t: t, ctx: ctx, base: base}
	chromedp.ListenTarget(ctx, b.hear)
	if err := chromedp.Run(ctx); err != nil { // with the tab's own context, which it lives as long as
		t.Fatalf("starting the browser: %v", err)
	}
	b.run("arranging the tab", network.Enable(), log.Enable(), audits.Enable(), runtime.Enable(), emulation.SetScriptExecutionDisabled(!scripts))
	return b
}

// hear notes whatever the policy blocked, scripts that failed, and requests to
// anywhere else.
func (b *browser) hear(event any) {
	fault := ""
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError && !strings.Contains(e.Entry.Text, "404") {
			fault = "console: " + e.Entry.Text
		}
	case *runtime.EventExceptionThrown:
		fault = "exception: " + e.ExceptionDetails.Error()
	case *audits.EventIssueAdded:
		if e.Issue.Code == audits.InspectorIssueCodeContentSecurityPolicyIssue {
			fault = "the content policy was violated"
		}
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, b.base+"/") && !strings.HasPrefix(e.Request.URL, "about:") {
			fault = "it asked for " + e.Request.URL
		}
	}
	if fault != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.faults = append(b.faults, fault)
	}
}

// well fails where something went wrong since the last time.
func (b *browser) well(where string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		b.t.Errorf("%s: %s", where, f)
	}
	b.faults = nil
}

func (b *browser) run(what string, actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b *browser) signIn(w *world) {
	b.t.Helper()
	b.run("signing in", chromedp.Navigate(w.signInLink()), chromedp.Click("form button"), chromedp.WaitVisible("nav"))
}

func (b *browser) to(path string) {
	b.t.Helper()
	b.run(path, chromedp.Navigate(b.base+path), chromedp.WaitVisible("main h1"))
}

// text gives the words of a part of the page.
func (b *browser) text(selector string) (text string) {
	b.t.Helper()
	b.run("reading "+selector, chromedp.Text(selector, &text))
	return text
}

func baseOf(t *testing.T, link string) string {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	return u.Scheme + "://" + u.Host
}

func TestEveryPageInABrowser(t *testing.T) {
	needBrowser(t)
	w := newWorld(t)
	base := baseOf(t, w.signInLink())
	for name, scripts := range map[string]bool{"with scripts": true, "without scripts": false} {
		t.Run(name, func(t *testing.T) {
			b := open(t, base, scripts)
			b.signIn(w)
			for _, p := range paths {
				b.to(p.path)
				b.fits(p.path)
				b.well(p.path)
			}
			b.decides(w, scripts)
		})
	}
	t.Run("by axe", func(t *testing.T) { judged(t, w, base) })
	t.Run("pictures", func(t *testing.T) { pictures(t, w, base) })
	t.Run("after a kill", func(t *testing.T) { outlives(t, w) })
}

// fits says that a narrow screen shows the page without scrolling sideways.
func (b *browser) fits(where string) {
	b.t.Helper()
	var wide float64
	b.run("narrowing", emulation.SetDeviceMetricsOverride(360, 740, 1, false), chromedp.Evaluate("document.documentElement.scrollWidth", &wide))
	if wide > 360 {
		var who string
		b.run("looking for it", chromedp.Evaluate(`[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > 361 && !e.closest(".scroll")).map(e => e.outerHTML.slice(0, 90)).slice(0, 3).join("\n")`, &who))
		b.t.Errorf("%s is %.0f wide on a screen of 360:\n%s", where, wide, who)
	}
	b.run("widening", emulation.SetDeviceMetricsOverride(1280, 900, 1, false))
}

// decides decides by forms as a person does, and checks that the node did it.
func (b *browser) decides(w *world, scripts bool) {
	b.t.Helper()
	target := "45.1.0.7"
	if !scripts {
		target = "45.1.0.8"
	}
	banned := func() int {
		var page control.BanPage
		w.web.get("/v1/bans/page", url.Values{"search": {target}}, &page)
		return page.Matching
	}
	if banned() != 1 {
		b.t.Fatalf("%s is not banned before", target)
	}
	b.to("/bans?search=" + target)
	b.run("unbanning", chromedp.Click(fmt.Sprintf(`button[aria-label="Unban %s"]`, target)), chromedp.WaitVisible(".notice.good"))
	if text := b.text(".notice"); banned() != 0 || !strings.Contains(text, target+" is unbanned") {
		b.t.Errorf("after Unban %d bans are left, and the page says %q", banned(), text)
	}
	b.to("/bans")
	b.run("banning", chromedp.SendKeys(`form[action="/bans/ban"] input[name=target]`, target), chromedp.SetValue(`form[action="/bans/ban"] select`, "postfix"), chromedp.Click(`form[action="/bans/ban"] button`), chromedp.WaitVisible(".notice"))
	if text := b.text(".notice"); banned() != 1 || !strings.Contains(text, target+" is banned in postfix") {
		b.t.Errorf("after Ban %d bans are there, and the page says %q", banned(), text)
	}
	b.to("/topics")
	b.run("switching", chromedp.Click(`button[aria-label="Publish dovecot"]`), chromedp.WaitVisible(".notice"))
	var status control.Status
	w.web.get("/v1/status", nil, &status)
	i := slices.IndexFunc(status.Topics, func(t control.TopicStatus) bool { return t.Topic == "dovecot" })
	if want := scripts; i < 0 || status.Topics[i].Publish == !status.Topics[i].Publish || !strings.Contains(b.text(".notice"), "dovecot: ") {
		b.t.Errorf("after the switch (%v) dovecot is %+v and the page says %q", want, status.Topics[i], b.text(".notice"))
	}
	b.to("/filters")
	b.run("trying", chromedp.SendKeys(`textarea[name=lines]`, "Mar  1 11:59:01 web sshd[7]: Failed password for root from 203.0.113.7 port 4001 ssh2\nMar  1 11:59:02 web myapp[9]: refused 203.0.113.9 after 3 tries"),
		chromedp.SetValue(`select[name=spec]`, "sshd"), chromedp.Click(`form[action="/filters"] button`), chromedp.WaitVisible("#h-fates"))
	if text := b.text("main"); !strings.Contains(text, "1 of 2 lines match") || !strings.Contains(text, "it matches 1 of 1 that were missed") {
		b.t.Errorf("the workshop says:\n%s", text)
	}
	b.to("/invite")
	b.run("inviting", chromedp.SetValue(`input[name=brokers]`, "ssl://broker.example.org:8883"), chromedp.Click(`form[action="/invite"] button`), chromedp.WaitVisible("svg.qr"))
	b.well("forms")
	if scripts {
		b.follows(w)
	}
}

// follows says that a page changes by itself where scripts run.
func (b *browser) follows(w *world) {
	b.t.Helper()
	b.to("/bans?search=45.9.")
	b.run("following", chromedp.WaitReady(`html[data-followed=yes]`))
	w.web.banAll("postfix", 9<<16, 1)
	b.run("waiting for the change", chromedp.WaitVisible(`button[aria-label="Unban 45.9.0.0"]`))
	b.well("following")
}

// judged runs axe-core on every page, in both colour schemes.
func judged(t *testing.T, w *world, base string) {
	text := axe(t)
	if text == "" {
		t.Skip("axe-core was not fetched: make test-page fetches it")
	}
	b := open(t, base, true)
	b.run("looking at the sign-in", chromedp.Navigate(w.signInLink()), chromedp.WaitVisible("main h1"))
	b.rules("sign-in", text)
	b.signIn(w)
	for _, scheme := range []string{"light", "dark"} {
		b.run("choosing "+scheme, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
		for _, p := range paths {
			b.to(p.path)
			b.rules(scheme+" "+p.path, text)
		}
	}
}

func (b *browser) rules(where, text string) {
	b.t.Helper()
	var found string
	b.run("judging "+where, chromedp.Evaluate(text+";0", nil), chromedp.Evaluate(`axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations.map(v => ({id: v.id, help: v.help, nodes: v.nodes.map(n => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "")).slice(0, 3)}))))`, &found,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	var list []struct {
		ID, Help string
		Nodes    []string
	}
	if err := json.Unmarshal([]byte(found), &list); err != nil {
		b.t.Fatalf("%s: axe says %q", where, found)
	}
	for _, v := range list {
		b.t.Errorf("%s: %s (%s): %s", where, v.Help, v.ID, strings.Join(v.Nodes, "\n   "))
	}
}
