//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
)

// BinaryVariable names the postseal binary under test.
const BinaryVariable = "POSTSEAL_BINARY"

// Postseal is the real daemon, beside one Postfix.
type Postseal struct {
	world   *World
	postfix *Postfix
	dir     string
	process *process
	held    *os.File // the socketmap's listening socket, as systemd would hold it
}

// NewPostseal writes the daemon's configuration: the laboratory's, and over it the given TOML, where "LAB" stands for
// the world's directory. It does not start it.
func (w *World) NewPostseal(p *Postfix, overrides string) (*Postseal, error) {
	d := &Postseal{world: w, postfix: p, dir: filepath.Join(w.Dir, "postseal")}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	w.onClose(d.Kill)
	return d, d.Configure(overrides)
}

// baseTOML is the laboratory's configuration. The policy hosts live on loopback, and there is no signed root.
func (d *Postseal) baseTOML() map[string]any {
	return map[string]any{
		"socketmap":  map[string]any{"listen": []any{"inet:" + SocketmapAddress}, "drain": "2s"},
		"delegation": map[string]any{"listen": []any{}},
		"milter":     map[string]any{"listen": []any{}},
		"http":       map[string]any{"listen": []any{"inet:127.0.0.1:8466"}},
		"control":    map[string]any{"listen": "unix:" + filepath.Join(d.dir, "control.sock")},
		"resolver":   map[string]any{"servers": []any{"127.0.0.1"}, "probe": "soa:" + probeZone.Name},
		"mta_sts":    map[string]any{"ca_file": d.world.CAFile(), "allow_networks": []any{"127.0.0.0/8"}},
		"cache":      map[string]any{"path": filepath.Join(d.dir, "postseal.db")},
		"ledger":     map[string]any{"path": filepath.Join(d.dir, "ledger.db")},
	}
}

// Configure writes the configuration file anew; a running daemon sees it after Reload.
func (d *Postseal) Configure(overrides string) error {
	var over map[string]any
	if err := toml.Unmarshal([]byte(strings.ReplaceAll(overrides, "LAB", d.world.Dir)), &over); err != nil {
		return fmt.Errorf("postseal.toml: %w", err)
	}
	config := d.baseTOML()
	for name, value := range over {
		table, isTable := value.(map[string]any)
		if base, known := config[name].(map[string]any); known && isTable {
			maps.Copy(base, table)
		} else {
			config[name] = value
		}
	}
	text, err := toml.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(d.configFile(), text, 0o644)
}

func (d *Postseal) configFile() string { return filepath.Join(d.dir, "postseal.toml") }

// command is a postseal command line that finds this Postfix by postconf, as on a real host.
func (d *Postseal) command(ctx context.Context, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Getenv(BinaryVariable), arguments...)
	cmd.Env = []string{
		"PATH=" + filepath.Join(d.postfix.dir, "bin") + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"MAIL_CONFIG=" + d.postfix.dir,
	}
	return cmd
}

// Start starts the daemon and waits until it answers.
func (d *Postseal) Start(ctx context.Context) error {
	cmd := d.command(context.WithoutCancel(ctx), "serve", "--config", d.configFile())
	if d.held != nil {
		// sd_listen_fds(3): LISTEN_PID is the daemon's own, which the shell knows.
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=socketmap")
		cmd.ExtraFiles = []*os.File{d.held}
	}
	process, err := startProcess(d.world.Network, cmd, filepath.Join(d.dir, "log"))
	if err != nil {
		return err
	}
	d.process = process
	for {
		// A key with a leading dot is answered without any look-up.
		if reply, err := Ask(d.world.Network, "postseal", ".ready.test"); err == nil && reply == "NOTFOUND " {
			return nil
		}
		if !process.running() {
			return fmt.Errorf("postseal ended at start: %s", d.LogText())
		}
		if !pause(ctx) {
			return fmt.Errorf("postseal does not answer: %w: %s", ctx.Err(), d.LogText())
		}
	}
}

// HoldSocket keeps the socketmap's listening socket open from now on, over stops and starts, as postseal.socket does.
func (d *Postseal) HoldSocket() error {
	if d.held != nil {
		return nil
	}
	listener, err := d.world.Network.Listen("tcp", SocketmapAddress)
	if err != nil {
		return err
	}
	d.held, err = listener.(*net.TCPListener).File()
	d.world.onClose(func() error { return d.held.Close() })
	return errors.Join(err, listener.Close())
}

// Stop asks the daemon to end and waits.
func (d *Postseal) Stop() error { return d.process.end(syscall.SIGTERM, stopDeadline) }

// Ended waits until the daemon has ended by itself, with status 0.
func (d *Postseal) Ended(ctx context.Context) error {
	select {
	case <-d.process.exited:
		return d.process.err
	case <-ctx.Done():
		return fmt.Errorf("postseal runs on: %w: %s", ctx.Err(), d.LogText())
	}
}

// Terminate asks the daemon to end and does not wait: it drains.
func (d *Postseal) Terminate() error { return d.process.cmd.Process.Signal(syscall.SIGTERM) }

// Hang stops the daemon's process until Resume, and waits until every thread of it stands still.
func (d *Postseal) Hang(ctx context.Context) error {
	p := d.process.cmd.Process
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/stat", p.Pid)) // the only error is a bad pattern
		runs := slices.ContainsFunc(threads, func(file string) bool {
			// proc(5): PID (COMMAND) STATE …; a thread that has ended meanwhile has no file.
			text, err := os.ReadFile(file)
			return err == nil && !strings.Contains(string(text), ") T ")
		})
		if !runs {
			return nil
		}
		if !pause(ctx) {
			return fmt.Errorf("postseal runs on after SIGSTOP: %w", ctx.Err())
		}
	}
}

// Resume ends what Hang began.
func (d *Postseal) Resume() error { return d.process.cmd.Process.Signal(syscall.SIGCONT) }

// Kill ends the daemon as a power failure would.
func (d *Postseal) Kill() error { return d.process.end(syscall.SIGKILL, stopDeadline) }

// Run runs another of postseal's commands against the same configuration; the output includes standard error.
func (d *Postseal) Run(ctx context.Context, arguments ...string) (string, error) {
	cmd := d.command(ctx, append(arguments, "--config", d.configFile())...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := d.world.Network.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("postseal %s: %w: %s", strings.Join(arguments, " "), err, out.String())
	}
	return out.String(), nil
}

// LogText is what the daemon wrote so far.
func (d *Postseal) LogText() string {
	text, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
