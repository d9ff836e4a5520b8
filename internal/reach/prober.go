package reach

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Prober probes mail hosts. Its zero value is useful; fields must not change once
// it is in use. Probe may be called from many goroutines at once: there are at
// most MaxConns connections, one to a host and port, and one to an address and
// port.
type Prober struct {
	// LocalAddr4 and LocalAddr6 are the addresses to connect from
	// (smtp_bind_address, smtp_bind_address6); invalid: the system's choice.
	LocalAddr4, LocalAddr6 netip.Addr
	// HeloName is smtp_helo_name; none means the name of the machine, and if it
	// has none, the address that the connection comes from.
	HeloName string
	// Roots are the authorities that Postfix trusts; nil means the system's.
	Roots *x509.CertPool
	// Timeouts are those of the steps.
	Timeouts Timeouts
	// MaxConns is how many connections there are at once; 0 is DefaultMaxConns.
	MaxConns int
	// Turns are shared with other probers, whose connections then count as well; nil:
	// its own, for MaxConns.
	Turns *Turns
	// Dial connects instead of the system's TCP, if given; LocalAddr4 and
	// LocalAddr6 are then its own affair.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger gets one line for each attempt, at level debug; nil: none.
	Logger *slog.Logger

	once sync.Once
}

// Turns keep connections apart: so many at once, one to a host and port, and one to an
// address and port.
type Turns struct {
	slots        chan struct{}
	hosts, addrs turnstile
}

// NewTurns makes turns for so many connections; 0 is DefaultMaxConns.
func NewTurns(conns int) *Turns {
	if conns <= 0 {
		conns = DefaultMaxConns
	}
	return &Turns{slots: make(chan struct{}, conns)}
}

// Timeouts are how long each step of an attempt may take; 0 means the default.
type Timeouts struct {
	Connect   time.Duration // DefaultConnectTimeout
	Greeting  time.Duration // DefaultGreetingTimeout
	Command   time.Duration // DefaultCommandTimeout, for each
	Handshake time.Duration // DefaultHandshakeTimeout
	Quit      time.Duration // DefaultQuitTimeout
	Attempt   time.Duration // DefaultAttemptTimeout, for everything at one address
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// Probe tries the addresses of a host, one after the other, and says what it
// found. It ends with ctx; addresses that had no turn are then Unknown, with the
// context's error as the cause.
func (p *Prober) Probe(ctx context.Context, t Target) Result {
	d, err := demandOf(&t)
	addresses := t.Addresses[:min(len(t.Addresses), MaxAddresses)]
	attempts := make([]Attempt, 0, len(addresses))
	leave := func() {}
	p.once.Do(func() {
		if p.Turns == nil {
			p.Turns = NewTurns(p.MaxConns)
		}
	})
	if err == nil {
		leave, err = p.Turns.hosts.enter(ctx, hostKey(&t))
	}
	defer leave()
	for _, ip := range addresses {
		address := netip.AddrPortFrom(ip.Unmap(), t.port())
		var a Attempt
		if err == nil {
			a, err = p.turn(ctx, &t, &d, address)
		}
		if err != nil {
			a = Attempt{Address: address, When: time.Now(), Text: "not tried", Cause: err.Error()}
		}
		p.log(ctx, &t, &a)
		attempts = append(attempts, a)
	}
	return fold(&t, attempts, len(addresses) == len(t.Addresses))
}

// turn waits until the address and a slot are free. Whoever has an address waits
// only for a slot, and whoever has a slot for nothing, so all get through.
func (p *Prober) turn(ctx context.Context, t *Target, d *demand, address netip.AddrPort) (Attempt, error) {
	leave, err := p.Turns.addrs.enter(ctx, address.String())
	if err != nil {
		return Attempt{}, err
	}
	defer leave()
	select {
	case p.Turns.slots <- struct{}{}:
	case <-ctx.Done():
		return Attempt{}, context.Cause(ctx)
	}
	defer func() { <-p.Turns.slots }()
	return p.attempt(ctx, t, d, address), nil
}

func (p *Prober) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if p.Dial != nil {
		return p.Dial(ctx, "tcp", to.String())
	}
	local := p.LocalAddr4
	if to.Addr().Is6() {
		local = p.LocalAddr6
	}
	var d net.Dialer
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// helo is the name for EHLO. What could end the command early is not sent.
func (p *Prober) helo(conn net.Conn) string {
	name := p.HeloName
	if name == "" {
		name, _ = os.Hostname()
	}
	unfit := func(r rune) bool { return r <= ' ' || r > '~' }
	if name != "" && len(name) <= maxName && !strings.ContainsFunc(name, unfit) {
		return name
	}
	// RFC 5321 §4.1.4: a client without a name sends an address literal.
	from, err := netip.ParseAddrPort(conn.LocalAddr().String())
	switch {
	case err != nil:
		return "localhost"
	case from.Addr().Is4() || from.Addr().Is4In6():
		return "[" + from.Addr().Unmap().String() + "]"
	default:
		return "[IPv6:" + from.Addr().WithZone("").String() + "]"
	}
}

func (p *Prober) log(ctx context.Context, t *Target, a *Attempt) {
	if p.Logger == nil {
		return
	}
	p.Logger.DebugContext(ctx, "probed", "host", t.Host, "address", a.Address, "level", t.Level, "verdict", a.Verdict,
		"offered", a.Offered, "tls", a.Version, "cipher", a.Cipher, "trust", a.Trust, "expires", a.Expires(),
		"stripped", a.Stripped, "text", a.Text, "cause", a.Cause, "took", a.Took)
}

func hostKey(t *Target) string {
	return net.JoinHostPort(t.name("hostname"), strconv.Itoa(int(t.port())))
}

// turnstile lets one in at a time for each key.
type turnstile struct {
	mu  sync.Mutex
	all map[string]*gate
}

type gate struct {
	free    chan struct{} // holds one token when nobody is in
	waiting int           // and inside
}

// enter waits for its turn; leave must be called after it. The error is that of
// the context, and leave is then harmless.
func (s *turnstile) enter(ctx context.Context, key string) (leave func(), err error) {
	s.mu.Lock()
	g := s.all[key]
	if g == nil {
		if s.all == nil {
			s.all = map[string]*gate{}
		}
		g = &gate{free: make(chan struct{}, 1)}
		g.free <- struct{}{}
		s.all[key] = g
	}
	g.waiting++
	s.mu.Unlock()
	gone := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if g.waiting--; g.waiting == 0 {
			delete(s.all, key)
		}
	}
	select {
	case <-g.free:
		return func() { g.free <- struct{}{}; gone() }, nil
	case <-ctx.Done():
		gone()
		return func() {}, context.Cause(ctx)
	}
}
