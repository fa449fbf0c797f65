package settings

import (
	"errors"
	"io/fs"

	"banmesh/internal/ban"
	"banmesh/internal/config"
)

// lay lays the switches of the page over the configuration's. Those of topics that are
// no longer defined are left: the topic may come back.
func (s *Settings) lay(state string) error {
	switches, err := config.ReadSwitches(state)
	if errors.Is(err, fs.ErrPermission) {
		s.unseen = true // the state directory is the service's and root's
		return nil
	}
	if err != nil {
		return err
	}
	s.onPage = map[ban.Topic]config.Switch{}
	for name, x := range switches.Topics {
		if s.definitions[ban.Topic(name)] == nil {
			continue
		}
		s.onPage[ban.Topic(name)] = x
		if s.config.Topics == nil {
			s.config.Topics = map[string]config.Topic{}
		}
		t := s.config.Topics[name]
		for _, set := range []struct {
			to   **bool
			from *bool
		}{{&t.Detect, x.Detect}, {&t.Subscribe, x.Subscribe}, {&t.Publish, x.Publish}} {
			if set.from != nil {
				*set.to = set.from
			}
		}
		s.config.Topics[name] = t
	}
	return nil
}

// Unseen says that this user may not read which switches were set on the page.
func (s *Settings) Unseen() bool { return s.unseen }
