package milter

import (
	"context"
	"net"
	"net/netip"
	"net/textproto"
	"runtime/debug"
	"strings"

	wire "github.com/emersion/go-milter"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter/align"
)

// protocol is what is negotiated besides the actions. go-milter does not enforce
// the "no reply" bits: header fields and body chunks must get none from us.
//
// MLT-02: without SMFIP_HDR_LEADSPC Postfix eats the space after the colon, and no
// signature with simple header canonicalization could be verified (K-023).
const protocol = wire.OptHeaderLeadingSpace | wire.OptNoHeaderReply | wire.OptNoBodyReply | wire.OptNoUnknown | wire.OptNoData

// macroList is what Postfix is asked for. {client_addr} is in no default list.
var macroList = map[wire.Stage][]string{
	wire.StageConnect:  {"j", "{daemon_name}", "{client_addr}", "v"},
	wire.StageMailFrom: {"i", "{auth_type}", "{auth_authen}", "{mail_addr}", "{client_addr}"},
	wire.StageRcptTo:   {"i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"},
	wire.StageEOH:      {"i"},
	wire.StageEOM:      {"i", "{auth_authen}"},
}

// session is one connection from Postfix: an SMTP session, or one message of
// sendmail(1). go-milter calls its methods one after another.
type session struct {
	inspector *Inspector
	server    *Server
	conn      *conn
	life      context.Context
	headers   bool // adding header fields was negotiated

	host     string
	port     uint16
	addr     netip.Addr
	helo     string
	hostname string // Postfix's own
	queueID  string
	message  *Inspection // nil: no message in flight, or one that passes unseen
}

// Connect takes the address of the client.
func (s *session) Connect(host, _ string, port uint16, addr net.IP, m *wire.Modifier) (wire.Response, error) {
	return s.guard(proceed, func() wire.Response {
		s.host, s.port, s.hostname = host, port, macro(m, "j")
		if a, ok := netip.AddrFromSlice(addr); ok {
			s.addr = a.Unmap()
		}
		s.clientAddr(m)
		return proceed
	})
}

// clientAddr prefers the macro: go-milter does not read Sendmail's "IPv6:".
func (s *session) clientAddr(m *wire.Modifier) {
	if a, err := netip.ParseAddr(strings.TrimPrefix(macro(m, "{client_addr}"), "IPv6:")); err == nil {
		s.addr = a.Unmap()
	}
}

// Helo takes the name that the client calls itself.
func (s *session) Helo(name string, _ *wire.Modifier) (wire.Response, error) {
	s.helo = name
	return proceed, nil
}

// MailFrom begins a message.
func (s *session) MailFrom(from string, m *wire.Modifier) (wire.Response, error) {
	return s.guard(proceed, func() wire.Response {
		s.conn.Wake()
		s.clientAddr(m)
		s.queueID = macro(m, "i")
		s.message = s.inspector.Begin(Envelope{
			Client:   sender.Client{Login: macro(m, "{auth_authen}"), Addr: s.addr, Local: s.local()},
			Helo:     s.helo,
			MailFrom: from,
			Mailer:   macro(m, "{mail_addr}"),
			UTF8:     s.utf8(),
			Hostname: s.hostname,
		})
		return proceed
	})
}

// local tells mail of sendmail(1): for it cleanup(8) plays a client "localhost"
// at 127.0.0.1, port 0. (POSTFIX: non_smtpd_milters.)
func (s *session) local() bool {
	return s.host == "localhost" && s.addr.IsLoopback() && s.port == 0
}

// utf8: over SMTP the MAIL command tells; sendmail(1) says nothing.
func (s *session) utf8() align.UTF8 {
	switch {
	case s.conn.utf8:
		return align.UTF8Yes
	case s.local():
		return align.UTF8Unknown
	}
	return align.UTF8No
}

// RcptTo takes a recipient that Postfix has accepted.
func (s *session) RcptTo(to string, m *wire.Modifier) (wire.Response, error) {
	return s.guard(proceed, func() wire.Response {
		s.seeQueueID(m)
		if s.message != nil {
			if a := macro(m, "{rcpt_addr}"); a != "" {
				to = a
			}
			s.message.Recipient(to, macro(m, "{rcpt_mailer}"))
		}
		return proceed
	})
}

// Header takes one field of the header, as it stands in the message: go-milter
// gives the name and the value with its leading space, folds as LF.
func (s *session) Header(name, value string, _ *wire.Modifier) (wire.Response, error) {
	return s.guard(nil, func() wire.Response {
		if s.message != nil {
			s.message.Field(field(name, value))
		}
		return nil
	})
}

// field rebuilds the bytes of a header field. MLT-03: folds come as LF.
func field(name, value string) []byte {
	b := make([]byte, 0, len(name)+1+len(value)+strings.Count(value, "\n")+2)
	b = append(append(b, name...), ':')
	for line := range strings.Lines(value) {
		text, lf := strings.CutSuffix(line, "\n")
		if b = append(b, strings.TrimSuffix(text, "\r")...); lf {
			b = append(b, '\r', '\n')
		}
	}
	return append(b, '\r', '\n')
}

// Headers is the end of the header.
func (s *session) Headers(_ textproto.MIMEHeader, m *wire.Modifier) (wire.Response, error) {
	return s.guard(proceed, func() wire.Response {
		s.seeQueueID(m)
		if s.message != nil {
			for _, name := range s.conn.oversize {
				s.message.Missing(name)
			}
			s.message.EndOfHeader()
		}
		s.conn.oversize = nil
		return proceed
	})
}

// BodyChunk takes some of the body, lines ending in CRLF.
func (s *session) BodyChunk(chunk []byte, _ *wire.Modifier) (wire.Response, error) {
	return s.guard(nil, func() wire.Response {
		if s.message != nil {
			s.message.Write(chunk)
		}
		return nil
	})
}

// Body is the end of the message, and the only place where anything but "go on" is said.
func (s *session) Body(m *wire.Modifier) (wire.Response, error) {
	defer s.conn.lastReply()
	return s.guard(accept, func() wire.Response {
		s.seeQueueID(m)
		x := s.message
		s.message = nil
		if x == nil {
			return accept
		}
		ctx, cancel := context.WithTimeout(s.life, judgeTimeout)
		defer cancel()
		x.QueueID = s.queueID
		return s.act(x.End(ctx), m)
	})
}

// act turns a verdict into a reply.
func (s *session) act(r *Report, m *wire.Modifier) wire.Response {
	if r.header != "" && s.headers {
		if err := m.InsertHeader(0, "Authentication-Results", r.header); err != nil {
			s.server.log().Warn("the result header could not be added", "queue_id", s.queueID, "error", err)
		}
	}
	switch r.Action {
	case Reject, Tempfail:
		code, text := r.reply()
		return refuse(code, text)
	case Hold:
		if err := m.Quarantine(oneLine(r.reason())); err != nil {
			s.server.log().Warn("the message could not be put on hold", "queue_id", s.queueID, "error", err)
		}
	}
	return accept
}

// Abort ends the message in flight, or none. The connection's data stay. MLT-09.
func (s *session) Abort(*wire.Modifier) error {
	s.message, s.queueID = nil, ""
	if !s.conn.Rest() {
		s.conn.Close() // it was asked to go, and has no reply to wait for
	}
	return nil
}

func (s *session) seeQueueID(m *wire.Modifier) {
	if id := macro(m, "i"); id != "" {
		s.queueID = id
	}
}

// macro reads a macro of the stage that is being handled: go-milter replaces all
// of them with each packet of macros.
func macro(m *wire.Modifier, name string) string { return m.Macros[name] }

// guard calls f. A panic of ours must not cost mail: go-milter would close the
// connection, and Postfix take its default action for the rest of the session.
func (s *session) guard(otherwise wire.Response, f func() wire.Response) (r wire.Response, _ error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		s.server.panics.Add(1)
		s.server.log().Error("panic while inspecting a message, which goes on unjudged", "queue_id", s.queueID, "panic", p, "stack", string(debug.Stack()))
		s.message, r = nil, otherwise
	}()
	return f(), nil
}
