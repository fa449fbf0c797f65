package main

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/test/broker/load"
)

// connections measures connections with one subscription each, plain and
// encrypted: their memory, logins a second, and the processor time of a login.
func (b *bench) connections(context.Context) error {
	const n = 500
	for _, encrypted := range []bool{false, true} {
		for _, s := range b.servers {
			name := "plain"
			if s.tls = encrypted; encrypted {
				name = "tls"
			}
			err := with(s, func(p *process) error {
				before, err := p.rss()
				if err != nil {
					return err
				}
				cpu, _ := p.cpu()
				began := time.Now()
				for i := range n {
					c, err := load.DialAt(p.url(), fmt.Sprint("idle-", i), 600)
					if err != nil {
						return err
					}
					defer c.Close()
					if err := c.Subscribe(load.Filter, 1); err != nil {
						return err
					}
				}
				took := time.Since(began)
				spent, _ := p.cpu()
				time.Sleep(3 * time.Second) // stacks shrink, garbage is collected
				after, err := p.rss()
				figure(s.name+"_memory_of_a_"+name+"_connection", float64(after-before)/n/1e3, "kB", map[bool]string{true: "<=30", false: "-"}[encrypted])
				figure(s.name+"_"+name+"_logins", n/took.Seconds(), "per_second", "-")
				figure(s.name+"_cpu_per_"+name+"_login", float64(spent-cpu)/n/float64(time.Millisecond), "ms", "-")
				return err
			})
			if err != nil {
				fmt.Printf("note: %v\n", err)
			}
		}
	}
	return nil
}

// upgrade replaces the broker under 1,000 agents while bans come.
func (b *bench) upgrade(ctx context.Context) error {
	s := b.servers[0]
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return with(s, func(p *process) error {
		r, err := load.Upgrade{
			Address: p.address, Agents: 1000, Bans: 500, Every: 20 * time.Millisecond,
			Replace: func() error {
				if err := p.stop(); err != nil {
					return err
				}
				next, err := s.startAt(p.dir, p.port)
				if err == nil {
					*p = *next
				}
				return err
			},
		}.Run(ctx)
		if err != nil {
			return err
		}
		figure("banmesh_upgrade_bans_missed_by_1000_agents", float64(r.Missing), "bans", "0")
		figure("banmesh_upgrade_seconds", r.Stopped.Seconds(), "s", "-")
		figure("banmesh_upgrade_longest_absence", r.AwayMost().Seconds(), "s", "-")
		figure("banmesh_upgrade_latest_ban", r.Late.Seconds(), "s", "-")
		return nil
	})
}

// followers is a community of operators that all follow all: connections with a
// filter for each topic of each operator, and the memory of it.
func (b *bench) followers(ctx context.Context) error {
	const agents, operators = 1000, 1000
	return with(b.servers[0], func(p *process) error {
		before, err := p.rss()
		if err != nil {
			return err
		}
		began := time.Now()
		conns := make([]*load.Conn, agents)
		defer func() {
			for _, c := range conns {
				if c != nil {
					c.Close()
				}
			}
		}()
		filters := make([]string, operators)
		for i := range filters {
			var id ban.Operator
			id[0], id[1] = byte(i>>8), byte(i)
			filters[i] = "banmesh/1/bench/+/" + id.String() + "/+/head"
		}
		var wait sync.WaitGroup
		errs := make(chan error, agents)
		slots := make(chan struct{}, 16)
		for i := range conns {
			wait.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				c, err := load.Dial(p.address, fmt.Sprint("agent-", i), 600)
				if err == nil {
					conns[i] = c
					err = load.SubscribeAll(c, filters, 0)
				}
				if err != nil {
					errs <- err
				}
			})
		}
		wait.Wait()
		close(errs)
		for err := range errs {
			return err
		}
		figure("banmesh_followers_subscribed", time.Since(began).Seconds(), "s", "-")
		time.Sleep(3 * time.Second)
		after, err := p.rss()
		figure("banmesh_memory_of_1000_agents_of_1000_operators", float64(after)/1e6, "MB", "<=1200")
		figure("banmesh_memory_of_a_filter", float64(after-before)/agents/operators, "B", "-")
		return err
	})
}

// selfSigned writes a certificate for 127.0.0.1 into a directory.
func selfSigned(dir string) error {
	cmd := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a certificate: %w: %s", err, out)
	}
	return nil
}
