package api

import (
	"net/http"
	"path/filepath"
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// jail answers for one topic as fail2ban-client does for a jail.
func (s *Server) jail(r *http.Request) (any, error) {
	topic := ban.Topic(r.URL.Query().Get("topic"))
	t, ok := s.o.Settings().Find(topic)
	if !ok {
		return nil, noTopic(topic)
	}
	out := jailStatus(t, s.o.Detection.Status())
	for x := range s.o.Ledger.Bans(ledger.Filter{Topic: topic}) {
		if out.CurrentlyBanned++; x.Why == policy.ReasonLocal {
			out.Own++
		}
		if len(out.Banned) < maxListed {
			out.Banned = append(out.Banned, x.Target)
		}
	}
	slices.SortFunc(out.Banned, ban.Target.Compare)
	return out, nil
}

// jailStatus gives the counters and sources of a topic.
func jailStatus(t settings.Topic, d detect.Status) control.JailStatus {
	s := control.JailStatus{
		Topic: t.Topic, Detect: t.Detect, Simulate: t.Simulate, Files: []string{}, Journal: []string{}, Other: []string{}, Banned: []ban.Target{},
	}
	i := slices.IndexFunc(d.Jails, func(j detect.JailStatus) bool { return j.Topic == t.Topic })
	if i < 0 {
		return s
	}
	j := d.Jails[i]
	s.CurrentlyFailed, s.TotalFailed, s.Ignored, s.Evicted = j.Tracked, j.Found, j.Ignored, j.Evicted
	s.TotalBanned, s.Timeouts = j.Banned, j.Timeouts
	x := t.Definition.Detect
	for _, i := range j.Sources {
		spec := d.Sources[i].Spec
		// A source is shared: only the logs that this topic names are its own.
		for _, stream := range d.Sources[i].Status.Streams {
			if slices.ContainsFunc(x.Files, func(glob string) bool {
				ok, err := filepath.Match(glob, stream.Name)
				return ok && err == nil || glob == stream.Name
			}) {
				s.Files = append(s.Files, stream.Name)
			}
		}
		if len(spec.Journal) > 0 {
			s.Journal = append(s.Journal, x.Journal...)
		}
		for _, name := range x.Docker {
			s.Other = append(s.Other, "container "+name)
		}
		s.Other = append(s.Other, x.Syslog...)
		if x.Stdin {
			s.Other = append(s.Other, "standard input")
		}
		if len(s.Files)+len(s.Journal)+len(s.Other) == 0 {
			s.Files = append(s.Files, spec.Files...) // none is there yet
		}
	}
	if x.Decisions {
		s.Other = append(s.Other, "the bans of this node's other topics")
	}
	slices.Sort(s.Files)
	s.Files = slices.Compact(s.Files)
	return s
}
