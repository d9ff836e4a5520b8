package systemd

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"
)

// manager stands in for the service manager; next returns its next message.
func manager(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		b := make([]byte, 4096)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotify(t *testing.T) {
	next := manager(t)
	for _, tc := range []struct {
		states []State
		want   string
	}{
		{[]State{Ready}, "READY=1"},
		{[]State{Stopping, Status("draining")}, "STOPPING=1\nSTATUS=draining"},
		{[]State{Status("two\nlines\x00")}, "STATUS=two lines "},
	} {
		if err := Notify(tc.states...); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
	if err := Notify(Reloading()); err != nil {
		t.Fatal(err)
	}
	usec, ok := strings.CutPrefix(next(), "RELOADING=1\nMONOTONIC_USEC=")
	if n, err := strconv.ParseUint(usec, 10, 64); !ok || err != nil || n == 0 {
		t.Errorf("reloading: %q, %v", usec, err)
	}
	if s := string(Status(strings.Repeat("ü", 400))); len(s) > len("STATUS=")+maxStatus || !utf8.ValidString(s) {
		t.Errorf("long status: %d bytes", len(s))
	}
}

func TestNotify_NobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(Ready); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := Notify(Ready); err == nil {
		t.Error("no error although nobody is there")
	}
}

func TestWatchdog_PingsOnlyWhileHealthy(t *testing.T) {
	next := manager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int64
	done := make(chan error)
	// Healthy at the first, the fifth, the sixth, … call.
	go func() {
		done <- Watchdog(ctx, func() bool { n := calls.Add(1); return n == 1 || n >= 5 })
	}()
	for i := range 2 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
		if i == 1 && calls.Load() < 5 {
			t.Errorf("pinged at call %d, unhealthy", calls.Load())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchdog_NotWanted(t *testing.T) {
	for _, tc := range []struct {
		usec, pid string
		fails     bool
	}{{"", "", false}, {"30000000", "1", false}, {"soon", "", true}, {"0", "", true}} {
		t.Setenv("WATCHDOG_USEC", tc.usec)
		t.Setenv("WATCHDOG_PID", tc.pid)
		err := Watchdog(t.Context(), func() bool { t.Error("asked"); return true })
		if (err != nil) != tc.fails {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}
