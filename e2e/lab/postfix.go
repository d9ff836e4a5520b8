//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postfix is a private instance: configuration, queue and log in one directory of its world.
type Postfix struct {
	Installation
	Name string // syslog_name and directory
	Log  Maillog

	world  *World
	dir    string
	listen string // of its smtpd
}

// baseConfig is the laboratory's main.cf; %[1]s is the instance's directory, %[2]s its name, %[3]s the CA file.
const baseConfig = `compatibility_level = 3.6
myhostname = sender.lab.test
mydomain = lab.test
myorigin = lab.test
mydestination =
local_transport = error:no local delivery
alias_maps =
alias_database =
notify_classes =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/maillog
maillog_file_prefixes = /media
syslog_name = %[2]s
queue_run_delay = 300s
minimal_backoff_time = 300s
maximal_backoff_time = 300s
default_destination_concurrency_failed_cohort_limit = 0
smtp_connect_timeout = 5s
smtp_dns_support_level = dnssec
dnssec_probe =
smtp_tls_security_level = may
smtp_tls_dane_insecure_mx_policy = dane
smtp_tls_loglevel = 1
smtp_tls_CAfile = %[3]s
smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal
`

const masterConfig = `%s inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
`

// NewPostfix configures an instance; listen is the HOST:PORT of its smtpd, main the parameters that differ from the
// laboratory's, where "LAB" stands for the world's directory. It does not start it.
func (w *World) NewPostfix(in Installation, name, listen, main string) (*Postfix, error) {
	p := &Postfix{Installation: in, Name: name, world: w, dir: filepath.Join(w.Dir, name), listen: listen}
	p.Log = Maillog{filepath.Join(p.dir, "maillog")}
	if err := p.makeDirectories(); err != nil {
		return nil, fmt.Errorf("postfix %s: %w", name, err)
	}
	base := fmt.Sprintf(baseConfig, p.dir, name, w.CAFile())
	files := map[string]string{
		"main.cf":   mergeConfig(base, strings.ReplaceAll(main, "LAB", w.Dir)),
		"master.cf": fmt.Sprintf(masterConfig, listen),
	}
	for _, program := range []string{"postconf", "postmap"} {
		files["bin/"+program] = fmt.Sprintf("#!/bin/sh\nexec chroot %s %s \"$@\"\n", in.Root, program)
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(p.dir, file), []byte(text), 0o755); err != nil {
			return nil, err
		}
	}
	w.onClose(p.kill)
	return p, p.settle()
}

// Services adds lines to master.cf; a line replaces that of the same service and type. "LAB" stands for the world's
// directory.
func (p *Postfix) Services(lines string) error {
	text := fmt.Sprintf(masterConfig, p.listen)
	for line := range strings.Lines(strings.ReplaceAll(lines, "LAB", p.world.Dir)) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") {
			continue
		}
		text = mergeService(text, words[0]+" "+words[1]+" ", strings.TrimSpace(line)+"\n")
	}
	return os.WriteFile(filepath.Join(p.dir, "master.cf"), []byte(text), 0o644)
}

func mergeService(text, service, added string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, service) {
			kept.WriteString(line)
		}
	}
	return kept.String() + added
}

// settle dates the configuration back. Every program of Postfix reads a file again and again until it is two seconds
// old, lest it see one half written (util/dict.c: dict_load_file_xt).
func (p *Postfix) settle() error {
	old := time.Now().Add(-time.Minute)
	return os.Chtimes(filepath.Join(p.dir, "main.cf"), old, old)
}

// mergeConfig replaces parameters of base by those of main.
func mergeConfig(base, main string) string {
	var order []string
	values := make(map[string]string)
	for line := range strings.Lines(base + main) {
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if _, known := values[name]; !known {
			order = append(order, name)
		}
		values[name] = strings.TrimSpace(value)
	}
	var text strings.Builder
	for _, name := range order {
		fmt.Fprintf(&text, "%s = %s\n", name, values[name])
	}
	return text.String()
}

// makeDirectories makes what "post-install create-missing" would make, in milliseconds.
func (p *Postfix) makeDirectories() error {
	own := func(name string, mode os.FileMode, uid, gid int) error {
		dir := filepath.Join(p.dir, name)
		return errors.Join(os.MkdirAll(dir, mode), os.Chmod(dir, mode), os.Chown(dir, uid, gid))
	}
	err := errors.Join(
		own("", 0o755, 0, 0), own("bin", 0o755, 0, 0), own("data", 0o700, p.owner, 0),
		own("queue", 0o755, 0, 0), own("queue/pid", 0o755, 0, 0), own("queue/etc", 0o755, 0, 0),
		own("queue/postseal", 0o755, 0, 0), // for a unix socket that a chrooted smtp(8) can reach
		own("queue/public", 0o710, p.owner, p.dropGroup), own("queue/maildrop", 0o730, p.owner, p.dropGroup),
	)
	for _, name := range []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"} {
		err = errors.Join(err, own("queue/"+name, 0o700, p.owner, 0))
	}
	// What a chrooted smtp(8) reads; Debian's start script copies the same.
	for _, name := range []string{"resolv.conf", "hosts", "nsswitch.conf", "services"} {
		text, readErr := os.ReadFile(filepath.Join("/etc", name))
		if errors.Is(readErr, fs.ErrNotExist) {
			continue
		}
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(p.dir, "queue/etc", name), text, 0o644))
	}
	return err
}

// Run runs one of Postfix's commands in this instance's root and for its configuration. The error carries the output.
func (p *Postfix) Run(ctx context.Context, stdin string, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path.Join("/usr/sbin", command[0]), command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: p.Root}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "MAIL_CONFIG=" + p.dir}
	cmd.Stdin = strings.NewReader(stdin)
	// A file, not a pipe: master inherits it, and a pipe would be waited for as long as master lives.
	out, err := os.CreateTemp(p.world.Dir, "command")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := p.world.Network.Start(cmd); err != nil {
		return "", err
	}
	err = cmd.Wait()
	text, readErr := os.ReadFile(out.Name())
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, bytes.TrimSpace(text))
	}
	return string(text), errors.Join(err, readErr)
}

// Start starts master and waits until it says so. "postfix start" would first check the ownership of 100 files that
// makeDirectories has just made.
func (p *Postfix) Start(ctx context.Context) error {
	_, err := p.Run(ctx, "", "../lib/postfix/sbin/master", "-w")
	return err
}

// Reload makes Postfix read its configuration again, and waits until no smtp(8) process knows the old one.
func (p *Postfix) Reload(ctx context.Context) error {
	old := p.clients()
	if err := p.settle(); err != nil {
		return err
	}
	if _, err := p.Run(ctx, "", "postfix", "-c", p.dir, "reload"); err != nil {
		return err
	}
	for slices.ContainsFunc(p.clients(), func(pid string) bool { return slices.Contains(old, pid) }) {
		if !pause(ctx) {
			return fmt.Errorf("smtp(8) processes outlive the reload: %w", ctx.Err())
		}
	}
	return nil
}

// clients lists the running smtp(8) processes of this instance.
func (p *Postfix) clients() []string {
	master, err := p.masterPID()
	if err != nil {
		return nil
	}
	var found []string
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the only error is a bad pattern
	for _, file := range stats {
		// proc(5): PID (COMMAND) STATE PARENT …; a process that has ended meanwhile has no file.
		text, _ := os.ReadFile(file)
		fields := strings.Fields(string(text))
		if len(fields) > 3 && fields[1] == "(smtp)" && fields[2] != "Z" && fields[3] == strconv.Itoa(master) {
			found = append(found, fields[0])
		}
	}
	return found
}

func (p *Postfix) masterPID() (int, error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "queue/pid/master.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// Send hands a message to sendmail(1); token becomes the left side of its Message-ID.
func (p *Postfix) Send(ctx context.Context, token string, recipients ...string) error {
	text := fmt.Sprintf("From: <s@lab.test>\nMessage-ID: <%s@lab.test>\nSubject: %s\n\nhello\n", token, token)
	return p.Sendmail(ctx, "s@lab.test", text, recipients...)
}

// Sendmail hands a text to sendmail(1) as it is.
func (p *Postfix) Sendmail(ctx context.Context, sender, text string, recipients ...string) error {
	_, err := p.Run(ctx, text, append([]string{"sendmail", "-i", "-f", sender}, recipients...)...)
	return err
}

// Flush tries everything in the queue again, now.
func (p *Postfix) Flush(ctx context.Context) error {
	_, err := p.Run(ctx, "", "postqueue", "-f")
	return err
}

// Busy tells whether a message is on its way. A message whose deferral has just been logged still is, until its file is
// back in the deferred queue; a flush at that moment would pass it by.
func (p *Postfix) Busy() bool {
	for _, queue := range []string{"maildrop", "incoming", "active"} {
		entries, err := os.ReadDir(filepath.Join(p.dir, "queue", queue))
		if err != nil || len(entries) > 0 {
			return true
		}
	}
	return false
}

// kill ends master and all its children: they are one process group.
func (p *Postfix) kill() error {
	pid, err := p.masterPID()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // never started
	}
	if err != nil {
		return err
	}
	// The error is only that it has ended already.
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	return nil
}
