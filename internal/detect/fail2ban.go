package detect

import (
	"fmt"

	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/detect/filter"
	"banmesh/topics"
)

// DefaultFail2banDir is where fail2ban's configuration is.
const DefaultFail2banDir = "/etc/fail2ban"

// fail2banFilter reads the fail2ban filter that a definition names. What the
// definition says itself outranks the filter's file.
func fail2banFilter(def *topics.Definition, dir string) (filter.Config, error) {
	if dir == "" {
		dir = DefaultFail2banDir
	}
	d := def.Detect
	logtype := "file"
	if len(d.Journal) > 0 && !d.Both {
		logtype = "journal"
	}
	read, err := f2bconf.ReadFilter(dir, d.Fail2ban, logtype, nil)
	if err != nil {
		return filter.Config{}, fmt.Errorf("topic %s: %w", def.Name, err)
	}
	c := FilterOf(read)
	c.Name = string(def.Name)
	if c.UseDNS = "no"; d.UseDNS {
		c.UseDNS = "yes"
	}
	c.Ignoreregex = append(c.Ignoreregex, d.Ignoreregex...)
	if len(d.Datepattern) > 0 {
		c.DatePattern = d.Datepattern
	}
	if d.MaxLines > 0 {
		c.MaxLines = d.MaxLines
	}
	return c, nil
}

// FilterOf gives the filter that a file of fail2ban's means.
func FilterOf(f *f2bconf.Filter) filter.Config {
	return filter.Config{
		Name: f.Name, Prefregex: f.Prefregex, Failregex: f.Failregex, Ignoreregex: f.Ignoreregex,
		MaxLines: f.Maxlines, DatePattern: f.Datepattern, UseDNS: f.Usedns,
	}
}
