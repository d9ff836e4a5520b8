package mtasts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/postseal/postseal/internal/resolver"
)

// ErrNoAddress: the policy host has no address, or does not exist.
var ErrNoAddress = errors.New("no address")

// attempt is one address and what came of it.
type attempt struct {
	address netip.AddrPort
	conn    *tls.Conn
	err     error
}

// lookup is what one address family's question got.
type lookup struct {
	family string
	answer resolver.Answer[netip.Addr]
	err    error
}

// race tries the addresses of a host until one of them has given a TLS
// connection with a valid certificate: the next one after a short time, or at
// once when one fails (RFC 8305). A host with a dead address in one family
// costs a quarter of a second, not the policy.
type race struct {
	f    *Fetcher
	host string

	lookups  chan lookup
	attempts chan attempt
	started  sync.WaitGroup

	asking, running int
	waiting         [2][]netip.Addr // IPv6, IPv4
	turn            int             // the family that comes next
	tried           []netip.Addr
	failed          []attempt
	unanswered      []error
	nxdomain        bool
	canonical       string
}

// dialHost connects to the policy host. Beside an error, the attempt's address
// is that of the failure that says most.
func (f *Fetcher) dialHost(ctx context.Context, host string) (attempt, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &race{
		f: f, host: host, canonical: host,
		lookups:  make(chan lookup, 2),
		attempts: make(chan attempt, 2*maxPerFamily),
	}
	defer r.end(cancel)
	won, err := r.run(ctx)
	return won, r.canonical, err
}

func (r *race) run(ctx context.Context) (attempt, error) {
	r.ask(ctx)
	timer := time.NewTimer(attemptDelay)
	defer timer.Stop()
	ready := true // the last attempt has had its time
	for {
		if ready && r.start(ctx) {
			ready = false
			timer.Reset(attemptDelay)
		}
		if r.asking == 0 && r.running == 0 && ready {
			return r.lost(nil)
		}
		select {
		case l := <-r.lookups:
			r.take(l)
		case a := <-r.attempts:
			r.running--
			if a.err == nil {
				return a, nil
			}
			r.failed = append(r.failed, a)
			ready = true
		case <-timer.C:
			ready = true
		case <-ctx.Done():
			return r.lost(ctx.Err())
		}
	}
}

// end stops what still runs and waits for it.
func (r *race) end(cancel context.CancelFunc) {
	cancel()
	r.started.Wait()
	for {
		select {
		case a := <-r.attempts:
			if a.conn != nil {
				a.conn.Close()
			}
		default:
			return
		}
	}
}

func (r *race) ask(ctx context.Context) {
	r.asking = 2
	r.started.Go(func() {
		answer, err := r.f.Resolver.AAAA(ctx, r.host)
		r.lookups <- lookup{"AAAA", answer, err}
	})
	r.started.Go(func() {
		answer, err := r.f.Resolver.A(ctx, r.host)
		r.lookups <- lookup{"A", answer, err}
	})
}

// take queues the addresses of an answer. An error of one family is kept, but
// does not keep the other from being used.
func (r *race) take(l lookup) {
	r.asking--
	if l.err != nil {
		r.unanswered = append(r.unanswered, fmt.Errorf("%s %s: %w", l.family, r.host, l.err))
		return
	}
	r.nxdomain = r.nxdomain || l.answer.NXDomain
	if l.answer.Canonical != "" {
		r.canonical = l.answer.Canonical
	}
	family := 0
	if l.family == "A" {
		family = 1
	}
	r.waiting[family] = l.answer.Records[:min(len(l.answer.Records), maxPerFamily)]
}

// start begins the next attempt, and tells whether there was one. Where all
// connections to an address are taken it waits in line there, and goes on to the
// next address at once.
func (r *race) start(ctx context.Context) (began bool) {
	for {
		addr, more := r.next()
		if !more {
			return began
		}
		began = true
		free := r.f.places.take(addr)
		r.running++
		r.started.Go(func() { r.attempts <- r.f.try(ctx, addr, r.host, free) })
		if free {
			return true
		}
	}
}

// next is the next address that has not been tried, the families taking turns.
func (r *race) next() (addr netip.Addr, more bool) {
	for range 2 {
		family := r.turn
		r.turn = 1 - r.turn
		for len(r.waiting[family]) > 0 {
			addr = r.waiting[family][0]
			r.waiting[family] = r.waiting[family][1:]
			if !slices.Contains(r.tried, addr) {
				r.tried = append(r.tried, addr)
				return addr, true
			}
		}
	}
	return addr, false
}

// try connects to one address and checks its certificate. Whether it has a place
// there already or has to wait for one, the place is given back when the
// connection is closed.
func (f *Fetcher) try(ctx context.Context, addr netip.Addr, host string, hasPlace bool) attempt {
	a := attempt{address: netip.AddrPortFrom(addr, f.httpsPort())}
	if !hasPlace {
		if a.err = f.places.wait(ctx, addr); a.err != nil {
			return a
		}
	}
	leave := sync.OnceFunc(func() { f.places.leave(addr) })
	// RFC 8461 §3.3: the certificate must be valid for the policy host, by a
	// DNS-ID (crypto/x509 knows nothing else); §7.1: and SNI names it. Aliases
	// (§8.2) change neither.
	config := f.tlsConfig()
	config.ServerName = host
	dialer := net.Dialer{ControlContext: f.guard}
	raw, err := dialer.DialContext(ctx, "tcp", a.address.String())
	if err != nil {
		leave()
		a.err = err
		return a
	}
	raw = &placed{raw, leave}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		a.err = fmt.Errorf("TLS with %s: %w", a.address, err)
		return a
	}
	a.conn = conn
	return a
}

// guard looks at the address that is really dialled, as the last thing before
// the connection. No look-up can come between.
func (f *Fetcher) guard(_ context.Context, _, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRefused, quote(address), err)
	}
	if target.Port() != f.httpsPort() {
		return fmt.Errorf("%w: port %d", ErrRefused, target.Port())
	}
	if why := refusal(target.Addr(), f.AllowNetworks, ownAddresses); why != "" {
		return fmt.Errorf("%w: %s is %s", ErrRefused, target.Addr(), why)
	}
	return nil
}

func (f *Fetcher) httpsPort() uint16 {
	if f.port != 0 {
		return f.port
	}
	return httpsPort
}

// lost sums up a race without a winner. The attempt is the one that says most:
// a host that is there with a bad certificate before one that is silent.
func (r *race) lost(ended error) (attempt, error) {
	if len(r.failed) == 0 {
		return attempt{}, inLine(ended, r.unreachable(ended))
	}
	said := r.failed[0]
	errs := make([]error, 0, len(r.failed)+1)
	for _, a := range r.failed {
		var bad *tls.CertificateVerificationError
		if !errors.As(said.err, &bad) && errors.As(a.err, &bad) {
			said = a
		}
		errs = append(errs, a.err)
	}
	return said, inLine(append(errs, ended)...)
}

// unreachable says why there was nothing to try.
func (r *race) unreachable(ended error) error {
	switch {
	case len(r.unanswered) > 0:
		return fmt.Errorf("%w: %w", ErrUnanswered, inLine(r.unanswered...))
	case r.nxdomain:
		return fmt.Errorf("%w: %s does not exist in the DNS", ErrNoAddress, r.host)
	case ended != nil:
		return nil
	}
	return fmt.Errorf("%w: %s has neither A nor AAAA records", ErrNoAddress, r.host)
}

// inLine is errors.Join on one line.
func inLine(errs ...error) (joined error) {
	for _, err := range errs {
		switch {
		case joined == nil:
			joined = err
		case err != nil:
			joined = fmt.Errorf("%w; %w", joined, err)
		}
	}
	return joined
}
