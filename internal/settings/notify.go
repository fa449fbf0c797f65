package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"banmesh/internal/config"
	"banmesh/internal/notify"
	"banmesh/internal/span"
	"banmesh/internal/strict"
)

// Receivers gives the receivers of messages, in their order.
func (s *Settings) Receivers() []notify.Entry { return s.receivers }

// checkNotify finds faults in the entries of receivers, and gives the entries.
func checkNotify(list []config.Notify, fault faulter) (out []notify.Entry) {
	if len(list) > notify.MaxEntries {
		fault("notify", "%d receivers: the most are %d", len(list), notify.MaxEntries)
		return nil
	}
	names := map[string]bool{}
	for i, c := range list {
		at := func(key string) string { return fmt.Sprintf("notify.%d.%s", i, key) }
		e := receiverOf(c, func(key, format string, args ...any) { fault(at(key), format, args...) })
		for _, f := range e.Check() {
			err := f.Err
			if like := strict.Nearest(c.Type, notify.Types()); f.Key == "type" && like != "" {
				err = fmt.Errorf("%w: did you mean %q?", err, like)
			}
			fault(at(f.Key), "%v", err)
		}
		if names[e.Name] {
			fault(at("name"), "%q is the name of a receiver before", e.Name)
		}
		names[e.Name] = true
		// Who may not read the file may still ask other things of the configuration.
		if _, err := e.Secret(); err != nil && !errors.Is(err, fs.ErrPermission) {
			fault(at("token_file"), "%v", err)
		}
		out = append(out, e)
	}
	return out
}

func receiverOf(c config.Notify, fault faulter) notify.Entry {
	e := notify.Entry{
		Name: c.Name, Type: notify.Type(c.Type), URL: c.URL, To: c.To, From: c.From, User: c.User, TokenFile: c.TokenFile, CAFile: c.CAFile, Plain: c.Plain,
		On: kindsOf("on", c.On, notify.DefaultKinds(), fault), Urgent: kindsOf("urgent", c.Urgent, []notify.Kind{notify.Fault}, fault),
		Every: notify.DefaultEvery, Details: c.Details, Label: c.Label,
	}
	if c.Every != "" {
		d, err := span.Parse(string(c.Every))
		if err != nil {
			fault("every", "%v", err)
			d = time.Minute
		}
		e.Every = d
	}
	var err error
	if e.Quiet, err = notify.ParseQuiet(c.Quiet); err != nil {
		fault("quiet", "%v", err)
	}
	return e
}

// kindsOf reads the kinds at a key; none that are written mean none, a key that is
// left out means the usual ones.
func kindsOf(key string, list []string, usual []notify.Kind, fault faulter) (out []notify.Kind) {
	if list == nil {
		return usual
	}
	for _, text := range list {
		k, ok := notify.ParseKind(text)
		if !ok {
			var names []string
			for _, k := range notify.Kinds() {
				names = append(names, string(k))
			}
			hint := ""
			if like := strict.Nearest(text, names); like != "" {
				hint = fmt.Sprintf(": did you mean %q?", like)
			}
			fault(key, "%.64q is none of %s%s", text, strings.Join(names, ", "), hint)
			continue
		}
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}
