package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/milter"
	"github.com/postseal/postseal/policy/delegation"
	"github.com/postseal/postseal/policy/socketmap"
)

// supervised makes the test the service manager: what it is told comes out of the
// channel.
func supervised(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Cleanup(func() { c.Close() })
	told := make(chan string, 100)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			told <- string(b[:n])
		}
	}()
	return told
}

// heeding is a daemon that heeds signals, with a configuration in a pipe: reading
// it hangs until somebody writes.
func heeding(t *testing.T) (d *daemon, signals chan os.Signal, drained <-chan struct{}, pipe string) {
	t.Helper()
	pipe = filepath.Join(t.TempDir(), "postseal.toml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	d = testDaemon(t, standing{DNS: &resolvertest.DNS{}})
	d.opts = &globalOptions{configPath: pipe, configSet: true}
	d.log = slog.New(slog.DiscardHandler)
	d.socketmap, d.milter, d.delegated = &socketmap.Server{}, &milter.Server{}, &delegation.Server{}
	life, end := context.WithCancel(context.Background())
	serving, drain := context.WithCancel(life)
	d.serving = serving
	signals = make(chan os.Signal, 8)
	stopped := make(chan struct{})
	go func() { defer close(stopped); d.heed(life, signals, drain) }()
	t.Cleanup(func() { end(); <-stopped })
	return d, signals, serving.Done(), pipe
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(2 * time.Minute):
		t.Fatal("in vain: " + what)
	}
}

// A reload that hangs does not keep the daemon from ending, and what it or a later
// one has to tell comes before the drain or not at all.
func TestHeed_ReloadThatHangs(t *testing.T) {
	told := supervised(t)
	d, signals, drained, pipe := heeding(t)
	signals <- syscall.SIGHUP
	if first := <-told; !strings.HasPrefix(first, "RELOADING=1") {
		t.Errorf("told %q", first)
	}
	signals <- syscall.SIGTERM
	await(t, "drain", drained)
	signals <- syscall.SIGHUP
	signals <- syscall.SIGHUP
	if err := os.WriteFile(pipe, []byte("mode = \"off\"\n"), 0o600); err != nil { // lets the reload go on, to fail
		t.Fatal(err)
	}
	eventually(t, "the end of the reload", d.reloading.TryLock)
	d.reloading.Unlock()
	if got := <-told; got != "STOPPING=1" {
		t.Errorf("told %q", got)
	}
	signals <- syscall.SIGTERM // seen after what went before
	eventually(t, "the second signal", func() bool { return len(signals) == 0 })
	select {
	case more := <-told:
		t.Errorf("told %q after the end has begun", more)
	default:
	}
}

// Of many signals at once none is lost: the last file is read.
func TestHeed_ReloadsInARow(t *testing.T) {
	told := supervised(t)
	_, signals, _, pipe := heeding(t)
	signals <- syscall.SIGHUP
	<-told // RELOADING=1
	for range 5 {
		signals <- syscall.SIGHUP
	}
	eventually(t, "signals taken", func() bool { return len(signals) == 0 })
	for _, next := range []string{"RELOADING=1", ""} { // the one under way, and one for all that came meanwhile
		if err := os.WriteFile(pipe, []byte("mode = \"off\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := <-told; got != "READY=1" {
			t.Errorf("told %q", got)
		}
		if next == "" {
			break
		}
		if got := <-told; !strings.HasPrefix(got, next) {
			t.Errorf("told %q", got)
		}
	}
}

// The watchdog asks nobody and counts as no answer.
func TestAlive(t *testing.T) {
	dns := &resolvertest.DNS{}
	d := testDaemon(t, standing{DNS: dns})
	d.socketmap = &socketmap.Server{}
	if !d.alive() {
		t.Error("not alive")
	}
	if asked := dns.Asked(); len(asked) != 0 {
		t.Errorf("asked %q", asked)
	}
}
