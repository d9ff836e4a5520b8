package delegation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/server"
)

// wire is a connection that gives what it has in pieces, and takes everything.
type wire struct {
	net.Conn
	in    [][]byte
	out   bytes.Buffer
	quiet bool // out is not kept
}

func (w *wire) Read(b []byte) (int, error) {
	if len(w.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, w.in[0])
	if w.in[0] = w.in[0][n:]; len(w.in[0]) == 0 {
		w.in = w.in[1:]
	}
	return n, nil
}

func (w *wire) Write(b []byte) (int, error) {
	if w.quiet {
		return len(b), nil
	}
	return w.out.Write(b)
}
func (*wire) Close() error                     { return nil }
func (*wire) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (*wire) SetReadDeadline(time.Time) error  { return nil }
func (*wire) SetWriteDeadline(time.Time) error { return nil }

func connection(s *Server, w *wire) *conn {
	c := &conn{Conn: server.NewConn(w), server: s, life: context.Background()}
	c.prepare()
	return c
}

func ofMessage(instance string) []byte {
	return []byte("request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.7\nsender=a@b.test\nrecipient=c@d.test\ninstance=" +
		instance + "\nsize=0\n" + strings.Repeat("encryption_cipher=TLS_AES_256_GCM_SHA384\n", 10) + "\n")
}

// TestRequestAllocatesNothing, be it repeated or one that the Handler is asked.
func TestRequestAllocatesNothing(t *testing.T) {
	for _, instance := range []string{"1.2.3.0", ""} {
		calls := 0
		c := connection(&Server{Deadline: time.Hour, Handler: HandlerFunc(func(_ context.Context, r *Request) Action {
			calls++
			if !r.ClientAddress().IsValid() || r.State() != Rcpt || len(r.Sender()) == 0 || r.Size() != 0 {
				t.Error("wrong request")
			}
			return DeferIfPermit("4.7.10", "no TLS")
		})}, &wire{quiet: true})
		request := ofMessage(instance)
		one := func() {
			c.Wake()
			c.filled = copy(c.buf, request)
			if more, _ := c.answerAll(); !more || c.filled != 0 || !c.between(true) {
				t.Fatal("not answered")
			}
		}
		one()
		// A garbage collection may empty the pool of replies.
		if n := testing.AllocsPerRun(2000, one); n > 0 && !raceEnabled {
			t.Errorf("instance %q: %v allocations per request", instance, n)
		}
		if (calls == 1) != (instance != "") {
			t.Errorf("instance %q: %d calls", instance, calls)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	for name, instance := range map[string]string{"repeated": "1.2.3.0", "asked": ""} {
		b.Run(name, func(b *testing.B) {
			c := connection(&Server{Handler: HandlerFunc(func(context.Context, *Request) Action { return Dunno() })}, &wire{quiet: true})
			request := ofMessage(instance)
			b.ReportAllocs()
			for b.Loop() {
				c.Wake()
				c.filled = copy(c.buf, request)
				c.answerAll()
				c.between(true)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	captured, err := os.ReadFile("testdata/postfix-3.11.7.txt")
	if err != nil {
		b.Fatal(err)
	}
	request := captured[:bytes.Index(captured, []byte("\n\n"))+2]
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.parse(request); err != nil {
			b.Fatal(err)
		}
	}
}

// TestMemoryIsBounded: whatever comes, there are so many slots; a newcomer takes the
// place of what ends first, and never that of a younger one.
func TestMemoryIsBounded(t *testing.T) {
	var m memory
	const many = 20 * memorySets * memorySlots
	for i := range many {
		var r Request
		b := ofMessage(fmt.Sprint(i))
		if _, err := r.parse(b); err != nil {
			t.Fatal(err)
		}
		reply := fmt.Appendf(nil, "reply %d", i)
		m.keep(&r, reply, time.Now())
		if got, ok := m.appendReply(nil, &r, time.Now()); !ok || !bytes.Equal(got, reply) {
			t.Fatalf("%d: %q, %v", i, got, ok)
		}
	}
	left := 0
	for i := range many {
		var r Request
		b := ofMessage(fmt.Sprint(i))
		if _, err := r.parse(b); err != nil {
			t.Fatal(err)
		}
		if got, ok := m.appendReply(nil, &r, time.Now()); ok {
			left++
			if string(got) != fmt.Sprintf("reply %d", i) {
				t.Fatalf("%d: %q", i, got)
			}
		}
	}
	if left != memorySets*memorySlots {
		t.Errorf("%d left", left)
	}
	// The same hash is not the same request.
	var r Request
	b := ofMessage(fmt.Sprint(many - 1))
	if _, err := r.parse(b); err != nil {
		t.Fatal(err)
	}
	r.raw = bytes.Clone(b)
	r.raw[len(r.raw)-3]++
	if _, ok := m.appendReply(nil, &r, time.Now()); ok {
		t.Error("another request was answered")
	}
	long := ofMessage(strings.Repeat("1", maxRemembered))
	if _, err := r.parse(long); err != nil {
		t.Fatal(err)
	}
	m.keep(&r, []byte("x"), time.Now())
	if _, ok := m.appendReply(nil, &r, time.Now()); ok {
		t.Error("a long request was kept")
	}
}

// FuzzStream: every request that has an end gets exactly one answer, in order, however the
// bytes are cut into segments. What was sent begins with so many letters, since a fuzzer
// does not find the limits.
func FuzzStream(f *testing.F) {
	f.Add(uint16(0), ofMessage("1"), uint16(1))
	f.Add(uint16(0), []byte("\n\n\nrequest=smtpd_access_policy\n\n\n"), uint16(2))
	f.Add(uint16(MaxRequest-1), []byte("\n\n\n"), uint16(MaxRequest))
	f.Add(uint16(MaxRequest), append([]byte("\n\n"), ofMessage("2")...), uint16(100))
	f.Add(uint16(3*MaxRequest), []byte("\n\n\n"), uint16(1000))
	f.Add(uint16(2*MaxRequest+1), []byte("\nb\n\nc"), uint16(MaxRequest))
	f.Fuzz(func(t *testing.T, letters uint16, tail []byte, piece uint16) {
		in := append(bytes.Repeat([]byte("x"), int(letters)), tail...)
		var want []byte
		for rest := in; len(rest) > 0; {
			size := bytes.Index(rest, []byte("\n\n")) + 2
			if rest[0] == '\n' {
				size = 1
			}
			if size == 1 && rest[0] != '\n' {
				break // no end
			}
			r, err := ParseRequest(rest[:size])
			switch {
			case err == nil:
				want, _ = Info(string(r.Sender())).appendReply(want, Rcpt)
			case errors.Is(err, ErrProtocol):
				want = append(want, dunnoReply...)
			}
			rest = rest[size:]
		}
		s := &Server{Deadline: time.Hour, Handler: HandlerFunc(func(_ context.Context, r *Request) Action { return Info(string(r.Sender())) })}
		w := &wire{}
		for rest := in; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			w.in = append(w.in, rest[:n])
			rest = rest[n:]
		}
		c := connection(s, w)
		if !c.serve() {
			t.Fatal("not ours")
		}
		if !bytes.Equal(w.out.Bytes(), want) {
			t.Fatalf("got %q, want %q", w.out.Bytes(), want)
		}
		if len(c.buf) > MaxRequest+2*readGrowth {
			t.Fatalf("a buffer of %d bytes", len(c.buf))
		}
	})
}
