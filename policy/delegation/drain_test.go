package delegation_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/policy/delegation"
)

// pipes is a listener in memory, so that time in a test is synctest's.
type pipes struct {
	incoming chan any // net.Conn or error
	closed   chan struct{}
	once     sync.Once
}

func newPipes() *pipes { return &pipes{incoming: make(chan any), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case x := <-p.incoming:
		if err, ok := x.(error); ok {
			return nil, err
		}
		return x.(net.Conn), nil
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

// bubble serves on a listener in memory; stop is SIGTERM. ended holds what Serve
// returned once it has.
type bubble struct {
	*pipes
	server *delegation.Server
	stop   context.CancelFunc
	ended  chan error
}

func serve(t *testing.T, s *delegation.Server) *bubble {
	ctx, stop := context.WithCancel(t.Context())
	b := &bubble{newPipes(), s, stop, make(chan error, 1)}
	go func() { b.ended <- s.Serve(ctx, b.pipes) }()
	return b
}

func (b *bubble) hasEnded() bool {
	synctest.Wait()
	return len(b.ended) > 0
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	go io.WriteString(c, to("a@a.test")) // a pipe has no buffer
	expect(t, c, told("a@a.test"))
	synctest.Wait()
}

// gone says whether the server has closed the connection.
func gone(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Nanosecond))
	defer c.SetReadDeadline(time.Time{})
	_, err := c.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestPOL05_IdleIsNeverClosed: not after a day, before or after a question.
func TestPOL05_IdleIsNeverClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t, &delegation.Server{Handler: parrot})
		fresh, used := b.dial(), b.dial()
		ask(t, used)
		time.Sleep(24 * time.Hour)
		ask(t, fresh)
		ask(t, used)
		b.server.Close()
		<-b.ended
	})
}

func TestPOL05_HalfRequestIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t, &delegation.Server{Handler: parrot})
		tooLong := strings.Repeat("a=b\n", delegation.MaxRequest)
		for _, half := range []string{"r", to("a@a.test")[:100], to("a@a.test") + "req", tooLong} {
			c := b.dial()
			go io.Copy(io.Discard, c)
			send(t, c, half)
			time.Sleep(delegation.DefaultRequestTimeout - time.Millisecond)
			if synctest.Wait(); b.server.Conns() != 1 {
				t.Errorf("%.20q: cut too early", half)
			}
			time.Sleep(2 * time.Millisecond)
			if synctest.Wait(); b.server.Conns() != 0 {
				t.Errorf("%.20q: not cut", half)
			}
			c.Close()
		}
		// Bytes that trickle in win no time, whole requests do.
		for _, piece := range []string{"x", strings.Repeat("x", 2000)} {
			c := b.dial()
			for range 20 {
				time.Sleep(900 * time.Millisecond)
				if _, err := io.WriteString(c, piece); err != nil {
					break
				}
			}
			if synctest.Wait(); b.server.Conns() != 0 {
				t.Error("a request that trickles in was not cut")
			}
		}
		c := b.dial()
		for range 10 {
			in := to("a@a.test")
			send(t, c, in[:5])
			time.Sleep(9 * time.Second)
			go io.WriteString(c, in[5:])
			expect(t, c, told("a@a.test"))
		}
		if n := b.server.Stats().TimedOut; n != 6 {
			t.Errorf("%d timed out, want 6", n)
		}
		b.server.Close()
		<-b.ended
	})
}

// TestPOL05_LongestIdleGoesFirst, but only beyond 310 s; until then the newcomer
// waits, and nobody else is accepted.
func TestPOL05_LongestIdleGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := serve(t, &delegation.Server{Handler: parrot, MaxConns: 3, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var old [3]net.Conn
		for i := range old {
			old[i] = b.dial()
		}
		time.Sleep(250 * time.Second)
		ask(t, old[0])
		ask(t, old[2]) // old[1] has been idle for 250 s, the others not at all
		newcomer := b.dial()
		time.Sleep(60 * time.Second)
		if synctest.Wait(); b.server.Stats().Evicted != 0 {
			t.Error("closed after an idle time of 310 s, not more")
		}
		if gone(old[0]) || gone(old[1]) || gone(old[2]) {
			t.Error("somebody was closed too early")
		}
		time.Sleep(time.Second)
		ask(t, newcomer)
		if gone(old[0]) || !gone(old[1]) || gone(old[2]) {
			t.Error("another one than the longest idle went")
		}
		if st := b.server.Stats(); st.Evicted != 1 || st.Conns != 3 {
			t.Errorf("stats: %+v", st)
		}
		// Room made by a peer that goes is used at once.
		another := b.dial()
		old[0].Close()
		ask(t, another)
		if n := b.server.Stats().Evicted; n != 1 {
			t.Errorf("%d evicted, want 1", n)
		}
		if n := strings.Count(log.String(), "all connections are in use"); n != 2 {
			t.Errorf("said %d times, want 2:\n%s", n, &log)
		}
		// Everybody busy or young: nobody goes, and Close still ends it.
		waiting := b.dial()
		b.server.Close()
		<-b.ended
		if !gone(waiting) {
			t.Error("the one that waited was left open")
		}
	})
}

// TestPOL05_DrainEndsWithTheOldConnections: until then it accepts and answers.
func TestPOL05_DrainEndsWithTheOldConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t, &delegation.Server{Handler: parrot})
		first, second := b.dial(), b.dial()
		b.stop()
		time.Sleep(60 * time.Second)
		ask(t, first)
		young := b.dial()
		ask(t, young)
		first.Close()
		time.Sleep(30 * time.Second)
		ask(t, second)
		ask(t, b.dial())
		if b.hasEnded() {
			t.Fatal("ended while an old connection was open")
		}
		second.Close()
		if !b.hasEnded() {
			t.Error("goes on without old connections")
		}
		if err := <-b.ended; err != nil {
			t.Error(err)
		}
		if !gone(young) || b.dial() != nil {
			t.Error("not everything was closed")
		}
	})
}

func TestPOL05_DrainEndsAfter105s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t, &delegation.Server{Handler: parrot})
		c := b.dial()
		b.stop()
		time.Sleep(105*time.Second - time.Millisecond)
		ask(t, c)
		if b.hasEnded() {
			t.Fatal("ended too early")
		}
		time.Sleep(2 * time.Millisecond)
		if !b.hasEnded() || !gone(c) {
			t.Error("did not end")
		}
		<-b.ended
	})
}

func TestPOL05_DrainWithoutConnectionsEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t, &delegation.Server{Handler: parrot})
		b.dial().Close()
		synctest.Wait()
		b.stop()
		if !b.hasEnded() {
			t.Error("waits for nobody")
		}
		<-b.ended
	})
}

// TestPOL05_DrainIsTheSameForAllListeners: a listener without connections of its
// own stays open as long as another one's peers are there.
func TestPOL05_DrainIsTheSameForAllListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &delegation.Server{Handler: parrot}
		busy, quiet := serve(t, s), serve(t, s)
		c := busy.dial()
		busy.stop()
		quiet.stop()
		time.Sleep(50 * time.Second)
		if quiet.hasEnded() {
			t.Fatal("its peers are refused although we still run")
		}
		ask(t, quiet.dial())
		c.Close()
		if !busy.hasEnded() || !quiet.hasEnded() {
			t.Error("goes on without old connections")
		}
	})
}

// slow answers after d, or at once when its context ends.
func slow(d time.Duration) delegation.Handler {
	return delegation.HandlerFunc(func(ctx context.Context, r *delegation.Request) delegation.Action {
		select {
		case <-time.After(d):
			return delegation.Info("slow")
		case <-ctx.Done():
			return delegation.Info("ended")
		}
	})
}

// TestPOL05_AnswerUnderWayIsFinished when the drain is over, within bounds.
func TestPOL05_AnswerUnderWayIsFinished(t *testing.T) {
	for _, tc := range []struct {
		takes, ends time.Duration
		want        string
	}{
		{5 * time.Second, 5 * time.Second, told("slow")},
		{time.Hour, 10 * time.Second, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := serve(t, &delegation.Server{Handler: slow(tc.takes), Drain: -1, Deadline: 2 * time.Hour})
			asker, idle := b.dial(), b.dial()
			send(t, asker, to("a@a.test"))
			began := time.Now()
			b.stop()
			answer, _ := io.ReadAll(asker)
			if string(answer) != tc.want {
				t.Errorf("got %q, want %q", answer, tc.want)
			}
			if !gone(idle) {
				t.Error("the idle one stayed")
			}
			if err := <-b.ended; err != nil || time.Since(began) != tc.ends {
				t.Errorf("ended after %v, %v, want %v", time.Since(began), err, tc.ends)
			}
		})
	}
}

// TestPOL05_SecondSignalEndsAtOnce, while draining and while answering.
func TestPOL05_SecondSignalEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t, &delegation.Server{Handler: slow(time.Hour), Deadline: 2 * time.Hour})
		c := b.dial()
		send(t, c, to("a@a.test"))
		b.stop()
		time.Sleep(time.Second)
		began := time.Now()
		b.server.Close()
		b.server.Close()
		if err := <-b.ended; err != nil || time.Since(began) > 0 {
			t.Errorf("ended after %v, %v", time.Since(began), err)
		}
		// Nor does a closed Server begin again.
		again := serve(t, b.server)
		if err := <-again.ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAcceptErrorsAreWaitedOut with a pause between attempts and one log line.
func TestAcceptErrorsAreWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := serve(t, &delegation.Server{Handler: parrot, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for range 2 {
			began := time.Now()
			for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.EMFILE} {
				b.incoming <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errno)}
			}
			ask(t, b.dial())
			if d := time.Since(began); d < 50*time.Millisecond || d > time.Second {
				t.Errorf("took %v", d)
			}
		}
		if n := b.server.Stats().AcceptErrors; n != 8 {
			t.Errorf("%d errors counted, want 8", n)
		}
		for text, want := range map[string]int{"cannot accept": 2, "accepting connections again": 2} {
			if n := strings.Count(log.String(), text); n != want {
				t.Errorf("%q logged %d times, want %d", text, n, want)
			}
		}
		// What no waiting mends is returned, and everything closed.
		c := b.dial()
		b.incoming <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EBADF)}
		if err := <-b.ended; !errors.Is(err, syscall.EBADF) {
			t.Errorf("got %v", err)
		}
		if !gone(c) {
			t.Error("connection left open")
		}
	})
}
