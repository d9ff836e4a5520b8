package milter

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	wire "github.com/emersion/go-milter"
)

// The bars: a round trip adds less than 1 ms to a 10 kB message with a cached key;
// bytes allocated at most the message's size and 100 kB; live heap at most 256 kB
// per message in flight.

// dialogue is one message as Postfix sends it, encoded beforehand, so that the
// benchmark allocates nothing itself.
type dialogue struct {
	envelope []byte // MAIL, RCPT; three replies with EOH
	header   []byte // the fields and EOH
	body     []byte // chunks of one packet each
	end      []byte
	size     int
}

func packet(to []byte, code wire.Code, data string) []byte {
	to = binary.BigEndian.AppendUint32(to, uint32(len(data)+1))
	return append(append(to, byte(code)), data...)
}

func encode(message string) (d dialogue) {
	d.size = len(message)
	d.envelope = packet(d.envelope, wire.CodeMacro, "M{auth_authen}\x00anna\x00{mail_addr}\x00anna@ex.test\x00")
	d.envelope = packet(d.envelope, wire.CodeMail, "<anna@ex.test>\x00")
	d.envelope = packet(d.envelope, wire.CodeRcpt, "<b@dest.test>\x00")
	header, body, _ := strings.Cut(message, "\r\n\r\n")
	for f := range strings.SplitSeq(strings.ReplaceAll(strings.ReplaceAll(header, "\r\n ", "\n "), "\r\n\t", "\n\t"), "\r\n") {
		name, value, _ := strings.Cut(f, ":")
		d.header = packet(d.header, wire.CodeHeader, name+"\x00"+value+"\x00")
	}
	d.header = packet(d.header, wire.CodeEOH, "")
	for len(body) > 0 {
		n := min(wire.MaxBodyChunk, len(body))
		d.body = packet(d.body, wire.CodeBody, body[:n])
		body = body[n:]
	}
	d.end = packet(packet(nil, wire.CodeMacro, "Ei\x00QUEUE\x00"), wire.CodeEOB, "")
	return d
}

// line is one connection to a server.
type line struct {
	net.Conn
	b   *testing.B
	buf []byte
}

func (l *line) write(p []byte) {
	if _, err := l.Write(p); err != nil {
		l.b.Fatal(err)
	}
}

// replies reads n replies and wants the last one to be code.
func (l *line) replies(n int, code byte) {
	for ; n > 0; n-- {
		if _, err := io.ReadFull(l, l.buf[:4]); err != nil {
			l.b.Fatal(err)
		}
		size := binary.BigEndian.Uint32(l.buf)
		if _, err := io.ReadFull(l, l.buf[:size]); err != nil {
			l.b.Fatal(err)
		}
		if n == 1 && l.buf[0] != code {
			l.b.Fatalf("answered %q", l.buf[:size])
		}
	}
}

func (l *line) begin(d *dialogue) {
	l.write(d.envelope)
	l.write(d.header)
	l.replies(3, 'c')
}

func (l *line) send(d *dialogue) {
	l.begin(d)
	l.write(d.body)
	l.write(d.end)
	l.replies(1, 'a')
}

func benchServer(b *testing.B) (connect func() *line) {
	i, err := New(Config{DNS: goodZone()})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Inspector: i}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	b.Cleanup(func() {
		s.Close()
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		i.Close()
	})
	return func() *line {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		p := &line{Conn: c, b: b, buf: make([]byte, 4096)}
		p.write(packet(nil, wire.CodeOptNeg, "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"))
		p.replies(1, 'O')
		p.write(packet(nil, wire.CodeConn, "client.test\x004\x9c\x40192.0.2.1\x00"))
		p.replies(1, 'c')
		return p
	}
}

func signedOf(b *testing.B, size int) *dialogue {
	text := strings.Repeat("All work and no play makes Jack a dull boy, all day long.\r\n", size/50+1)
	d := encode(sign(b, "r", letter("anna@ex.test", text[:size])))
	return &d
}

// BenchmarkRoundTrip: from MAIL to the verdict, the key from memory.
func BenchmarkRoundTrip(b *testing.B) {
	l, d := benchServer(b)(), signedOf(b, 10_000)
	l.send(d)
	for b.Loop() {
		l.send(d)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "ms/message")
}

// BenchmarkAllocated: what one message costs the whole milter, go-milter included.
func BenchmarkAllocated(b *testing.B) {
	for _, size := range []int{10_000, 100_000, 5_000_000, 25_000_000} {
		b.Run(sizeName(size), func(b *testing.B) {
			l, d := benchServer(b)(), signedOf(b, size)
			l.send(d)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			n := 0
			for b.Loop() {
				l.send(d)
				n++
			}
			runtime.ReadMemStats(&after)
			b.ReportMetric((float64(after.TotalAlloc-before.TotalAlloc)/float64(n)-float64(d.size))/1000, "kB-over-its-size")
		})
	}
}

// BenchmarkLiveHeap: 100 messages of 25 MB, all of them half-way in.
func BenchmarkLiveHeap(b *testing.B) {
	const messages = 100
	connect, d := benchServer(b), signedOf(b, 25_000_000)
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for b.Loop() {
		lines := make([]*line, messages)
		for i := range lines {
			lines[i] = connect()
		}
		idle := heap()
		half := len(d.body) / 2
		each(lines, func(l *line) { l.begin(d); l.write(d.body[:half]) })
		b.ReportMetric((heap()-idle)/messages/1000, "kB-live/message")
		each(lines, func(l *line) { l.write(d.body[half:]); l.write(d.end); l.replies(1, 'a'); l.Close() })
	}
}

func each(lines []*line, do func(*line)) {
	var all sync.WaitGroup
	for _, l := range lines {
		all.Go(func() { do(l) })
	}
	all.Wait()
}

func sizeName(n int) string {
	if n < 1_000_000 {
		return strconv.Itoa(n/1000) + "kB"
	}
	return strconv.Itoa(n/1_000_000) + "MB"
}
