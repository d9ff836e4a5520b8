//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// session is one SMTP connection at a sink. It is written by hand, as a library would not misbehave on request and
// would not give the message's bytes.
type session struct {
	sink      *Sink
	behaviour Behaviour
	conn      net.Conn
	in        *bufio.Reader
	secured   bool
	sni       string
	state     tls.ConnectionState
	from      string
	to        []string
	sent      int
}

// errGone ends a session; who closed the connection does not matter to a sink.
var errGone = errors.New("session ended")

func (s *session) run() {
	raw := s.conn
	defer s.sink.forget(raw)
	defer raw.Close()
	s.in = bufio.NewReader(s.conn)
	if s.behaviour.Greet421 {
		_ = s.reply("421 4.3.2 try again later")
		return
	}
	if s.reply("220 sink ESMTP") != nil {
		return
	}
	for {
		line, err := s.readLine()
		if err != nil || s.command(line) != nil {
			return
		}
	}
}

func (s *session) readLine() (string, error) {
	if err := s.conn.SetDeadline(time.Now().Add(peerDeadline)); err != nil {
		return "", err
	}
	line, err := s.in.ReadString('\n')
	if len(line) > maxLine {
		return "", fmt.Errorf("line of %d bytes", len(line))
	}
	return line, err
}

func (s *session) reply(lines ...string) error {
	_, err := s.conn.Write([]byte(strings.Join(lines, "\r\n") + "\r\n"))
	return err
}

func (s *session) command(line string) error {
	verb, argument, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		return s.hello()
	case "HELO", "NOOP":
		return s.reply("250 sink")
	case "STARTTLS":
		return s.startTLS()
	case "MAIL":
		if s.secured && s.behaviour.DropAtMAIL {
			return errGone
		}
		s.from, s.to = angle(argument), nil
		return s.reply("250 2.1.0 ok")
	case "RCPT":
		if s.behaviour.RejectRCPT {
			return s.reply("450 4.2.0 not now")
		}
		s.to = append(s.to, angle(argument))
		return s.reply("250 2.1.5 ok")
	case "DATA":
		return s.data()
	case "RSET":
		s.from, s.to = "", nil
		return s.reply("250 2.0.0 ok")
	case "QUIT":
		_ = s.reply("221 2.0.0 bye")
		return errGone
	default:
		return s.reply("500 5.5.2 unknown command")
	}
}

func (s *session) hello() error {
	lines := []string{"250-sink"}
	if !s.behaviour.No8BITMIME {
		lines = append(lines, "250-8BITMIME", "250-SMTPUTF8")
	}
	switch {
	case s.secured || s.behaviour.NoSTARTTLS:
	case s.behaviour.Stripped:
		lines = append(lines, "250-XXXXXXXA")
	default:
		lines = append(lines, "250-STARTTLS")
	}
	return s.reply(append(lines, "250 ENHANCEDSTATUSCODES")...)
}

func (s *session) startTLS() error {
	switch {
	case s.secured || s.behaviour.NoSTARTTLS || s.behaviour.Stripped:
		return s.reply("502 5.5.1 not implemented")
	case s.behaviour.STARTTLS454:
		return s.reply("454 4.7.0 TLS is not available for now")
	}
	if err := s.reply("220 2.0.0 ready"); err != nil || s.behaviour.DropAfterSTARTTLS {
		return errGone
	}
	if s.behaviour.GarbageHandshake {
		_, _ = s.conn.Write([]byte("this is not TLS, whatever was promised\r\n"))
		return errGone
	}
	config, err := s.behaviour.tlsConfig(s.sink.pki, &s.sni)
	if err != nil {
		return err
	}
	secured := tls.Server(s.conn, config)
	if err := secured.Handshake(); err != nil {
		return err
	}
	s.secured, s.state = true, secured.ConnectionState()
	s.conn, s.in = secured, bufio.NewReader(secured)
	return nil
}

func (s *session) data() error {
	if len(s.to) == 0 {
		return s.reply("503 5.5.1 no recipients")
	}
	if err := s.reply("354 go ahead"); err != nil {
		return err
	}
	var text bytes.Buffer
	for {
		line, err := s.readLine()
		if err != nil {
			return err
		}
		if line == ".\r\n" {
			break
		}
		text.WriteString(strings.TrimPrefix(line, "."))
		if text.Len() > maxMessage {
			return errGone
		}
	}
	s.sent++
	s.sink.keep(Message{
		Sink: s.sink.address, Names: s.behaviour.Names,
		TLS: s.secured, Version: s.state.Version, ServerName: s.sni, Resumed: s.state.DidResume,
		From: s.from, To: s.to, Data: text.Bytes(), Nth: s.sent,
	})
	return s.reply("250 2.0.0 kept")
}

// angle is the address of MAIL FROM:<a@b> and RCPT TO:<a@b>, whatever parameters follow.
func angle(argument string) string {
	_, rest, _ := strings.Cut(argument, "<")
	address, _, _ := strings.Cut(rest, ">")
	return address
}
