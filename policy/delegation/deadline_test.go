package delegation_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/policy/delegation"
)

// deaf does not hear that its context has ended: it answers each request after d.
func deaf(d time.Duration, calls *atomic.Int64) delegation.Handler {
	return delegation.HandlerFunc(func(ctx context.Context, r *delegation.Request) delegation.Action {
		calls.Add(1)
		time.Sleep(d)
		return delegation.Info(string(r.Recipient()))
	})
}

// TestPOL04_LateIsDunno in time, and the connection goes on at once with what has come
// meanwhile.
func TestPOL04_LateIsDunno(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var ended []error
		b := serve(t, &delegation.Server{
			Logger: slog.New(slog.NewJSONHandler(&log, nil)),
			Handler: delegation.HandlerFunc(func(ctx context.Context, r *delegation.Request) delegation.Action {
				if string(r.Recipient()) != "late@a.test" {
					return delegation.Info(string(r.Recipient()))
				}
				if d, ok := ctx.Deadline(); !ok || time.Until(d) != delegation.DefaultDeadline {
					t.Errorf("deadline %v, %v", d, ok)
				}
				<-ctx.Done()
				ended = append(ended, ctx.Err(), context.Cause(ctx))
				time.Sleep(time.Minute)
				if string(r.Recipient()) != "late@a.test" || len(r.Get(delegation.MailVersion)) == 0 {
					t.Error("the request has changed under the Handler")
				}
				return delegation.Info("too late")
			}),
		})
		c := b.dial()
		for range 3 { // the timer runs on from call to call
			go io.WriteString(c, to("a@a.test", "instance", ""))
			expect(t, c, told("a@a.test"))
			time.Sleep(900 * time.Millisecond)
		}
		go io.WriteString(c, to("late@a.test")+to("next@a.test"))
		began := time.Now()
		expect(t, c, dunno)
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("answered after %v", d)
		}
		expect(t, c, told("next@a.test"))
		for range 20 { // the buffer is used again
			ask(t, c)
		}
		if len(ended) != 2 || !errors.Is(ended[0], context.DeadlineExceeded) || !errors.Is(ended[1], context.DeadlineExceeded) {
			t.Errorf("ended with %v", ended)
		}
		time.Sleep(2 * time.Minute)
		ask(t, c)
		if st := b.server.Stats(); st.Late != 1 || st.Requests != 26 || st.Conns != 1 {
			t.Errorf("stats: %+v", st)
		}
		if n := strings.Count(log.String(), "within the deadline"); n != 1 || !strings.Contains(log.String(), `"recipient":"late@a.test"`) {
			t.Errorf("logged %d times:\n%s", n, &log)
		}
		b.stop()
		c.Close()
		<-b.ended
	})
}

// TestPOL04_EachLateCallIsDunno: a Handler that hangs costs each request the deadline,
// not more, until too many hang; then nothing.
func TestPOL04_EachLateCallIsDunno(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		b := serve(t, &delegation.Server{Handler: deaf(24*time.Hour, &calls), Deadline: time.Second})
		c := b.dial()
		began := time.Now()
		for range delegation.MaxLate {
			go io.WriteString(c, to("a@a.test", "instance", "")) // never remembered
			expect(t, c, dunno)
		}
		if d := time.Since(began); d != delegation.MaxLate*time.Second {
			t.Errorf("took %v", d)
		}
		for range 10 {
			go io.WriteString(c, to("a@a.test", "instance", ""))
			expect(t, c, dunno)
		}
		if d := time.Since(began); d != delegation.MaxLate*time.Second {
			t.Errorf("waits although all is lost: %v", d)
		}
		if st := b.server.Stats(); st.Late != delegation.MaxLate || st.Overloaded != 10 || calls.Load() != delegation.MaxLate {
			t.Errorf("stats: %+v, %d calls", st, calls.Load())
		}
		// When they return, the Handler is asked again.
		time.Sleep(48 * time.Hour)
		go io.WriteString(c, to("a@a.test", "instance", ""))
		expect(t, c, dunno)
		if n := calls.Load(); n != delegation.MaxLate+1 {
			t.Errorf("%d calls", n)
		}
		c.Close()
		b.server.Close()
		<-b.ended
	})
}

// TestPOL05_ServeWaitsForLateCalls: every goroutine has ended when Serve returns.
func TestPOL05_ServeWaitsForLateCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		b := serve(t, &delegation.Server{Handler: deaf(time.Minute, &calls)})
		c := b.dial()
		go io.WriteString(c, to("a@a.test"))
		expect(t, c, dunno)
		began := time.Now()
		b.server.Close()
		if err := <-b.ended; err != nil || time.Since(began) != 58*time.Second {
			t.Errorf("ended after %v, %v", time.Since(began), err)
		}
	})
}

// TestPOL05_DrainFinishesALateCall: the one that took over is told to leave like any other.
func TestPOL05_DrainFinishesALateCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t, &delegation.Server{Handler: slow(time.Hour), Drain: -1})
		c := b.dial()
		send(t, c, to("a@a.test"))
		b.stop()
		expect(t, c, dunno)
		if !b.hasEnded() || !gone(c) {
			t.Error("did not end")
		}
		<-b.ended
	})
}

// TestContextOfACall behaves as any other: what derives from it ends with it.
func TestContextOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept context.Context
		var derived context.Context
		b := serve(t, &delegation.Server{Handler: delegation.HandlerFunc(func(ctx context.Context, r *delegation.Request) delegation.Action {
			kept = ctx
			sub, cancel := context.WithTimeout(ctx, time.Hour)
			t.Cleanup(cancel)
			derived = sub
			if ctx.Err() != nil || sub.Err() != nil {
				t.Error("ended already")
			}
			if string(r.Recipient()) == "late@a.test" {
				<-sub.Done()
			}
			return delegation.Dunno()
		})})
		c := b.dial()
		for recipient, want := range map[string]error{"a@a.test": context.Canceled, "late@a.test": context.DeadlineExceeded} {
			go io.WriteString(c, to(recipient))
			expect(t, c, dunno)
			synctest.Wait()
			<-kept.Done()
			if !errors.Is(kept.Err(), want) || !errors.Is(derived.Err(), want) {
				t.Errorf("%s: %v, %v", recipient, kept.Err(), derived.Err())
			}
		}
		c.Close()
		b.server.Close()
		<-b.ended
	})
}

func TestPOL04_RepeatedIsAnsweredFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		b := serve(t, &delegation.Server{Handler: deaf(0, &calls)})
		c, other := b.dial(), b.dial()
		calling := func(c net.Conn, why string, want int64, changes ...string) {
			t.Helper()
			before := calls.Load()
			go io.WriteString(c, request(changes...))
			expect(t, c, told(string(parse(t, request(changes...)).Recipient())))
			if n := calls.Load() - before; n != want {
				t.Errorf("%s: %d calls, want %d", why, n, want)
			}
		}
		calling(c, "new", 1)
		calling(c, "repeated", 0)
		calling(other, "repeated on another connection", 0)
		for i := 2; i < len(usual); i += 2 {
			calling(c, "another "+usual[i], 1, usual[i], "z@z.test")
		}
		calling(c, "an unknown attribute", 1, "future", "1")
		calling(c, "still the first", 0)
		calling(c, "no instance", 1, "instance", "")
		calling(c, "no instance, repeated", 1, "instance", "")
		time.Sleep(delegation.RepeatLifetime - time.Millisecond)
		calling(c, "before the end", 0)
		time.Sleep(time.Millisecond)
		calling(c, "after the end", 1)
		calling(c, "repeated again", 0)
		if n := b.server.Stats().Repeated; n != 5 {
			t.Errorf("%d from memory, want 5", n)
		}
		b.server.Close()
		<-b.ended
	})
}

// TestPOL04_DunnoIsSharedIfItTookTime: of a Handler that knows at once only the next list
// need not ask again.
func TestPOL04_DunnoIsSharedIfItTookTime(t *testing.T) {
	for wait, want := range map[time.Duration]int64{0: 4, time.Second: 2} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			b := serve(t, &delegation.Server{Handler: delegation.HandlerFunc(func(ctx context.Context, _ *delegation.Request) delegation.Action {
				calls.Add(1)
				if wait > 0 {
					select {
					case <-ctx.Done():
					case <-time.After(wait):
					}
				}
				return delegation.Dunno()
			})})
			c, other := b.dial(), b.dial()
			asking := func(c net.Conn, recipients ...string) {
				for _, recipient := range recipients {
					go io.WriteString(c, to(recipient))
					expect(t, c, dunno)
				}
			}
			asking(c, "a@a.test", "a@a.test", "a@a.test", "b@b.test", "b@b.test")
			asking(other, "a@a.test", "a@a.test")
			asking(c, "a@a.test")
			if n := calls.Load(); n != want {
				t.Errorf("%v: %d calls, want %d", wait, n, want)
			}
			time.Sleep(delegation.RepeatLifetime)
			asking(c, "a@a.test")
			if n := calls.Load(); n != want+1 {
				t.Errorf("%v: %d calls at the end, want %d", wait, n, want+1)
			}
			b.server.Close()
			<-b.ended
		})
	}
}

// TestPOL04_LateAnswerReachesTheNextList: until it is there, DUNNO is repeated without
// waiting.
func TestPOL04_LateAnswerReachesTheNextList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		b := serve(t, &delegation.Server{Handler: deaf(3*time.Second, &calls)})
		c := b.dial()
		began := time.Now()
		for range 3 {
			go io.WriteString(c, to("a@a.test"))
			expect(t, c, dunno)
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("took %v", d)
		}
		time.Sleep(1100 * time.Millisecond)
		ask(t, c)
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
		b.server.Close()
		<-b.ended
	})
}
