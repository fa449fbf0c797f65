package settings

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/config"
)

// maxNodes bounds the other nodes that a page shows.
const maxNodes = 32

// checkPage finds faults in [page]. The page commands the node, so it is for
// this machine alone unless it speaks TLS or a person says that another does.
func checkPage(c config.Page, fault faulter) {
	if c.Listen == "" && (c.URL != "" || c.Certificate != "" || c.Plain || len(c.Nodes) > 0) {
		fault("page", "it needs listen, an address such as 127.0.0.1:7938 or the path of a socket")
	}
	if (c.Certificate == "") != (c.Key == "") {
		fault("page.certificate", "a certificate and its key go together")
	}
	if filepath.IsAbs(c.Listen) {
		if c.URL == "" {
			fault("page.url", "behind a socket nobody knows the page's address: say it, such as \"https://bans.example.org\"")
		}
		if c.Certificate != "" {
			fault("page.certificate", "the proxy before a socket speaks TLS, not the page")
		}
	} else if c.Listen != "" {
		checkPageAddress(c, fault)
	}
	if c.URL != "" {
		checkPageURL(c.URL, fault)
	}
	if len(c.Nodes) > maxNodes {
		fault("page.nodes", "%d nodes, at most %d", len(c.Nodes), maxNodes)
	}
	for name, socket := range c.Nodes {
		if _, err := ban.ParseTopic(name); err != nil {
			fault("page.nodes", "%.64q is no name: want a-z, 0-9 and '-'", name)
		}
		if !filepath.IsAbs(socket) {
			fault("page.nodes", "%s: %q is no absolute path of a socket", name, socket)
		}
	}
}

func checkPageAddress(c config.Page, fault faulter) {
	switch a, err := net.ResolveTCPAddr("tcp", c.Listen); {
	case err != nil:
		fault("page.listen", "%v; want an address and a port, such as 127.0.0.1:7938, or the path of a socket", err)
	case !a.IP.IsLoopback() && c.Certificate == "" && !c.Plain:
		fault("page.listen", "%s is reached from other machines without TLS: name a certificate and a key, or say plain = true where a proxy of yours speaks it", c.Listen)
	case !a.IP.IsLoopback() && c.URL == "" && (a.IP == nil || a.IP.IsUnspecified()):
		fault("page.url", "the page is reached by several addresses: say the one for browsers, such as \"https://bans.example.org:7938\"")
	}
}

// checkPageURL wants a scheme and a host, and nothing behind them.
func checkPageURL(text string, fault faulter) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		fault("page.url", "%.200q is no address such as https://bans.example.org: the page is at the root of its host", text)
	}
}
