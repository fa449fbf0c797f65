package recent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/export"
	"banmesh/internal/wholefile"
)

// saveEvery is how often the ends that readers may have been told are written down. A
// node that is killed knows those of the last time; the others end as they were told.
const saveEvery = 5 * time.Minute

// Open makes a log of a table that has all bans in force, and compares them with those
// that readers were told before the node stopped, out of the file at path. One that is
// missing or damaged costs that knowledge alone.
func Open(path string, table *export.Table, now func() time.Time, log *slog.Logger) *Log {
	l := New(table, now, nil)
	l.path, l.log = path, log
	b, err := os.ReadFile(path)
	if err == nil {
		err = l.restore(b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("ends that bouncers were told are not known", slog.Any("error", err))
	}
	return l
}

// restore makes an event of each ban that is not as a line of the file has it.
func (l *Log) restore(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var told int64
		var topic, text string
		var s export.Step
		if _, err := fmt.Sscanf(lines.Text(), "%d %d %t %s %s", &told, &s.Class, &s.Here, &topic, &text); err != nil {
			return fmt.Errorf("%s: %.80q is damaged: %w", l.path, lines.Text(), err)
		}
		target, err := ban.ParseTarget(text)
		if err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
		s.Target, s.Topic, s.Before = target, ban.Topic(topic), time.Unix(told, 0).UTC()
		for _, e := range l.table.Of(target) {
			if e.Topic == s.Topic {
				s.Entry = e
			}
		}
		if s.Before.After(now) && !s.Until.Equal(s.Before) {
			l.take(s)
		}
	}
	return nil
}

// save writes down which ends readers may have been told.
func (l *Log) save() {
	l.mu.Lock()
	l.advance()
	serial, told := l.serial, make([]Event, 0, len(l.gone)+len(l.again))
	for _, e := range l.gone {
		told = append(told, e)
	}
	for _, s := range l.again {
		told = append(told, s.Event)
	}
	l.mu.Unlock()
	if l.path == "" || serial == l.saved {
		return
	}
	var b bytes.Buffer
	line := func(end time.Time, e Event) {
		if topic := string(e.Topic); !end.IsZero() && topic != "" && !strings.ContainsAny(topic, " \n") {
			fmt.Fprintf(&b, "%d %d %t %s %s\n", end.Unix(), e.Class, e.Here, topic, e.Target)
		}
	}
	_, entries := l.table.Snapshot()
	for e := range entries {
		if _, ok := e.Target.Prefix(); ok {
			line(e.Until, Event{Target: e.Target, Topic: e.Topic, Class: e.Class, Here: e.Here})
		}
	}
	for _, e := range told {
		line(e.Told, e)
	}
	if err := wholefile.Write(l.path, b.Bytes(), 0o600); err != nil {
		l.log.Warn("ends that bouncers were told are not written down", slog.Any("error", err))
		return
	}
	l.saved = serial
}
