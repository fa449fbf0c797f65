package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/gate"
	"banmesh/internal/wallet"
	"banmesh/test/livepeer"
)

// agent is a running agent that keeps the gate's file.
type agent struct {
	program, dir string
	cmd          *exec.Cmd
}

func (a *agent) start() error {
	a.cmd = exec.Command(a.program, "--config-dir", a.dir, "--state-dir", filepath.Join(a.dir, "state"), "--socket", filepath.Join(a.dir, "agent.sock"), "run")
	return a.cmd.Start()
}

func (a *agent) end(s unix.Signal) error {
	err := a.cmd.Process.Signal(s)
	_ = a.cmd.Wait() // it ends as it was told
	return err
}

// withAgent has a real agent keep the gate's file, and stops, kills and
// misconfigures it under load.
func withAgent(ctx context.Context, dir, gateProgram string) error {
	program, err := livepeer.Build(ctx, dir, ".", "agent")
	if err != nil {
		return err
	}
	a := &agent{program: program, dir: filepath.Join(dir, "node")}
	file := filepath.Join(a.dir, "gate", "wallets")
	m := &livepeer.Manager{Program: gateProgram, File: file, Watchdog: 1500 * time.Millisecond, Log: io.Discard}
	address, err := livepeer.StartManager(ctx, m)
	if err != nil {
		return err
	}
	defer m.Stop()
	good := fmt.Sprintf("[firewall]\nmode = \"off\"\n[embedded_broker]\nenabled = false\n[topics.sshd]\ndetect = false\n[gate]\nenabled = true\nlisten = %q\nfile = %q\n", address, file)
	config := filepath.Join(a.dir, "agent.toml")
	configure := func(text string) error { return os.WriteFile(config, []byte(text), 0o600) }
	if err := os.MkdirAll(a.dir, 0o755); err != nil {
		return err
	}
	if err := configure(good); err != nil {
		return err
	}
	if err := a.start(); err != nil {
		return err
	}
	defer func() { _ = a.end(unix.SIGTERM) }()
	customer, denied := wallet.Format(walletAt(-1)), wallet.Format(walletAt(0))
	if err := deny(ctx, filepath.Join(a.dir, "agent.sock"), denied); err != nil {
		return err
	}
	path, err := os.ReadFile(filepath.Join(a.dir, "state", "gate.path"))
	if err != nil {
		return err
	}
	load := livepeer.StartLoad(ctx, gate.URL(address, strings.TrimSpace(string(path))), 4, customer, denied)
	if err := refused(ctx, load, denied); err != nil {
		return err
	}
	for _, c := range []struct {
		name   string
		happen func() error
	}{
		{"agent-killed", func() error { return a.end(unix.SIGKILL) }},
		{"agent-misconfigured", func() error {
			if err := configure(good + "typo = = 1\n"); err != nil {
				return err
			}
			if err := a.start(); err != nil {
				return err
			}
			return a.end(unix.SIGCONT) // it ended by itself
		}},
		{"agent-started", func() error {
			if err := configure(good); err != nil {
				return err
			}
			return a.start()
		}},
		{"agent-stopped", func() error { return a.cmd.Process.Signal(unix.SIGSTOP) }},
		{"agent-stopped-gate-killed", func() error { return m.Signal(unix.SIGKILL) }},
		{"agent-goes-on", func() error { return a.cmd.Process.Signal(unix.SIGCONT) }},
	} {
		load.Longest()
		admitted := load.Admitted(denied)
		_ = c.happen() // a process may be gone already, as is meant
		if !load.Wait(ctx, 1000) {
			return fmt.Errorf("%s: no calls come through", c.name)
		}
		fmt.Printf("figure gate-%s-longest-call %.0f ms aim <250\n", c.name, load.Longest().Seconds()*1e3)
		fmt.Printf("figure gate-%s-denied-admitted %d calls aim 0\n", c.name, load.Admitted(denied)-admitted)
	}
	_, _, lost := load.Stop()
	fmt.Printf("figure gate-beside-agent-customers-refused %d calls aim 0\n", load.Refused(customer)+len(lost))
	return nil
}

// deny bans a wallet once the agent answers.
func deny(ctx context.Context, socket, who string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	t, err := ban.ParseTarget(who)
	if err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := control.NewClient(socket).Post(ctx, "/v1/bans", control.BanRequest{Target: t, Topic: "broadcaster-addresses", For: 86400}, nil)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("denying a wallet: %w", err)
		}
	}
}

// refused waits until a wallet is refused.
func refused(ctx context.Context, load *livepeer.Load, who string) error {
	for began := time.Now(); load.Refused(who) == 0; {
		if !load.Wait(ctx, 20) || time.Since(began) > time.Minute {
			return errors.New("a denied wallet is not refused within a minute")
		}
	}
	return nil
}
