package socketmap

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/server"
)

// sink is a connection that takes everything.
type sink struct {
	net.Conn
	last []byte
}

func (s *sink) Write(b []byte) (int, error) {
	s.last = append(s.last[:0], b...)
	return len(b), nil
}
func (*sink) SetReadDeadline(time.Time) error  { return nil }
func (*sink) SetWriteDeadline(time.Time) error { return nil }

func answering(reply string) (*conn, *sink) {
	s := &Server{Handler: HandlerFunc(func(_ context.Context, dst, _, _ []byte) []byte {
		return append(dst, reply...)
	})}
	out := &sink{}
	return &conn{Conn: server.NewConn(out), server: s}, out
}

func TestAnswerAllocatesNothing(t *testing.T) {
	for _, size := range []int{10, 3000} {
		c, _ := answering("OK " + strings.Repeat("x", size))
		request := AppendNetstring(nil, "postseal example.com")
		one := func() {
			if !c.Wake() {
				t.Fatal("not awake")
			}
			if used, ok := c.answerAll(t.Context(), request); used != len(request) || !ok || !c.between(0, used) {
				t.Fatal(used, ok)
			}
		}
		one()
		// A garbage collection may empty the pool of frames.
		if n := testing.AllocsPerRun(2000, one); n > 0 && !raceEnabled {
			t.Errorf("reply of %d bytes: %v allocations per answer", size, n)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	c, _ := answering("OK secure match=mx1.example.com:mx2.example.com servername=hostname")
	request := AppendNetstring(nil, "postseal newsletter-recipient.example.com")
	b.ReportAllocs()
	for b.Loop() {
		c.Wake()
		used, _ := c.answerAll(b.Context(), request)
		c.between(0, used)
	}
}

func TestPFX07_EveryByteIsChecked(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for v := range 256 {
				b := bytes.Repeat([]byte{'~'}, length)
				b[at] = byte(v)
				if got, want := allPrintable(b), v >= ' ' && v <= '~'; got != want {
					t.Fatalf("%q: got %v", b, got)
				}
				b = bytes.Repeat([]byte{' '}, length)
				b[at] = byte(v)
				if got, want := allPrintable(b), v >= ' ' && v <= '~'; got != want {
					t.Fatalf("%q: got %v", b, got)
				}
			}
		}
	}
}

// TestPFX01_Framing: `len:data,` whatever the length, wherever the payload lies.
func TestPFX01_Framing(t *testing.T) {
	f := &frame{}
	for _, n := range []int{1, 9, 10, 99, 100, 2000, 2040, 2041, 2048, 9999, 10000, MaxReply - 1, MaxReply, 1} {
		payload := strings.Repeat("x", n)
		want := string(AppendNetstring(nil, payload))
		if got := string(f.netstring(append(f.payload(), payload...))); got != want {
			t.Fatalf("appended, %d bytes: %.20q… of %d", n, got, len(got))
		}
		if got := string(f.netstring([]byte(payload))); got != want {
			t.Fatalf("other bytes, %d: %.20q… of %d", n, got, len(got))
		}
	}
}
