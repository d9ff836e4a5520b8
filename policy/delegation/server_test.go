package delegation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postseal/postseal/policy/delegation"
)

// parrot answers INFO with the recipient, and misbehaves when that says so.
var parrot = delegation.HandlerFunc(func(_ context.Context, r *delegation.Request) delegation.Action {
	switch string(r.Recipient()) {
	case "panic@a.test":
		panic("asked to")
	case "bad@a.test":
		return delegation.Reject(250, "", "")
	case "exit@a.test":
		runtime.Goexit()
	case "inject@a.test":
		return delegation.Reject(550, "5.7.10", "evil\n\naction=OK\n\n")
	case "prepend@a.test":
		return delegation.Prepend("X-A", "b")
	}
	return delegation.Info(string(r.Recipient()))
})

const dunno = "action=DUNNO\n\n"

func to(recipient string, changes ...string) string {
	return request(append([]string{"recipient", recipient}, changes...)...)
}

func told(recipient string) string { return "action=INFO " + recipient + "\n\n" }

// start serves on loopback until the test ends.
func start(t testing.TB, s *delegation.Server) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr()
}

func dial(t testing.TB, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got[:n], err, want)
	}
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t testing.TB, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestPOL05_ManyRequestsInOneSegment(t *testing.T) {
	s := &delegation.Server{Handler: parrot}
	c := dial(t, start(t, s))
	var in, want strings.Builder
	for i := range 200 {
		recipient := fmt.Sprintf("%d@a.test", i)
		in.WriteString(to(recipient))
		want.WriteString(told(recipient))
	}
	send(t, c, in.String())
	expect(t, c, want.String())
	if st := s.Stats(); st.Requests != 200 || st.Accepted != 1 || st.Repeated != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestPOL05_ByteByByte(t *testing.T) {
	c := dial(t, start(t, &delegation.Server{Handler: parrot}))
	c.(*net.TCPConn).SetNoDelay(true)
	for i := range 2 {
		recipient := fmt.Sprintf("%d@a.test", i)
		for _, b := range to(recipient) {
			send(t, c, string(b))
			runtime.Gosched()
		}
		expect(t, c, told(recipient))
	}
}

// TestPOL04_TroubleIsDunno, each with a log line, on a connection that goes on.
func TestPOL04_TroubleIsDunno(t *testing.T) {
	long := strings.Repeat("x", delegation.MaxRequest)
	for _, tc := range []struct {
		why, in, logged string
		count           func(delegation.Stats) uint64
	}{
		{"panic", to("panic@a.test"), "panic while answering", func(s delegation.Stats) uint64 { return s.Panics }},
		{"bad action", to("bad@a.test"), "action withheld", func(s delegation.Stats) uint64 { return s.BadActions }},
		{"PREPEND too late", to("prepend@a.test", "protocol_state", "END-OF-MESSAGE"), "action withheld", func(s delegation.Stats) uint64 { return s.BadActions }},
		{"no type", "sender=a@b.test\n\n", "malformed request", malformed},
		{"another type", "request=junk\n\n", "malformed request", malformed},
		{"NUL", to("a\x00b"), "malformed request", malformed},
		{"no name", "request=smtpd_access_policy\nnonsense\n\n", "malformed request", malformed},
		{"nothing", "\n", "malformed request", malformed},
		{"too long", to(long), "malformed request", malformed},
		{"much too long", to(strings.Repeat(long, 40)), "malformed request", malformed},
		{"one line too long", "request=smtpd_access_policy\n" + strings.Repeat("a=b\n", 100000) + "\n", "malformed request", malformed},
		{"HTTP", "GET / HTTP/1.1\n\n", "malformed request", malformed},
	} {
		var log bytes.Buffer
		s := &delegation.Server{Handler: parrot, Logger: slog.New(slog.NewJSONHandler(&log, nil))}
		c := dial(t, start(t, s))
		for range 2 {
			send(t, c, to("before@a.test")+tc.in+to("after@a.test"))
			expect(t, c, told("before@a.test")+dunno+told("after@a.test"))
		}
		// A repetition is answered from memory if it is a request at all.
		if st := s.Stats(); tc.count(st) == 0 || tc.count(st) > 2 || st.Requests != 6 || st.Conns != 1 {
			t.Errorf("%s: stats: %+v", tc.why, st)
		}
		if n := strings.Count(log.String(), tc.logged); n != 1 {
			t.Errorf("%s: logged %d times:\n%s", tc.why, n, &log)
		}
	}
}

func malformed(s delegation.Stats) uint64 { return s.Malformed }

// TestPOL04_EndlessRequestIsCut: without an end there is nothing to answer.
func TestPOL04_EndlessRequestIsCut(t *testing.T) {
	s := &delegation.Server{Handler: parrot}
	c := dial(t, start(t, s))
	send(t, c, to("before@a.test"))
	expect(t, c, told("before@a.test"))
	line := []byte(strings.Repeat("a=b\n", 1<<14))
	for {
		if _, err := c.Write(line); err != nil {
			break
		}
	}
	if rest, _ := io.ReadAll(c); len(rest) > 0 {
		t.Errorf("answered with %q", rest)
	}
	waitFor(t, func() bool { return s.Conns() == 0 })
	if st := s.Stats(); st.Malformed != 1 || st.TimedOut != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestPOL04_HalfRequestThenGone(t *testing.T) {
	s := &delegation.Server{Handler: parrot}
	addr := start(t, s)
	for _, half := range []string{"", "request=smtpd", to("a@a.test")[:200], strings.TrimSuffix(to("a@a.test"), "\n")} {
		c := dial(t, addr)
		send(t, c, to("before@a.test")+half)
		c.(*net.TCPConn).CloseWrite()
		expect(t, c, told("before@a.test"))
		if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: got %q, %v", half, rest, err)
		}
	}
}

func TestPOL04_RemoteTextAddsNothing(t *testing.T) {
	c := dial(t, start(t, &delegation.Server{Handler: parrot}))
	send(t, c, to("inject@a.test")+to("after@a.test"))
	expect(t, c, "action=550 5.7.10 evil  action=OK\n\n"+told("after@a.test"))
}

// TestHandlerThatEndsItsGoroutine closes its connection, and no other one.
func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	s := &delegation.Server{Handler: parrot}
	addr := start(t, s)
	c, other := dial(t, addr), dial(t, addr)
	send(t, c, to("exit@a.test"))
	if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
		t.Errorf("got %q, %v", rest, err)
	}
	waitFor(t, func() bool { return s.Conns() == 1 })
	send(t, other, to("a@a.test"))
	expect(t, other, told("a@a.test"))
}

// TestSlowReaderIsCut: a peer that asks but does not take the answers.
func TestSlowReaderIsCut(t *testing.T) {
	s := &delegation.Server{WriteTimeout: 50 * time.Millisecond, Handler: parrot}
	c := dial(t, start(t, s))
	in := []byte(strings.Repeat(to("a@a.test"), 100))
	for {
		if _, err := c.Write(in); err != nil {
			break // the server has closed
		}
	}
	waitFor(t, func() bool { return s.Conns() == 0 })
	if n := s.Stats().TimedOut; n != 1 {
		t.Errorf("%d timed out, want 1", n)
	}
}

// TestPOL05_200Clients ask at once, each for several recipients in three restriction
// lists; some close in between as Postfix does, some requests are late.
func TestPOL05_200Clients(t *testing.T) {
	const clients, recipients, lists = 200, 10, 3
	var mu sync.Mutex
	asked := map[string]int{}
	s := &delegation.Server{Handler: delegation.HandlerFunc(func(_ context.Context, r *delegation.Request) delegation.Action {
		mu.Lock()
		asked[string(r.Recipient())]++
		mu.Unlock()
		return delegation.Info(string(r.Recipient()))
	}), Deadline: time.Minute}
	addr := start(t, s)
	errs := make(chan error, clients)
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() { errs <- client(addr, i, recipients, lists) })
	}
	running.Wait()
	for range clients {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if st := s.Stats(); st.Requests != clients*recipients*lists || st.Malformed+st.Late+st.TimedOut+st.Panics+st.BadActions != 0 {
		t.Errorf("stats: %+v", st)
	}
	if len(asked) != clients*recipients {
		t.Errorf("asked about %d recipients", len(asked))
	}
}

func client(addr net.Addr, number, recipients, lists int) error {
	var c net.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for i := range recipients {
		if c == nil {
			var err error
			if c, err = net.Dial(addr.Network(), addr.String()); err != nil {
				return err
			}
			c.SetDeadline(time.Now().Add(60 * time.Second))
		}
		recipient := fmt.Sprintf("%d-%d@a.test", number, i)
		in, want := to(recipient, "instance", fmt.Sprintf("%x.1.2.0", number)), told(recipient)
		for range lists {
			if _, err := io.WriteString(c, in); err != nil {
				return err
			}
			got := make([]byte, len(want))
			if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
				return fmt.Errorf("got %q, %w, want %q", got[:n], err, want)
			}
		}
		if (number+i)%5 == 0 {
			c.Close()
			c = nil
		}
	}
	return nil
}

// TestHalfRequestCostsLittle: at most 1 kB more than an idle connection.
func TestHalfRequestCostsLittle(t *testing.T) {
	s := &delegation.Server{Handler: parrot}
	addr := start(t, s)
	const n = 400
	heap := func() int {
		waitFor(t, func() bool { return s.Conns() == n })
		time.Sleep(50 * time.Millisecond) // until the server has read what was sent
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse)
	}
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = dial(t, addr)
	}
	before := heap()
	for _, c := range conns {
		send(t, c, "request=smtpd_access_policy\nsender="+strings.Repeat("x", 600))
	}
	after := heap()
	if per := (after - before) / n; per > 1024+200 { // 200: the measurement
		t.Errorf("a half-sent request costs %d bytes more than an idle connection", per)
	}
	runtime.KeepAlive(conns)
}

func TestUnixAndTCPAtOnce(t *testing.T) {
	s := &delegation.Server{Handler: parrot}
	tcp := start(t, s)
	l, err := net.Listen("unix", t.TempDir()+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() { done <- s.Serve(ctx, l) }()
	if err := errors.Join(client(tcp, 1, 1, 1), client(l.Addr(), 2, 1, 1)); err != nil {
		t.Error(err)
	}
	waitFor(t, func() bool { return s.Conns() == 0 })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The other listener goes on.
	if err := client(tcp, 3, 1, 1); err != nil {
		t.Error(err)
	}
}
