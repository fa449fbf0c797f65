package settings

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// tree writes files below a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
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

const jailHead = "[DEFAULT]\nfilter = any\naction = nftables[port=\"%(port)s\", protocol=tcp]\nport = 0:65535\nlogpath = /var/log/x\nenabled = true\n"

func TestIncludedJailsAreTopicsAndWhatIsLeftOutIsSaid(t *testing.T) {
	filter := "[Definition]\nfailregex = ^bad <HOST>$\n"
	first := tree(t, map[string]string{
		"filter.d/any.conf": filter, "filter.d/broken.conf": "[Definition]\nfailregex = ^bad (<HOST>$\n",
		"jail.conf": jailHead + "[sshd]\nport = 2222\nmaxretry = 2\n[web]\nport = 80,8000:8002\nbantime = -1\n[mine]\n[torn]\nfilter = broken\n",
	})
	second := tree(t, map[string]string{"filter.d/any.conf": filter, "jail.conf": jailHead + "[web]\n"})
	dir := tree(t, map[string]string{
		"agent.toml":         "include = [\"" + first + "\", \"" + second + "\"]\n[topics.web]\nmaxretry = 9\n[topics.sshd]\ndetect = false\n",
		"topics.d/mine.toml": "name = \"mine\"\ntitle = \"my own\"\n[detect]\nfiles = [\"/own\"]\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^own <ADDR>$']\n",
	})
	s, err := Load(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	web, _ := s.Find("web")
	if !web.Detect || web.Definition.Detect.MaxRetry != 9 || !slices.Equal(web.Scope.Ports, []uint16{80, 8000, 8001, 8002}) || s.Included("web") != first {
		t.Errorf("web: %+v, %+v, %q", web, web.Scope, s.Included("web"))
	}
	sshd, _ := s.Find("sshd")
	if sshd.Detect || sshd.Definition.Detect.MaxRetry != 2 || !slices.Equal(sshd.Scope.Ports, []uint16{2222}) {
		t.Errorf("sshd: %+v, %+v", sshd, sshd.Scope)
	}
	mine, _ := s.Find("mine")
	if mine.Title != "my own" || s.Included("mine") != "" || mine.Detect {
		t.Errorf("mine: %+v", mine)
	}
	if _, ok := s.Find("torn"); ok {
		t.Error("a jail with a broken filter is a topic")
	}
	all := strings.Join(s.Warnings(), "\n")
	for _, want := range []string{
		"left out: jail mine: " + filepath.Join(dir, "topics.d", "mine.toml") + " defines the topic",
		"left out: jail web of " + second + ": the topic web is jail web of " + first + " already",
		"left out: jail torn: ",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the warnings lack %q:\n%s", want, all)
		}
	}
	if err := s.CheckFilters(); err != nil {
		t.Error(err)
	}
}

func TestAnIncludeThatCannotBeReadIsAFaultWithItsPlace(t *testing.T) {
	for text, want := range map[string]string{
		"include = \"relative\"":     `agent.toml:1:1: include: "relative" is no absolute path`,
		"include = [\"/nowhere/x\"]": "agent.toml:1:1: include: /nowhere/x is no configuration of fail2ban",
		"include = 3":                "agent.toml:1:1: include: it is a directory's name or a list of them",
		"include = [3]":              "agent.toml:1:1: include: 3 is no directory's name",
	} {
		_, err := Load(tree(t, map[string]string{"agent.toml": text + "\n"}), "")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestWhatActionsClose(t *testing.T) {
	named := func(name string, options ...string) detect.JailAction {
		a := detect.JailAction{Name: name, Options: map[string]string{}}
		for i := 0; i < len(options); i += 2 {
			a.Options[options[i]] = options[i+1]
		}
		return a
	}
	own := func(start, ban string) detect.JailAction {
		return detect.JailAction{Name: "mine", Start: start, Ban: ban}
	}
	all := topics.Enforce{AllPorts: true}
	web := topics.Enforce{Ports: []string{"80", "443"}, Protocols: []string{"tcp"}}
	for name, c := range map[string]struct {
		actions  []detect.JailAction
		want     topics.Enforce
		warnings int
	}{
		"ports by name and range": {[]detect.JailAction{named("nftables", "port", "ssh,8000:8002", "protocol", "tcp")}, topics.Enforce{Ports: []string{"22", "8000-8002"}, Protocols: []string{"tcp"}}, 0},
		"all ports":               {[]detect.JailAction{named("iptables-allports", "port", "22")}, all, 0},
		"all ports by type":       {[]detect.JailAction{named("nftables", "type", "allports", "port", "22")}, all, 0},
		"every port":              {[]detect.JailAction{named("nftables", "port", "0:65535")}, all, 0},
		"an unknown port":         {[]detect.JailAction{named("nftables", "port", "no-such-service")}, all, 1},
		"udp":                     {[]detect.JailAction{named("nftables", "port", "53", "protocol", "udp")}, topics.Enforce{Ports: []string{"53"}, Protocols: []string{"udp"}}, 0},
		"two actions":             {[]detect.JailAction{named("nftables", "port", "80", "protocol", "tcp"), named("nftables", "port", "443", "protocol", "tcp"), named("sendmail", "dest", "x")}, web, 1},
		"a chain of Docker's":     {[]detect.JailAction{named("nftables", "port", "80,443", "protocol", "tcp", "chain", "DOCKER-USER")}, web, 1},
		"an unknown one beside":   {[]detect.JailAction{named("nftables", "port", "80,443", "protocol", "tcp"), named("mine")}, web, 1},
		"hosts.deny":              {[]detect.JailAction{named("hostsdeny")}, topics.Enforce{Ports: []string{"22"}, Protocols: []string{"tcp"}}, 0},
		"an own rule":             {[]detect.JailAction{own("", "iptables -I INPUT -s <ip> -j DROP")}, all, 1},
		"an own rule with ports":  {[]detect.JailAction{own("", "/sbin/iptables -w -I INPUT 1 -p tcp -m multiport --dports 80,443 -s <ip> -j REJECT --reject-with tcp-reset")}, web, 1},
		"an own chain with ports": {[]detect.JailAction{own("iptables -N mine\niptables -I INPUT -p tcp -m multiport --dports http,https -j mine", "iptables -A mine -s <ip> -j DROP")}, web, 1},
		"a set of ipset":          {[]detect.JailAction{own("ipset create bad hash:ip\niptables -I INPUT -m set --match-set bad src -p tcp -m multiport --dports 80,443 -j DROP", "ipset -exist add bad <ip>")}, web, 1},
		"a set of nft":            {[]detect.JailAction{own("nft add rule inet f input tcp dport { 80, 443 } ip saddr @bad drop", `nft add element inet f bad \{ <ip> \}`)}, web, 1},
		"an nft rule":             {[]detect.JailAction{own("", "nft insert rule inet f input ip saddr <ip> drop")}, all, 1},
		"a route":                 {[]detect.JailAction{own("", "ip route add unreachable <ip>")}, all, 1},
	} {
		m := meaningOf(&detect.Imported{Definition: &topics.Definition{Name: "x"}, Actions: c.actions, Port: "ssh", Protocol: "tcp"})
		if got := m.enforce; !m.bans || !slices.Equal(got.Ports, c.want.Ports) || !slices.Equal(got.Protocols, c.want.Protocols) || got.AllPorts != c.want.AllPorts || len(m.warnings) != c.warnings {
			t.Errorf("%s: got %+v, want %+v", name, m, c.want)
		}
	}
	for name, c := range map[string]struct {
		actions []detect.JailAction
		lets    bool
		why     string
	}{
		"no action":                  {nil, false, "it has no action"},
		"mail":                       {[]detect.JailAction{named("sendmail-whois")}, false, "action sendmail-whois only tells somebody"},
		"a report":                   {[]detect.JailAction{named("abuseipdb")}, false, "action abuseipdb only tells somebody"},
		"a CDN":                      {[]detect.JailAction{named("cloudflare-token")}, false, "action cloudflare-token bans in another program"},
		"a script":                   {[]detect.JailAction{own("", "/usr/local/bin/block <ip>")}, false, "the effect of action mine is not known"},
		"a set that nothing uses":    {[]detect.JailAction{own("ipset create friends hash:ip", "ipset add friends <ip>")}, false, "the effect of action mine is not known"},
		"a set that is let through":  {[]detect.JailAction{own("iptables -I INPUT -m set --match-set friends src -j ACCEPT", "ipset add friends <ip>")}, true, ""},
		"a rule that lets through":   {[]detect.JailAction{own("", "iptables -I f2b-x 1 -s <ip> -j RETURN")}, true, ""},
		"a stock action turned over": {[]detect.JailAction{named("iptables-multiport", "port", "ftp", "blocktype", "RETURN", "returntype", "DROP")}, true, ""},
		"its text turned over":       {[]detect.JailAction{{Name: "nftables", Ban: "nft add element inet f ok { <ip> }", Start: "nft add rule inet f c ip saddr @ok accept"}}, true, ""},
		"one that only logs":         {[]detect.JailAction{own("", "iptables -I INPUT -s <ip> -j LOG")}, false, "the effect of action mine is not known"},
		"an overridden stock action": {[]detect.JailAction{{Name: "iptables", Ban: "/root/notify <ip>", Own: true}}, false, "the effect of action iptables is not known"},
	} {
		m := meaningOf(&detect.Imported{Definition: &topics.Definition{Name: "x"}, Actions: c.actions})
		if m.bans || (m.lets != "") != c.lets || m.why != c.why && !c.lets {
			t.Errorf("%s: got %+v, want %q", name, m, c.why)
		}
	}
}
