// Command bench measures the cost of detection: this program's whole path from
// a file to decisions, against fail2ban-regex, the fail2ban server and
// sshguard's parser, on the same generated logs and in the same run.
//
//	go run ./test/detect/bench
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/internal/span"
	"banmesh/topics"
)

// tenFilters are the jails that share one log.
const tenFilters = "sshd,dovecot,postfix,exim,sendmail-auth,proftpd,vsftpd,pure-ftpd,pam-generic,courier-auth"

func main() {
	child := flag.String("child", "", "be the process that is measured: read this log")
	filters := flag.String("filters", "sshd", "fail2ban filters to run, with commas; \"all\" is every one")
	lines := flag.Int("lines", 200_000, "lines of each log")
	server := flag.Bool("server", true, "also measure the fail2ban server")
	rounds := flag.Int("rounds", 3, "runs of each; the cheapest one counts")
	long := flag.Bool("long", true, "also measure lines of 64 KiB")
	only := flag.String("only", "", "\"long\": measure those alone")
	flag.Parse()
	var err error
	if *child != "" {
		err = runChild(*child, *filters)
	} else {
		if *only != "long" {
			err = measure(*lines, *rounds, *server)
		}
		if err == nil && *long {
			err = longLines()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// runChild is the whole path, as the agent runs it, over one file.
func runChild(log, filters string) error {
	list := strings.Split(filters, ",")
	if filters == "all" {
		list = nil
		paths, err := filepath.Glob(filepath.Join(detect.DefaultFail2banDir, "filter.d", "*.conf"))
		if err != nil {
			return err
		}
		for _, p := range paths {
			if name := strings.TrimSuffix(filepath.Base(p), ".conf"); !strings.HasSuffix(name, "common") {
				list = append(list, name)
			}
		}
	}
	var jails []detect.Jail
	for _, name := range list {
		def := &topics.Definition{Name: ban.Topic("f-" + strings.ReplaceAll(strings.ToLower(name), "_", "-")), Target: "ip", Detect: &topics.Detect{
			Files: []string{log}, Fail2ban: name, MaxRetry: 5,
			FindTime: span.Of(10 * time.Minute), BanTime: span.Of(20 * 365 * 24 * time.Hour),
		}}
		jails = append(jails, detect.Jail{Definition: def})
	}
	bans := 0
	o := detect.Options{
		Jails: jails, Source: source.Options{Once: true, Start: source.StartBeginning},
		Ban: func(context.Context, detect.Decision) error { bans++; return nil },
	}
	// The log's own end is the clock, so that all of it counts.
	if s := os.Getenv("BENCH_NOW"); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return err
		}
		o.Now = func() time.Time { return t }
		for _, j := range jails {
			j.Definition.Detect.FindTime = span.Of(30 * 24 * time.Hour)
		}
	}
	d, err := detect.New(o)
	if err != nil {
		return err
	}
	if err := d.Run(context.Background()); err != nil {
		return err
	}
	s := d.Status()
	found := uint64(0)
	for _, j := range s.Jails {
		found += j.Found
	}
	fmt.Printf("read=%d found=%d bans=%d matched=%d\n", s.Sources[0].Status.Read, found, bans, s.Sources[0].Matched)
	return nil
}
