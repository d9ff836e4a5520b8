package milter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	wire "github.com/emersion/go-milter"
)

// peer plays Postfix: it speaks the protocol byte by byte.
type peer struct {
	t    *testing.T
	conn net.Conn
}

// serve starts a server for an inspector and returns a way to connect, and one to
// end it.
func serve(t *testing.T, s *Server) (dial func() *peer, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return func() *peer {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return &peer{t: t, conn: c}
	}, stop
}

func (p *peer) send(code wire.Code, data string) {
	p.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)+1))
	if _, err := p.conn.Write(append(append(b, byte(code)), data...)); err != nil {
		p.t.Fatalf("sending %c: %v", code, err)
	}
}

// receive reads a reply. The deadline is for a server that never answers.
func (p *peer) receive() (code byte, data string) {
	p.t.Helper()
	code, data, err := p.read()
	if err != nil {
		p.t.Fatalf("no reply: %v", err)
	}
	return code, data
}

func (p *peer) read() (code byte, data string, err error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(time.Minute))
	var length [4]byte
	if _, err := io.ReadFull(p.conn, length[:]); err != nil {
		return 0, "", err
	}
	b := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return 0, "", err
	}
	return b[0], string(b[1:]), nil
}

func (p *peer) ask(code wire.Code, data string) (byte, string) {
	p.t.Helper()
	p.send(code, data)
	return p.receive()
}

// proceed asks and wants to be told to go on.
func (p *peer) proceed(code wire.Code, data string) {
	p.t.Helper()
	if c, d := p.ask(code, data); c != 'c' {
		p.t.Fatalf("%c %q was answered %c %q", code, data, c, d)
	}
}

func (p *peer) negotiate() (actions, protocol uint32, macros string) {
	p.t.Helper()
	var b []byte
	for _, v := range []uint32{6, 0x1ff, 0x1fffff} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	code, data := p.ask(wire.CodeOptNeg, string(b))
	if code != 'O' || len(data) < 12 {
		p.t.Fatalf("negotiation: %c %q", code, data)
	}
	return binary.BigEndian.Uint32([]byte(data[4:])), binary.BigEndian.Uint32([]byte(data[8:])), data[12:]
}

func (p *peer) macro(stage wire.Code, pairs ...string) {
	p.t.Helper()
	p.send(wire.CodeMacro, string(stage)+strings.Join(pairs, "\x00")+"\x00")
}

// connect begins a session of a client that comes by SMTP.
func (p *peer) connect(address string) {
	p.t.Helper()
	p.negotiate()
	p.macro(wire.CodeConn, "j", "mail.ex.test", "{client_addr}", address)
	family, port := "4", "\x9c\x40"
	if strings.Contains(address, ":") {
		family = "6"
	}
	p.proceed(wire.CodeConn, "client.test\x00"+family+port+address+"\x00")
	p.proceed(wire.CodeHelo, "client.test\x00")
}

// sendmail begins a session as cleanup(8) does for mail of sendmail(1).
func (p *peer) sendmail() {
	p.t.Helper()
	p.negotiate()
	p.macro(wire.CodeConn, "j", "mail.ex.test")
	p.proceed(wire.CodeConn, "localhost\x004\x00\x00127.0.0.1\x00")
	p.proceed(wire.CodeHelo, "localhost\x00")
}

// envelope sends MAIL and RCPT.
func (p *peer) envelope(login, from string, to ...string) {
	p.t.Helper()
	p.macro(wire.CodeMail, "{auth_authen}", login, "{mail_addr}", strings.ToLower(from))
	p.proceed(wire.CodeMail, "<"+from+">\x00")
	for _, r := range to {
		p.macro(wire.CodeRcpt, "{rcpt_addr}", r, "{rcpt_mailer}", "smtp")
		p.proceed(wire.CodeRcpt, "<"+r+">\x00")
	}
}

// content sends a message as Postfix does: folds as LF, body in chunks.
func (p *peer) content(message string, chunk int) {
	p.t.Helper()
	header, body, _ := strings.Cut(message, "\r\n\r\n")
	var fields []string
	for line := range strings.SplitSeq(header, "\r\n") {
		if (line[0] == ' ' || line[0] == '\t') && len(fields) > 0 {
			fields[len(fields)-1] += "\n" + line
		} else {
			fields = append(fields, line)
		}
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		p.send(wire.CodeHeader, name+"\x00"+value+"\x00")
	}
	p.proceed(wire.CodeEOH, "")
	for len(body) > 0 {
		n := min(chunk, len(body))
		p.send(wire.CodeBody, body[:n])
		body = body[n:]
	}
}

// end ends the message. It returns what comes before the reply, too.
func (p *peer) end(queueID string) (code byte, data string, modifications []string) {
	p.t.Helper()
	p.macro(wire.CodeEOB, "i", queueID)
	p.send(wire.CodeEOB, "")
	for {
		code, data = p.receive()
		if strings.IndexByte("qihm", code) < 0 {
			return code, strings.TrimSuffix(data, "\x00"), modifications
		}
		modifications = append(modifications, string(code)+" "+strings.ReplaceAll(strings.TrimSuffix(data, "\x00"), "\x00", "|"))
	}
}

// closed waits until the other side has closed the connection.
func (p *peer) closed() {
	p.t.Helper()
	if _, _, err := p.read(); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
		p.t.Errorf("the connection was not closed: %v", err)
	}
}

// logBuffer is a log that a test can read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
