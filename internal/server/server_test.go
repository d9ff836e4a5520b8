package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory.
type pipes struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newPipes() *pipes { return &pipes{incoming: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.incoming:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipes"} }

// dial returns nil if the listener is closed.
func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	select {
	case p.incoming <- there:
		synctest.Wait()
		return here
	case <-p.closed:
		return nil
	}
}

// toggle is a protocol: each byte makes an idle connection busy and a busy one idle.
func toggle(_ context.Context, c *Conn) {
	defer c.End()
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(c, b); err != nil || !c.Wake() {
			return
		}
		c.Requests.Add(1)
		if _, err := io.ReadFull(c, b); err != nil || !c.Rest() {
			return
		}
	}
}

func poke(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte{0}); err != nil {
		t.Error(err)
	}
	synctest.Wait()
}

// TestEndOfServe: idle connections go after Grace, busy ones when they rest, all after
// Finish; nothing is accepted without a Drain.
func TestEndOfServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		l, ended := newPipes(), make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			ended <- s.Serve(ctx, l, Config{Name: "toggle", MaxConns: 9, Grace: 5 * time.Second, Finish: 20 * time.Second, Handle: toggle})
		}()
		idle, short, long := l.dial(), l.dial(), l.dial()
		poke(t, short)
		poke(t, long)
		began := time.Now()
		stop()
		if synctest.Wait(); l.dial() != nil {
			t.Error("accepted after the end")
		}
		poke(t, idle)
		poke(t, idle) // it is left alone until Grace has passed
		for _, step := range []struct {
			after time.Duration
			open  int
		}{{4999 * time.Millisecond, 3}, {5001 * time.Millisecond, 2}, {24 * time.Second, 1}} {
			time.Sleep(time.Until(began.Add(step.after)))
			if step.open == 1 {
				poke(t, short)
			}
			if synctest.Wait(); s.Len() != step.open {
				t.Errorf("after %v: %d open, want %d", step.after, s.Len(), step.open)
			}
		}
		if err := <-ended; err != nil || time.Since(began) != 25*time.Second {
			t.Errorf("ended after %v: %v", time.Since(began), err)
		}
		if n := s.Stats(); n.Requests != 3 || n.Conns != 0 || n.Accepted != 3 {
			t.Errorf("%+v", n)
		}
	})
}

// TestNobodyIsEvictedWithoutMinIdle: a newcomer waits until another one goes, for however long.
func TestNobodyIsEvictedWithoutMinIdle(t *testing.T) {
	for _, minIdle := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			var s Conns
			l, ended := newPipes(), make(chan error, 1)
			go func() {
				ended <- s.Serve(t.Context(), l, Config{MaxConns: 1, MinIdle: minIdle, Handle: toggle})
			}()
			l.dial()
			newcomer := l.dial()
			time.Sleep(time.Hour)
			if n := s.Stats(); (n.Accepted == 2) != (minIdle > 0) || (n.Evicted == 1) != (minIdle > 0) {
				t.Errorf("MinIdle %v: %+v", minIdle, n)
			}
			s.Close()
			<-ended
			if _, err := newcomer.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("left open: %v", err)
			}
		})
	}
}

// TestServeWaitsForHeldGoroutines, also when the connection has ended.
func TestServeWaitsForHeldGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		l, ended := newPipes(), make(chan error, 1)
		go func() {
			ended <- s.Serve(t.Context(), l, Config{MaxConns: 1, Handle: func(ctx context.Context, c *Conn) {
				c.Hold()
				go func() {
					defer c.Release()
					<-ctx.Done()
					time.Sleep(time.Minute)
				}()
				c.End()
			}})
		}()
		l.dial()
		if s.Len() != 0 {
			t.Error("the connection stays")
		}
		began := time.Now()
		s.Close()
		if <-ended; time.Since(began) != time.Minute {
			t.Errorf("ended after %v", time.Since(began))
		}
	})
}

// TestStates: what each change does in each state, and which state comes of it.
func TestStates(t *testing.T) {
	const idle = 0
	changes := map[string]func(*Conn) bool{
		"wake": (*Conn).Wake, "rest": (*Conn).Rest,
		"evict":   func(c *Conn) bool { return c.evict(time.Hour) },
		"dismiss": func(c *Conn) bool { c.dismiss(); return true },
	}
	for _, tc := range []struct {
		change       string
		before       int64
		done         bool
		after        int64
		closesWithIt bool
	}{
		{"wake", idle, true, busy, false}, {"wake", busy, false, busy, false},
		{"wake", leaving, false, leaving, false}, {"wake", dismissed, false, dismissed, false},
		{"rest", idle, true, idle, false}, {"rest", busy, true, int64(2 * time.Hour), false},
		{"rest", leaving, false, leaving, false}, {"rest", dismissed, false, dismissed, false},
		{"evict", idle, true, dismissed, true}, {"evict", int64(time.Hour), false, int64(time.Hour), false},
		{"evict", busy, false, busy, false}, {"evict", leaving, false, leaving, false},
		{"dismiss", idle, true, dismissed, true}, {"dismiss", busy, true, leaving, false},
		{"dismiss", leaving, true, leaving, false}, {"dismiss", dismissed, true, dismissed, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			c := NewConn(there)
			c.state.Store(tc.before)
			time.Sleep(2 * time.Hour)
			if done := changes[tc.change](c); done != tc.done || c.state.Load() != tc.after {
				t.Errorf("%s in state %d: %v, state %d", tc.change, tc.before, done, c.state.Load())
			}
			here.SetReadDeadline(time.Now())
			if _, err := here.Read(make([]byte, 1)); (err == io.EOF) != tc.closesWithIt {
				t.Errorf("%s in state %d: %v", tc.change, tc.before, err)
			}
			there.Close()
		})
	}
}

// TestMishap: each is counted, one in ten seconds logged with how many were not.
func TestMishap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var m Mishap
		l := slog.New(slog.NewTextHandler(&log, nil))
		m.Log(nil, slog.LevelError, "nobody listens")
		for range 25 {
			m.Log(l, slog.LevelWarn, "oops", "a", 1)
			time.Sleep(time.Second)
		}
		if m.Count() != 26 {
			t.Errorf("%d counted", m.Count())
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 3 || !strings.HasSuffix(lines[0], "level=WARN msg=oops a=1 suppressed=0") || !strings.HasSuffix(lines[2], "a=1 suppressed=9") {
			t.Errorf("%s", &log)
		}
	})
}
