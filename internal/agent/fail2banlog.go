package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"banmesh/internal/compat/fail2banlog"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
	"banmesh/internal/wholefile"
)

// fail2banPosition keeps how far fail2ban's log was read, below the state directory.
const fail2banPosition = "fail2ban-log.json"

// longestClaim is the longest that a ban is taken over for.
const longestClaim = 90 * 24 * time.Hour

// fail2banLog takes the bans in fail2ban's log over, each as a claim of the
// source fail2ban. The action of deploy/fail2ban says the same by the same
// source, so that a ban of which both tell is one.
type fail2banLog struct {
	settings func() *settings.Settings
	own      *ledger.Own
	state    string // the file of the position
	now      func() time.Time
	log      *slog.Logger

	lasts map[string]time.Duration // by jail, of fail2ban's configuration; negative is for good
	saved source.Position
}

// run reads until ctx ends. Whatever ends it otherwise, a full disk above all,
// is tried again from the last line that was taken.
func (f *fail2banLog) run(ctx context.Context) error {
	if f.settings().Config().Fail2ban.Read == "" {
		return nil
	}
	f.readTimes(ctx)
	for {
		err := f.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.log.WarnContext(ctx, "fail2ban's log is not read", slog.Any("error", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fail2banRetry):
		}
	}
}

// readTimes takes the jails' ban times out of fail2ban's configuration, where it
// can be read; those of topics count otherwise.
func (f *fail2banLog) readTimes(ctx context.Context) {
	f.lasts = map[string]time.Duration{}
	jails, err := detect.ImportJails(detect.DefaultFail2banDir)
	if err != nil {
		f.log.InfoContext(ctx, "fail2ban's configuration is not read: its bans last as long as their topics'", slog.Any("error", err))
	}
	for _, j := range jails {
		if j.Definition != nil && j.Definition.Detect != nil {
			f.lasts[j.Jail] = j.Definition.Detect.BanTime.Duration()
		}
	}
}

func (f *fail2banLog) read(ctx context.Context) error {
	resume := source.Position{}
	b, err := os.ReadFile(f.state)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &resume); err != nil {
			return fmt.Errorf("%s is damaged: remove it, and the log is read anew: %w", f.state, err)
		}
	}
	s, err := source.Open(source.Spec{Files: []string{f.settings().Config().Fail2ban.Read}}, resume, source.Options{
		Log: f.log, Now: f.now, Start: source.StartSince, Since: f.now().Add(-24 * time.Hour),
		LineTime: func(text []byte) (time.Time, bool) {
			x, ok := fail2banlog.ParseLine(text)
			return x.At, ok
		},
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	over := make(chan error, 1)
	go func() { over <- s.Run(running, func(l source.Line) error { return f.take(running, l.Text) }) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err = <-over:
			stop()
			return errors.Join(err, f.save(s))
		case <-tick.C:
			if err := f.save(s); err != nil {
				stop()
				return errors.Join(err, <-over)
			}
		}
	}
}

// save writes the position where it moved.
func (f *fail2banLog) save(s source.Source) error {
	at := s.Position()
	same := at
	same.Time = f.saved.Time
	b, err := json.Marshal(at)
	if err != nil {
		return err
	}
	now, err := json.Marshal(same)
	if err != nil {
		return err
	}
	if before, err := json.Marshal(f.saved); err == nil && string(before) == string(now) {
		return nil
	}
	if err := wholefile.Write(f.state, b, 0o600); err != nil {
		return fmt.Errorf("saving the position in fail2ban's log: %w", err)
	}
	f.saved = at
	return nil
}

// take records the ban that a line says of. An Unban is not taken: it says that
// fail2ban's time is over, and a claim ends by itself.
func (f *fail2banLog) take(ctx context.Context, text []byte) error {
	x, ok := fail2banlog.ParseLine(text)
	if !ok {
		return nil
	}
	conf := f.settings()
	topic, named := conf.Config().Fail2ban.Topics[x.Jail]
	if !named {
		topic = x.Jail
	}
	t, ok := conf.Find(ban.Topic(topic))
	if !ok || t.Definition.Target != "ip" {
		f.log.DebugContext(ctx, "a ban of fail2ban's is of no topic", slog.String("jail", x.Jail))
		return nil
	}
	end := x.End
	if end.IsZero() {
		lasts, known := f.lasts[x.Jail]
		if !known {
			lasts = conf.BanTime(t.Topic)
		}
		if lasts < 0 || lasts > longestClaim {
			lasts = longestClaim
		}
		end = x.At.Add(lasts)
	}
	if most := f.now().Add(longestClaim); end.After(most) {
		end = most
	}
	if !end.After(f.now()) {
		return nil
	}
	err := f.own.Ban(ledger.Local{
		Topic: t.Topic, Source: ledger.SourceFail2ban, At: x.At, Evidence: ledger.Evidence{By: string(ledger.SourceFail2ban), Source: "fail2ban's log"},
		Claim: ban.Claim{Target: x.Target, End: end, Class: classOfTopic(t), Basis: ledger.SourceFail2ban.Basis(), Hits: 1},
	})
	switch {
	case errors.Is(err, ledger.ErrNeverBan), errors.Is(err, ledger.ErrAllowed), errors.Is(err, ledger.ErrUnbanned), errors.Is(err, ledger.ErrEnded):
		f.log.InfoContext(ctx, "a ban of fail2ban's is not taken over", slog.String("target", x.Target.String()), slog.Any("reason", err))
		return nil
	case err != nil:
		return fmt.Errorf("recording a ban of fail2ban's: %w", err)
	}
	f.log.InfoContext(ctx, "a ban of fail2ban's is taken over", slog.String("target", x.Target.String()), slog.String("topic", string(t.Topic)))
	return nil
}

// classOfTopic gives the class of a topic's first rule.
func classOfTopic(t settings.Topic) ban.Class {
	if d := t.Definition.Detect; d != nil && len(d.Rules) > 0 {
		return d.Rules[0].Class
	}
	return ban.ClassAuth
}
