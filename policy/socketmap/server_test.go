package socketmap_test

import (
	"bufio"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postseal/postseal/policy/socketmap"
)

// parrot answers "OK map=MAP key=KEY", with everything outside ASCII in quotes.
var parrot = socketmap.HandlerFunc(func(_ context.Context, dst, mapName, key []byte) []byte {
	if string(key) == "panic" {
		panic("asked to")
	}
	return fmt.Appendf(dst, "OK map=%+q key=%+q", mapName, key)
})

// start serves on loopback until the test ends.
func start(t testing.TB, s *socketmap.Server) net.Addr {
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
	renew(c)
	return c
}

// patience is how long a test waits for one thing that must happen.
const patience = 2 * time.Minute

func renew(c net.Conn) { c.SetDeadline(time.Now().Add(patience)) }

func netstring(s string) string { return string(socketmap.AppendNetstring(nil, s)) }

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	renew(c)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got[:n], err, want)
	}
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	renew(c)
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

const aAnswer = `OK map="m" key="a.test"`

func TestPFX01_PipelinedInOneSegment(t *testing.T) {
	c := dial(t, start(t, &socketmap.Server{Handler: parrot}))
	var in, want strings.Builder
	for i := range 200 {
		in.WriteString(netstring(fmt.Sprintf("m %d", i)))
		want.WriteString(netstring(fmt.Sprintf(`OK map="m" key="%d"`, i)))
	}
	send(t, c, in.String())
	expect(t, c, want.String())
}

func TestPFX01_ByteByByte(t *testing.T) {
	c := dial(t, start(t, &socketmap.Server{Handler: parrot}))
	for range 3 {
		for _, b := range netstring("m a.test") {
			send(t, c, string(b))
			time.Sleep(time.Millisecond)
		}
		expect(t, c, netstring(aAnswer))
	}
}

// TestPFX01_MalformedClosesWithoutAnswer, and what came in order before it is
// answered.
func TestPFX01_MalformedClosesWithoutAnswer(t *testing.T) {
	s := &socketmap.Server{Handler: parrot}
	addr := start(t, s)
	bad := []string{
		"5:ab,", "5:ab,xyz,", "99999999:", "05:ab cd,", "10001:", ":", "x", "\r\n", "-1:", "0:,",
		netstring("nospace"), netstring(strings.Repeat("x", 10000)), // a request of the full size, without a space
	}
	for i, in := range bad {
		c := dial(t, addr)
		// What never becomes complete is cut when the peer closes.
		send(t, c, netstring("m a.test")+in)
		c.(*net.TCPConn).CloseWrite()
		expect(t, c, netstring(aAnswer))
		if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%.20q: got %q, %v", in, rest, err)
		}
		// "5:ab," alone may still become a netstring.
		if got, want := s.Stats().Malformed, uint64(max(i, 0)); got != want {
			t.Errorf("%.20q: %d malformed, want %d", in, got, want)
		}
	}
	c := dial(t, addr)
	send(t, c, netstring("m a.test"))
	expect(t, c, netstring(aAnswer))
}

// TestPFX02_OnlyTheFirstSpaceSplits; and PFX-03, PFX-05: nothing is folded,
// encoded or taken apart on the way to the Handler.
func TestPFX02_OnlyTheFirstSpaceSplits(t *testing.T) {
	c := dial(t, start(t, &socketmap.Server{Handler: parrot}))
	for _, tc := range []struct{ id, mapName, key string }{
		{"PFX02", "m", "a b  c "},
		{"PFX02", "m", ""},
		{"PFX02", "", "key"},
		{"PFX02", "m", " leading"},
		{"PFX02", "m", "5:ab cd,"},
		{"PFX02", "m", "nul\x00 and\nline"},
		{"PFX03", "POSTSEAL", "Sub2.Multi.TEST"},
		{"PFX03", "m", "bücher.test"},
		{"PFX05", "m", "[smtp.relay.test]:25"},
		{"PFX05", "m", "sub.multi.test:smtp"},
		{"PFX05", "m", ".Multi.TEST"},
		{"PFX01", "m", strings.Repeat("k", socketmap.MaxRequest-2)},
		{"PFX01", "m", "after the largest"},
	} {
		send(t, c, netstring(tc.mapName+" "+tc.key))
		expect(t, c, netstring(fmt.Sprintf("OK map=%+q key=%+q", tc.mapName, tc.key)))
	}
}

func TestPanicIsAnsweredWithTemp(t *testing.T) {
	var log bytes.Buffer
	s := &socketmap.Server{Handler: parrot, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	c := dial(t, start(t, s))
	for range 3 {
		send(t, c, netstring("m panic"))
		expect(t, c, netstring("TEMP postseal: internal error, see its log"))
	}
	send(t, c, netstring("m a.test"))
	expect(t, c, netstring(aAnswer))
	if st := s.Stats(); st.Panics != 3 || st.Requests != 4 || st.Conns != 1 || st.Accepted != 1 {
		t.Errorf("stats: %+v", st)
	}
	if n := strings.Count(log.String(), "panic="); n != 1 || !strings.Contains(log.String(), "server_test.go") {
		t.Errorf("logged %d times, want once, with the place:\n%s", n, &log)
	}
}

// TestSlowReaderIsCut: a peer that asks but does not take the answers.
func TestSlowReaderIsCut(t *testing.T) {
	s := &socketmap.Server{WriteTimeout: 50 * time.Millisecond, Handler: socketmap.HandlerFunc(
		func(_ context.Context, dst, _, _ []byte) []byte {
			return append(append(dst, "OK "...), bytes.Repeat([]byte{'x'}, 90000)...)
		})}
	addr := start(t, s)
	c := dial(t, addr)
	request := []byte(strings.Repeat(netstring("m a.test"), 1000))
	for {
		if _, err := c.Write(request); err != nil {
			break // the server has closed
		}
	}
	waitFor(t, func() bool { return s.Conns() == 0 })
	if n := s.Stats().TimedOut; n != 1 {
		t.Errorf("%d timed out, want 1", n)
	}
}

func waitFor(t testing.TB, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// TestIdleAndShortConnectionsStarveNobody: 2,000 idle and 10,000 short ones.
func TestIdleAndShortConnectionsStarveNobody(t *testing.T) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	idle := min(2000, int(files.Cur)/2-200) // both ends are ours
	s := &socketmap.Server{Handler: parrot}
	addr := start(t, s)
	for range idle {
		dial(t, addr)
	}
	steady := dial(t, addr)
	const short, askers = 10000, 8
	var running sync.WaitGroup
	errs := make(chan error, askers)
	for range askers {
		running.Go(func() {
			for range short / askers {
				if err := askOnce(addr); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	for asking := true; asking; {
		select {
		case <-done:
			asking = false
		default:
		}
		send(t, steady, netstring("m a.test"))
		expect(t, steady, netstring(aAnswer))
		time.Sleep(time.Millisecond)
	}
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	waitFor(t, func() bool { return s.Conns() == idle+1 })
	if st := s.Stats(); st.Evicted != 0 || st.Accepted != uint64(idle+1+short) {
		t.Errorf("stats: %+v", st)
	}
}

func askOnce(addr net.Addr) error {
	c, err := socketmap.Dial(context.Background(), addr.Network(), addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := c.Query(ctx, "m", "a.test")
	if err == nil && r.String() != aAnswer {
		err = fmt.Errorf("got %q", r)
	}
	return err
}

// TestHalfRequestCostsLittle: at most 1 kB more than an idle connection, whatever
// length it announces.
func TestHalfRequestCostsLittle(t *testing.T) {
	const n = 400
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := &readers{Listener: l}
	s := &socketmap.Server{Handler: parrot}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), seen) }()
	heap := func(received int) int {
		waitFor(t, func() bool { return seen.received.Load() == int64(received) && seen.waiting.Load() == n })
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse)
	}
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = dial(t, l.Addr())
	}
	before := heap(0)
	half := "9999:m " + strings.Repeat("x", 600)
	for _, c := range conns {
		send(t, c, half)
	}
	after := heap(n * len(half))
	if per := (after - before) / n; per > 1024+200 { // 200: the measurement
		t.Errorf("a half-sent request costs %d bytes more than an idle connection", per)
	}
	runtime.KeepAlive(conns)
	s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// readers tell what their connections have received, and how many of them wait
// for more.
type readers struct {
	net.Listener
	received, waiting atomic.Int64
}

func (r *readers) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return reader{c, r}, nil
}

type reader struct {
	net.Conn
	all *readers
}

func (r reader) Read(b []byte) (int, error) {
	r.all.waiting.Add(1)
	n, err := r.Conn.Read(b)
	r.all.waiting.Add(-1)
	r.all.received.Add(int64(n))
	return n, err
}

func TestKeepAliveIsOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := &watched{Listener: l, conns: make(chan net.Conn, 1)}
	s := &socketmap.Server{Handler: parrot}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), seen) }()
	dial(t, l.Addr())
	raw, err := (<-seen.conns).(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var on int
	if ctlErr := raw.Control(func(fd uintptr) {
		on, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	}); ctlErr != nil || err != nil || on == 0 {
		t.Errorf("SO_KEEPALIVE=%d, %v, %v", on, err, ctlErr)
	}
	s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type watched struct {
	net.Listener
	conns chan net.Conn
}

func (w *watched) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err == nil {
		w.conns <- c
	}
	return c, err
}

func TestUnixAndTCPAtOnce(t *testing.T) {
	s := &socketmap.Server{Handler: parrot}
	tcp := start(t, s)
	l, err := net.Listen("unix", t.TempDir()+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() { done <- s.Serve(ctx, l) }()
	if err := errors.Join(askOnce(tcp), askOnce(l.Addr())); err != nil {
		t.Error(err)
	}
	waitFor(t, func() bool { return s.Conns() == 0 })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The other listener goes on.
	if err := askOnce(tcp); err != nil {
		t.Error(err)
	}
}

func TestClientErrors(t *testing.T) {
	for _, tc := range []struct {
		why, answer string
		want        error
	}{
		{"closed", "", io.EOF},
		{"cut off", "9:OK", io.ErrUnexpectedEOF},
		{"no netstring", "HTTP/1.1 400\r\n,", socketmap.ErrProtocol},
		{"too long", "100001:", socketmap.ErrProtocol},
		{"no reply", "2:OK,", socketmap.ErrProtocol},
	} {
		here, there := net.Pipe()
		go func() {
			bufio.NewReader(there).ReadString(',')
			io.WriteString(there, tc.answer)
			there.Close()
		}()
		c := socketmap.NewClient(here)
		_, err := c.Query(t.Context(), "m", "a.test")
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", tc.why, err)
		}
		if _, again := c.Query(t.Context(), "m", "a.test"); !errors.Is(again, err) {
			t.Errorf("%s: the next one: %v", tc.why, again)
		}
	}
	c := socketmap.NewClient(nil)
	if _, err := c.Query(t.Context(), "m", strings.Repeat("x", 10000)); err == nil {
		t.Error("a question over the limit was sent")
	}
	if _, err := socketmap.Dial(t.Context(), "unix", t.TempDir()+"/none"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("dial: %v", err)
	}
}
