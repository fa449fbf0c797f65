package settings

import (
	"fmt"
	"io"
	"log/slog"
)

func (l Log) level() (slog.Level, error) {
	if l.Level == "" {
		return slog.LevelInfo, nil
	}
	var v slog.Level
	if err := v.UnmarshalText([]byte(l.Level)); err != nil {
		return v, fmt.Errorf("%q is none of \"debug\", \"info\", \"warn\" and \"error\"", l.Level)
	}
	return v, nil
}

// Logger gives the logger that the file asks for.
func (l Log) Logger(w io.Writer) *slog.Logger {
	level, err := l.level()
	if err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
