package milter

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	wire "github.com/emersion/go-milter"
	"go.uber.org/goleak"

	"github.com/postseal/postseal/milter/align"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newInspector(t *testing.T, c Config) *Inspector {
	t.Helper()
	i, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// TestMLT02_Negotiation: nothing that is not used, and the leading space.
func TestMLT02_Negotiation(t *testing.T) {
	for _, header := range []bool{false, true} {
		i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{AddHeader: header}})
		dial, _ := serve(t, &Server{Inspector: i})
		actions, protocol, macros := dial().negotiate()
		want := wire.OptQuarantine | wire.OptSetSymList
		if header {
			want |= wire.OptAddHeader
		}
		if wire.OptAction(actions) != want {
			t.Errorf("actions %#x, want %#x", actions, want)
		}
		if p := wire.OptProtocol(protocol); p&wire.OptHeaderLeadingSpace == 0 || p&wire.OptNoHeaderReply == 0 || p&wire.OptNoBodyReply == 0 || p&(wire.OptNoConnect|wire.OptNoMailFrom|wire.OptNoRcptTo|wire.OptNoBody) != 0 {
			t.Errorf("protocol %#x", protocol)
		}
		if !strings.Contains(macros, "{client_addr}") || !strings.Contains(macros, "{rcpt_mailer}") {
			t.Errorf("macros %q", macros)
		}
	}
}

// TestMLT09_ManyMessages: state survives a refused recipient, RSET, the end of a
// message, and several messages in one connection.
func TestMLT09_ManyMessages(t *testing.T) {
	var log logBuffer
	d := &standing{levels: map[string]string{"dest.test": "dane-only", "other.test": "floor"}}
	i := newInspector(t, Config{DNS: goodZone(), Destinations: d, Logger: log.logger(), Settings: Settings{Action: Reject}})
	dial, _ := serve(t, &Server{Inspector: i})
	p := dial()
	p.connect("2001:db8::7")
	signed := sign(t, "r", letter("a@ex.test", "Hello"))

	p.envelope("a@ex.test", "a@ex.test", "b@dest.test", "c@Other.Test")
	p.content(signed, 7)
	if code, text, _ := p.end("QUEUE1"); code != 'a' {
		t.Fatalf("a good message: %c %s", code, text)
	}
	p.send(wire.CodeAbort, "")

	p.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	p.send(wire.CodeAbort, "") // RSET

	p.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	p.content(letter("a@ex.test", "Hello"), 65535)
	code, text, _ := p.end("QUEUE2")
	if code != 'y' || !strings.HasPrefix(text, "550 5.7.20 postseal: unsigned: ") {
		t.Errorf("an unsigned message: %c %q", code, text)
	}
	p.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	p.content(signed, 65535)
	if code, text, _ := p.end("QUEUE3"); code != 'a' {
		t.Errorf("the message after it: %c %s", code, text)
	}
	lines := strings.Split(log.String(), "\n")
	for i, want := range []string{
		"queue_id=QUEUE1 from=ex.test verdict=pass action=monitor",
		"queue_id=QUEUE2 from=ex.test verdict=fail action=reject",
		"queue_id=QUEUE3 from=ex.test verdict=pass action=monitor",
	} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d: %s\nwant %s", i, lines[min(i, len(lines)-1)], want)
		}
	}
	for _, want := range []string{`destinations="dane-only 1, floor 1"`, `signatures="ex.test/r rsa-sha256 pass"`, `client="login a@ex.test"`} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("%s\nlacks %s", lines[0], want)
		}
	}
	// MLT-01: what to mend is in the log.
	if want := `findings=unsigned:reject detail="there is no DKIM-Signature`; !strings.Contains(lines[1], want) {
		t.Errorf("%s\nlacks %s", lines[1], want)
	}
	if got := fmt.Sprint(d.warmed); got != "[dest.test other.test dest.test dest.test dest.test]" {
		t.Errorf("warmed %s", got)
	}
}

// TestMLT06_Sendmail: mail of sendmail(1) is outgoing; a client without a login is not.
func TestMLT06_MLT07_WhatIsOutgoing(t *testing.T) {
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Action: Tempfail}})
	dial, _ := serve(t, &Server{Inspector: i})
	unsigned := letter("a@ex.test", "Hello")

	p := dial()
	p.sendmail()
	p.envelope("", "a@ex.test", "b@dest.test")
	p.content(unsigned, 65535)
	if code, text, _ := p.end("Q"); code != 'y' || !strings.HasPrefix(text, "451 4.7.20 ") {
		t.Errorf("sendmail(1): %c %q", code, text)
	}
	stranger := dial()
	stranger.connect("192.0.2.7")
	stranger.envelope("", "a@ex.test", "b@dest.test")
	stranger.content(unsigned, 65535)
	if code, text, _ := stranger.end("Q"); code != 'a' {
		t.Errorf("a client without a login: %c %q", code, text)
	}
}

// TestK023_HeaderBytes: every octet of a field reaches the verifier.
func TestK022_K023_MLT03_HeaderBytes(t *testing.T) {
	for _, f := range []string{
		"Subject:x", "Subject: x", "Subject:  x ", "Subject:\tx", "Subject:", "Subject:\r\n x", "Subject: a\r\n\tb\r\n  c ", "sUBJECT: x\r\n \r\n y",
	} {
		name, value, _ := strings.Cut(f, ":")
		if got := string(field(name, strings.ReplaceAll(value, "\r\n", "\n"))); got != f+"\r\n" {
			t.Errorf("%q became %q", f, got)
		}
		if got := string(field(name, value)); got != f+"\r\n" {
			t.Errorf("with CRLF, %q became %q", f, got)
		}
	}
}

// TestMLT10_Malformed: an impossible packet ends its connection and no other.
func TestMLT10_Malformed(t *testing.T) {
	i := newInspector(t, Config{DNS: goodZone()})
	s := &Server{Inspector: i}
	dial, _ := serve(t, s)
	good := dial()
	good.connect("192.0.2.7")
	for name, packet := range map[string][]byte{
		"no length":    {0, 0, 0, 0},
		"too long":     append(binary.BigEndian.AppendUint32(nil, maxPacket+1), 'B'),
		"far too long": binary.BigEndian.AppendUint32(nil, maxField+1),
		"negative":     {0xff, 0xff, 0xff, 0xff},
		"bad connect":  {0, 0, 0, 2, 'C', 'x'},
	} {
		p := dial()
		p.negotiate()
		if _, err := p.conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		p.closed()
		_ = name
	}
	good.proceed('U', "VRFY x\x00") // SMFIC_UNKNOWN
	good.send(wire.CodeQuitNewConn, "")
	good.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	good.content("From: a@ex.test\r\nX: "+strings.Repeat("x", maxPacket)+"\r\n\r\nbody", 100)
	if code, text, _ := good.end("Q"); code != 'a' {
		t.Errorf("a field of %d octets: %c %s", maxPacket, code, text)
	}
	good.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	good.content(sign(t, "r", letter("a@ex.test", "Hello")), 100)
	if code, text, _ := good.end("Q"); code != 'a' {
		t.Errorf("%c %s", code, text)
	}
}

// TestDrain: a message in flight gets its reply, an idle connection is closed.
func TestDrain(t *testing.T) {
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Action: Reject}})
	dial, stop := serve(t, &Server{Inspector: i})
	idle, busy := dial(), dial()
	idle.connect("192.0.2.7")
	busy.connect("192.0.2.7")
	busy.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	idle.closed()
	busy.content(letter("a@ex.test", "Hello"), 100)
	if code, text, _ := busy.end("Q"); code != 'y' {
		t.Errorf("%c %s", code, text)
	}
	busy.closed()
	<-stopped
}

// TestDrainAfterReset: a message that is given up is not waited for.
func TestDrainAfterReset(t *testing.T) {
	i := newInspector(t, Config{DNS: goodZone()})
	dial, stop := serve(t, &Server{Inspector: i})
	p := dial()
	p.connect("192.0.2.7")
	p.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	time.Sleep(idleGrace + time.Second)
	p.send(wire.CodeAbort, "")
	p.closed()
	<-stopped
}

// TestClose: ends what is in flight as well.
func TestClose(t *testing.T) {
	s := &Server{Inspector: newInspector(t, Config{DNS: goodZone()})}
	dial, stop := serve(t, s)
	p := dial()
	p.connect("192.0.2.7")
	p.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	s.Close()
	p.closed()
	stop()
}

// TestMaxConns: the next connection waits for one that goes.
func TestMaxConns(t *testing.T) {
	s := &Server{Inspector: newInspector(t, Config{DNS: goodZone()}), MaxConns: 1}
	dial, _ := serve(t, s)
	first, second := dial(), dial()
	first.connect("192.0.2.7")
	second.send(wire.CodeOptNeg, strings.Repeat("\x00", 12))
	first.conn.Close()
	if code, _ := second.receive(); code != 'O' {
		t.Errorf("answered %c", code)
	}
}

// TestSMTPUTF8: the parameter of MAIL that go-milter drops.
func TestSMTPUTF8(t *testing.T) {
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Action: Reject}})
	dial, _ := serve(t, &Server{Inspector: i})
	message := sign(t, "r", letter("Bücher <a@ex.test>", "Hello"))
	for args, refused := range map[string]bool{"": true, "SIZE=100\x00SMTPUTF8\x00": false, "smtputf8\x00": false} {
		p := dial()
		p.connect("192.0.2.7")
		p.macro(wire.CodeMail, "{auth_authen}", "a@ex.test")
		p.proceed(wire.CodeMail, "<a@ex.test>\x00"+args)
		p.content(message, 100)
		code, text, _ := p.end("Q")
		if got := code == 'y'; got != refused || got && !strings.Contains(text, align.Header8Bit) {
			t.Errorf("%q: %c %s", args, code, text)
		}
	}
}

// TestPanic: a failure of ours lets the message go on, and the next be judged.
func TestPanic(t *testing.T) {
	var log logBuffer
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Action: Reject}})
	i.destinations = panicking{}
	s := &Server{Inspector: i, Logger: log.logger()}
	dial, _ := serve(t, s)
	p := dial()
	p.connect("192.0.2.7")
	p.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	p.content(letter("a@ex.test", "Hello"), 100)
	if code, text, _ := p.end("Q"); code != 'a' {
		t.Errorf("%c %s", code, text)
	}
	if s.Stats().Panics == 0 || !strings.Contains(log.String(), "goes on unjudged") {
		t.Errorf("not told: %s", log.String())
	}
	p.envelope("a@ex.test", "a@ex.test")
	p.content(letter("a@ex.test", "Hello"), 100)
	if code, _, _ := p.end("Q"); code != 'y' {
		t.Error("the next message was not judged")
	}
}

type panicking struct{}

func (panicking) Warm(string)            { panic("a test") }
func (panicking) Standing(string) string { return "" }
