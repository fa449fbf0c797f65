package settings

import (
	"net"
	"path/filepath"

	"banmesh/internal/ban"
	"banmesh/internal/config"
)

// checkFail2banLog refuses a log of our own bans that a topic reads: each would
// count twice.
func (s *Settings) checkFail2banLog() error {
	path := s.config.Fail2ban.Log
	if path == "" {
		return nil
	}
	for _, t := range s.topics {
		if !t.Detect {
			continue
		}
		for _, glob := range t.Definition.Detect.Files {
			if ok, err := filepath.Match(glob, path); ok && err == nil || glob == path {
				return s.config.At("fail2ban.log", "%s is read by the topic %s, which would count this node's own bans: name another file", path, t.Topic)
			}
		}
	}
	return nil
}

// checkFail2ban finds faults in [fail2ban].
func checkFail2ban(c config.Fail2ban, fault faulter) {
	for _, x := range []struct{ key, path string }{{"fail2ban.socket", c.Socket}, {"fail2ban.log", c.Log}, {"fail2ban.read", c.Read}} {
		if x.path != "" && !filepath.IsAbs(x.path) {
			fault(x.key, "%q is no absolute path", x.path)
		}
	}
	if c.Read != "" && c.Read == c.Log {
		fault("fail2ban.read", "%s is the log that this agent writes", c.Read)
	}
	for jail, topic := range c.Topics {
		if _, err := ban.ParseTopic(topic); topic != "" && err != nil {
			fault("fail2ban.topics", "%s: %v", jail, err)
		}
	}
}

// checkCrowdSec finds faults in [crowdsec]. Credentials and lists go over it in
// plain text, so it is for this machine alone.
func checkCrowdSec(c config.CrowdSec, fault faulter) {
	if c.Listen != "" {
		switch a, err := net.ResolveTCPAddr("tcp", c.Listen); {
		case err != nil:
			fault("crowdsec.listen", "%v; want an address and a port, such as 127.0.0.1:8090", err)
		case !a.IP.IsLoopback():
			fault("crowdsec.listen", "%s is reached from other machines, without TLS: want a loopback address; a tunnel brings others to it", c.Listen)
		}
	}
	for name, topic := range c.Scenarios {
		if _, err := ban.ParseTopic(topic); topic != "" && err != nil {
			fault("crowdsec.scenarios", "%s: %v", name, err)
		}
	}
}
