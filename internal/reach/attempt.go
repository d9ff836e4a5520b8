package reach

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// errInjected: see the package's documentation, Security.
var errInjected = errors.New("text in clear after the reply to STARTTLS (CVE-2011-0411)")

// conversation is one connection and the Attempt that it fills.
type conversation struct {
	p    *Prober
	t    *Target
	d    *demand
	a    *Attempt
	conn net.Conn
	in   *bufio.Reader
	end  time.Time // of the whole

	banner reply
	ahead  bool // the host said something before it was asked
}

// attempt probes one address. Nothing of it outlives the call.
func (p *Prober) attempt(parent context.Context, t *Target, d *demand, address netip.AddrPort) Attempt {
	a := Attempt{Address: address, When: time.Now()}
	whole := orDefault(p.Timeouts.Attempt, DefaultAttemptTimeout)
	ctx, cancel := context.WithTimeout(parent, whole)
	defer cancel()
	c := conversation{p: p, t: t, d: d, a: &a, end: a.When.Add(whole)}
	c.run(ctx)
	if err := parent.Err(); err != nil && a.Verdict == Unknown {
		a.Cause = err.Error() // not the host's fault
	}
	a.Took = time.Since(a.When)
	return a
}

func (c *conversation) run(ctx context.Context) {
	if err := c.connect(ctx); err != nil {
		c.unknown(fmt.Sprintf("connect to %s: %s", c.namaddrport(), errorText(err)), err)
		c.a.NoRoute = c.p.noRoute(err, c.a.Address)
		return
	}
	defer c.conn.Close()
	// A deadline in the past wakes whatever waits. The end of the context may
	// come between two steps; each one looks.
	defer context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })()
	c.in = bufio.NewReaderSize(c.conn, maxLine)
	if !c.greet(ctx) || !c.ehlo(ctx) || !c.startTLS(ctx) {
		return
	}
	c.handshake(ctx)
}

func (c *conversation) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, orDefault(c.p.Timeouts.Connect, DefaultConnectTimeout))
	defer cancel()
	c.conn, err = c.p.dial(ctx, c.a.Address)
	return err
}

// greet reads the banner. False: the attempt is over.
func (c *conversation) greet(ctx context.Context) bool {
	r, ok := c.await(ctx, orDefault(c.p.Timeouts.Greeting, DefaultGreetingTimeout), "receiving the initial server greeting")
	if !ok {
		return false
	}
	c.banner, c.a.Banner = r, r.text()
	c.a.Stripped = strippedBy(r, extensions{})
	if r.code/100 != 2 {
		return c.refused(ctx, r)
	}
	return true
}

// ehlo asks for the extensions, and decides where there is no STARTTLS.
func (c *conversation) ehlo(ctx context.Context) bool {
	r, ok := c.ask(ctx, "EHLO "+c.p.helo(c.conn), "performing the EHLO handshake")
	switch {
	case !ok:
		return false
	case r.code == 421:
		return c.refused(ctx, r)
	case r.code/100 != 2:
		return c.helo(ctx, r)
	}
	e := parseExtensions(r)
	c.a.Greeting, c.a.Keywords, c.a.Offered = e.greeting, e.keywords, e.startTLS
	c.a.Stripped = strippedBy(c.banner, e)
	if e.startTLS && !maskedBanner(c.banner) {
		return true
	}
	if e.startTLS {
		c.a.Cause = "the greeting is masked, so Postfix says HELO (smtp_pix_workarounds = disable_esmtp)"
	}
	// What was said unasked may have been read as the answer to EHLO.
	inStep := !c.ahead && c.in.Buffered() == 0
	c.quit(ctx, c.conn)
	c.notOffered(r.code == 250 && !e.startTLS && inStep)
	return false
}

// helo is the fall-back for servers without extensions, thus without STARTTLS.
// That is no evidence against the host: a server in trouble answers 5xx as well.
func (c *conversation) helo(ctx context.Context, refusal reply) bool {
	r, ok := c.ask(ctx, "HELO "+c.p.helo(c.conn), "performing the HELO handshake")
	if !ok {
		return false
	}
	if r.code/100 != 2 {
		return c.refused(ctx, r)
	}
	c.quit(ctx, c.conn)
	c.a.Cause = "EHLO was refused: " + refusal.text()
	c.notOffered(false)
	return false
}

// notOffered ends an attempt at a host without STARTTLS. At may Postfix goes on
// in clear.
func (c *conversation) notOffered(evidence bool) {
	if c.d.level == May {
		c.a.Verdict, c.a.Text = Positive, "TLS was not offered by host "+c.namaddr()
		return
	}
	c.a.Text = "TLS is required, but was not offered by host " + c.namaddr()
	if evidence {
		c.a.Verdict = Negative
	}
}

// startTLS sends the command. False: the attempt is over.
func (c *conversation) startTLS(ctx context.Context) bool {
	r, ok := c.ask(ctx, "STARTTLS", "receiving the STARTTLS response")
	if !ok {
		return false
	}
	if r.code/100 == 2 {
		return true
	}
	c.quit(ctx, c.conn)
	c.a.Text = fmt.Sprintf("TLS is required, but host %s refused to start TLS: %s", c.namaddr(), r.text())
	if c.d.level == May { // smtp_proto.c: "Else try to continue in plain-text mode"
		c.a.Verdict, c.a.Text = Positive, fmt.Sprintf("host %s refused to start TLS: %s", c.namaddr(), r.text())
	}
	return false
}

// handshake establishes TLS and judges what it shows.
func (c *conversation) handshake(ctx context.Context) {
	if c.in.Buffered() > 0 {
		c.unknown("Cannot start TLS: handshake failure", errInjected)
		return
	}
	c.deadline(ctx, orDefault(c.p.Timeouts.Handshake, DefaultHandshakeTimeout))
	conn := tls.Client(c.conn, c.d.config())
	if err := conn.HandshakeContext(ctx); err != nil {
		c.unknown("Cannot start TLS: handshake failure", err)
		return
	}
	state := conn.ConnectionState()
	c.a.SNI = state.ServerName
	c.a.session(&state)
	j := judge(*c.d, state.PeerCertificates, c.p.Roots, time.Now())
	c.conclude(j)
	c.quit(ctx, conn)
}

func (c *conversation) conclude(j judgement) {
	c.a.Trust = j.trust
	switch {
	case j.meets:
		c.a.Verdict = Positive
		c.a.Text = fmt.Sprintf("%s TLS connection established to %s: %s with cipher %s", j.trust, c.namaddrport(), c.a.Version, c.a.Cipher)
		return
	case j.doubt != "":
		c.a.Text, c.a.Cause = "Server certificate not verified", j.doubt
	default:
		c.a.Verdict, c.a.Text, c.a.Cause = Negative, "Server certificate not verified", j.cause
	}
	if c.d.hopeless != "" { // smtp_tls_policy.c would not even connect
		c.a.Text = c.d.hopeless
	}
}

// ask sends a command and reads the reply; while says what Postfix would be
// doing. Not ok: the attempt has ended as Unknown.
func (c *conversation) ask(ctx context.Context, command, while string) (reply, bool) {
	timeout := orDefault(c.p.Timeouts.Command, DefaultCommandTimeout)
	c.ahead = c.ahead || c.in.Buffered() > 0
	c.deadline(ctx, timeout)
	if _, err := io.WriteString(c.conn, command+"\r\n"); err != nil {
		return reply{}, c.lost(err, while)
	}
	return c.await(ctx, timeout, while)
}

func (c *conversation) await(ctx context.Context, timeout time.Duration, while string) (reply, bool) {
	c.deadline(ctx, timeout)
	r, err := readReply(c.in)
	if err != nil {
		return reply{}, c.lost(err, while)
	}
	return r, true
}

// deadline gives the next step its time, within that of the whole. It is set
// once for the step: bytes that drip in do not move it.
func (c *conversation) deadline(ctx context.Context, timeout time.Duration) {
	at := time.Now().Add(timeout)
	if c.end.Before(at) {
		at = c.end
	}
	c.conn.SetDeadline(at)
	if ctx.Err() != nil { // and after it, since the context may have ended before
		c.conn.SetDeadline(time.Unix(1, 0))
	}
}

// quit takes leave, and reads what comes until the host closes or the time is up:
// closing with text unread would reset the connection.
func (c *conversation) quit(ctx context.Context, conn net.Conn) {
	c.deadline(ctx, orDefault(c.p.Timeouts.Quit, DefaultQuitTimeout))
	if _, err := io.WriteString(conn, "QUIT\r\n"); err == nil {
		io.CopyN(io.Discard, conn, maxFarewell)
	}
	conn.Close()
}

func (c *conversation) refused(ctx context.Context, r reply) bool {
	c.quit(ctx, c.conn)
	c.a.Text = fmt.Sprintf("host %s refused to talk to me: %s", c.namaddr(), r.text())
	return false
}

// lost ends the attempt after an error of the connection or of the protocol
// (smtp_trouble.c, smtp_stream_except).
func (c *conversation) lost(err error, while string) bool {
	text := "lost connection with %s while %s"
	if errors.Is(err, os.ErrDeadlineExceeded) {
		text = "conversation with %s timed out while %s"
	}
	c.unknown(fmt.Sprintf(text, c.namaddr(), while), err)
	return false
}

func (c *conversation) unknown(text string, err error) {
	c.a.Verdict, c.a.Text, c.a.Cause = Unknown, text, clip(printable(err.Error()), maxText)
}

// namaddr is how Postfix names a peer.
func (c *conversation) namaddr() string {
	return fmt.Sprintf("%s[%s]", clip(printable(c.t.Host), maxName), c.a.Address.Addr())
}

func (c *conversation) namaddrport() string {
	return fmt.Sprintf("%s:%d", c.namaddr(), c.a.Address.Port())
}

// noRoute: connect(2) failed before a packet left, for want of a route or of an
// address of that family to come from. A router far away can say the same, and then
// it is no more than the host being unreachable: where a datagram could be sent, this
// machine has a route. None is sent.
func (p *Prober) noRoute(err error, to netip.AddrPort) bool {
	if !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT) {
		return false
	}
	if p.Dial != nil {
		return true
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err == nil {
		conn.Close()
	}
	return err != nil
}

// errorText is an error of connect(2) in the words of strerror(3).
func errorText(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno.Error() != "" {
		return strings.ToUpper(errno.Error()[:1]) + errno.Error()[1:]
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "Connection timed out"
	}
	return clip(printable(err.Error()), maxText)
}

// config is the client's side of TLS. Postfix's mandatory grade "medium" is what
// OpenSSL 3 can still do: AES and ChaCha20 with any key exchange, neither RC4 nor
// triple DES.
func (d *demand) config() *tls.Config {
	config := &tls.Config{
		InsecureSkipVerify:     true, // judge does it, so that a bad certificate is a finding
		ServerName:             d.sni,
		MinVersion:             d.min,
		MaxVersion:             d.max,
		SessionTicketsDisabled: true,
	}
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, s := range list {
			if !strings.Contains(s.Name, "RC4") && !strings.Contains(s.Name, "3DES") {
				config.CipherSuites = append(config.CipherSuites, s.ID)
			}
		}
	}
	return config
}
