package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postseal/postseal/policy/socketmap"
)

// told is a log that tests can read.
type told struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *told) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *told) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in two minutes: %s", what)
		}
	}
}

// answering is a daemon with nothing but a socketmap server that says yes.
func answering(t *testing.T) (d *daemon, apply func(...place) error, log *told) {
	t.Helper()
	log = &told{}
	d = &daemon{log: slog.New(slog.NewTextHandler(log, nil))}
	d.sockets = newSockets(d, nil)
	d.socketmap = &socketmap.Server{Handler: socketmap.HandlerFunc(func(_ context.Context, dst, _, _ []byte) []byte { return socketmap.AppendOK(dst, "yes") })}
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(func() { end(); d.socketmap.Close(); d.sockets.work.Wait() })
	return d, func(want ...place) error {
		return d.sockets.apply(ctx, service{name: "socketmap", required: true, serve: d.socketmap.Serve}, want)
	}, log
}

func asks(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.WriteString(c, "8:m a.test,"); err != nil {
		t.Error(err)
	}
	answer := make([]byte, len("6:OK yes,"))
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "6:OK yes," {
		t.Errorf("%q, %v", answer, err)
	}
}

// What a reload takes out and a later one puts back while it drains is taken back:
// nobody is refused, and the one that asks is not another postseal.
func TestSockets_TakenBackWhileDraining(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp := "inet:" + free.Addr().String()
	free.Close()
	for _, address := range []string{tcp, "unix:" + t.TempDir() + "/s"} {
		d, apply, log := answering(t)
		network, at := "tcp", strings.TrimPrefix(address, "inet:")
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			network, at = "unix", path
		}
		dial := func() net.Conn {
			t.Helper()
			c, err := net.Dial(network, at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		p := place{address: address, mode: 0o660}
		if err := apply(p); err != nil {
			t.Fatal(err)
		}
		old := dial()
		asks(t, old)
		for range 2 {
			if err := apply(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), "draining") || strings.Contains(log.String(), "no longer listening") {
				t.Errorf("%s: log: %s", address, log)
			}
			asks(t, dial()) // it answers while it drains
			if err := apply(p); err != nil {
				t.Fatalf("%s: put back: %v", address, err)
			}
			asks(t, dial())
		}
		asks(t, old)
		old.Close()
		if problems := troubles(d); len(problems) != 0 {
			t.Errorf("%s: %q", address, problems)
		}
		// The drain ends; the socket that was put back stays.
		for c := range 3 {
			asks(t, dial())
			if c == 0 && network == "unix" {
				if _, err := os.Stat(at); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// A reload gives a socket that stays its new mode and group.
func TestSockets_NewModeAndGroup(t *testing.T) {
	path := t.TempDir() + "/s"
	_, apply, _ := answering(t)
	for _, mode := range []fs.FileMode{0o600, 0o666, 0o660} {
		if err := apply(place{address: "unix:" + path, mode: mode}); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%v: %v, %v", mode, info.Mode(), err)
		}
	}
	err := apply(place{address: "unix:" + path, mode: 0o600, group: "no-such-group"})
	var unknown user.UnknownGroupError
	if !errors.As(err, &unknown) {
		t.Errorf("an unknown group: %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asks(t, c)
}

// A socket that a reload takes out while it is being bound does not come back, and
// a listener that failed does.
func TestSockets_RetryAndFailure(t *testing.T) {
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	d.sockets = newSockets(d, nil)
	d.sockets.again = 5 * time.Millisecond
	ctx, end := context.WithCancel(context.Background())
	defer func() { end(); d.sockets.work.Wait() }()
	var mu sync.Mutex
	served := 0
	broken := errors.New("broken")
	svc := service{name: "http", serve: func(ctx context.Context, l net.Listener) error {
		defer l.Close()
		mu.Lock()
		served++
		first := served == 1
		mu.Unlock()
		if first {
			return broken
		}
		<-ctx.Done()
		return nil
	}}
	count := func() int { mu.Lock(); defer mu.Unlock(); return served }

	dir := t.TempDir()
	p := place{address: "unix:" + dir + "/s", mode: 0o600}
	if err := d.sockets.apply(ctx, svc, []place{p}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "served again", func() bool { return count() == 2 && len(troubles(d)) == 0 })

	later := place{address: "unix:" + dir + "/later/s", mode: 0o600}
	if err := d.sockets.apply(ctx, svc, []place{p, later}); err != nil {
		t.Fatal(err)
	}
	if len(troubles(d)) != 1 {
		t.Error("no trouble")
	}
	if err := d.sockets.apply(ctx, svc, []place{p}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/later", 0o700); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * d.sockets.again)
	if _, err := os.Stat(dir + "/later/s"); err == nil || count() != 2 || len(troubles(d)) != 0 {
		t.Errorf("%v, served %d times, %q", err, count(), troubles(d))
	}
}

func troubles(d *daemon) []string {
	all, _ := d.sockets.trouble(func(string) bool { return true })
	return all
}

// A milter or policy delegation at its default address that somebody else has is told,
// and no reason to be unready; one that the configuration names is.
func TestReadiness_ByDefault(t *testing.T) {
	for _, service := range []string{"milter", "delegation"} {
		for text, asked := range map[string]bool{"": false, "unix_group = 'postfix'": false, "listen = ['inet:127.0.0.1:1']": true} {
			d := &daemon{}
			d.cfg.Store(mustLoad(t, "["+service+"]\n"+text))
			d.sockets = newSockets(d, nil)
			d.sockets.open[service+" x"] = &socket{service: service, place: place{address: "x"}, err: errors.New("in use")}
			if all, grave := d.sockets.trouble(d.needed); grave != asked || len(all) != 1 {
				t.Errorf("[%s] %s: %q, grave %v", service, text, all, grave)
			}
			d.sockets.open["http y"] = &socket{service: "http", place: place{address: "y"}, err: errors.New("in use")}
			if _, grave := d.sockets.trouble(d.needed); !grave {
				t.Error("a socket of another service is not open")
			}
		}
	}
}
