package policy

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
)

// mailHosts is where mail to a destination goes, for who probes it. It is immutable.
type mailHosts struct {
	key   Key
	mx    dane.MXSet
	hosts []*dane.Host // in the order of mx.Hosts; TLSA only where it was asked for
	until time.Time    // how long that may be believed
	// unbound says why rules do not bind, and doubt why nobody is to be refused
	// (Config.Route), since routed, when routes was that of the watch.
	unbound, doubt string
	routed         time.Time
	routes         uint64
}

// subject describes the destination to the rules.
func (h *mailHosts) subject(k Key) Subject {
	s := Subject{Key: k}
	if h == nil || h.mx.Err != "" {
		return s
	}
	s.MXKnown, s.MXSecure = true, h.mx.Secure && !h.mx.Truncated
	for _, x := range h.mx.Hosts {
		s.MX = append(s.MX, x.Name)
	}
	return s
}

// demands is what a line demands of each host. None: the mail hosts are not known, or
// there are none.
func (h *mailHosts) demands(line tlspolicy.Line) []Demand {
	if h.mx.Err != "" {
		return nil
	}
	var list []Demand
	for i, x := range h.mx.Hosts {
		d := Demand{Host: x.Name, Port: h.key.Port, Nexthop: h.key.Name, Line: line, SecureMX: h.mx.Secure}
		if found := h.hosts[i]; found != nil {
			d.Addresses = found.Addresses
			if wantsTLSA(line.Level) && found.Status != dane.Failed {
				d.DANE = found
			}
		}
		list = append(list, d)
	}
	return list
}

// complete takes back that all hosts are negative, where they were not all asked, or not
// at all their addresses.
func (h *mailHosts) complete(s Standing) Standing {
	some := h.mx.Truncated || slices.ContainsFunc(h.hosts, func(x *dane.Host) bool { return x != nil && x.Incomplete })
	if s.Verdict == ReachNegative && some {
		s.Verdict, s.FirstNegative, s.LastNegative = ReachUnknown, time.Time{}, time.Time{}
	}
	return s
}

func wantsTLSA(l tlspolicy.Level) bool { return l == tlspolicy.Dane || l == tlspolicy.DaneOnly }

// gather finds out where mail to a destination goes, through the evidence that
// answers rest on. It takes as long as the DNS, up to ctx.
func (e *Engine) gather(ctx context.Context, k Key, tlsa bool) *mailHosts {
	h := e.exchangers(ctx, k)
	e.locateHosts(ctx, h, tlsa)
	return h
}

// exchangers are the mail hosts of a destination, of which no more is known.
func (e *Engine) exchangers(ctx context.Context, k Key) *mailHosts {
	h := &mailHosts{key: k, until: time.Now().Add(dane.MaxTTL)}
	if k.Brackets || k.Literal {
		h.mx = dane.Direct(k.Name)
	} else {
		h.mx, h.until = e.awaitMX(ctx, e.domain(k.Name))
	}
	h.hosts = make([]*dane.Host, len(h.mx.Hosts))
	return h
}

// locateHosts finds out the addresses of mail hosts.
func (e *Engine) locateHosts(ctx context.Context, h *mailHosts, tlsa bool) {
	ends := make([]time.Time, len(h.hosts))
	var all sync.WaitGroup
	for i, x := range h.mx.Hosts {
		all.Go(func() { h.hosts[i], ends[i] = e.awaitHost(ctx, x.Name, h.key.Port, tlsa) })
	}
	all.Wait()
	for _, end := range ends {
		if end.Before(h.until) {
			h.until = end
		}
	}
}

// awaitMX waits until the mail exchangers of a domain are known.
func (e *Engine) awaitMX(ctx context.Context, d *domain) (dane.MXSet, time.Time) {
	for {
		now := time.Now()
		d.mu.Lock()
		if until := time.Unix(0, d.mx.until); until.After(now) {
			m := d.mxSet()
			if d.mx.flags&mxFailed != 0 {
				m = dane.MXSet{Err: cmp.Or(d.troubles().mx, "the look-up failed")}
			}
			d.mu.Unlock()
			return m, until
		}
		f := e.startMX(d)
		d.mu.Unlock()
		if !f.wait(ctx) {
			return dane.MXSet{Err: "not looked up in time"}, now.Add(dane.FailureTTL)
		}
	}
}

// awaitHost waits until the addresses of a mail host are known, with tlsa its records
// too. Addresses do not need DNSSEC: where the evidence for DANE has none, because
// nobody validates or TLSA questions fail, they are asked for by themselves.
func (e *Engine) awaitHost(ctx context.Context, name string, port uint16, tlsa bool) (*dane.Host, time.Time) {
	h := e.host(name, port)
	for {
		now := time.Now()
		h.mu.Lock()
		found, until := h.evidence, time.Unix(0, h.until)
		current := found != nil && until.After(now)
		_, literal := literal(name)
		if current || !tlsa && !literal {
			h.mu.Unlock()
			switch {
			case current && (len(found.Addresses) > 0 && !found.Incomplete || found.Status == dane.Unreachable):
				return found, until
			case current && found.Incomplete:
				return e.completed(ctx, found, until)
			}
			return e.addresses(ctx, name, port)
		}
		f := e.startHost(h)
		h.mu.Unlock()
		if !f.wait(ctx) {
			return nil, now.Add(dane.FailureTTL)
		}
	}
}

// completed is what is known of a host, with addresses that are asked for anew: those of
// one family were not to be had.
func (e *Engine) completed(ctx context.Context, found *dane.Host, until time.Time) (*dane.Host, time.Time) {
	h := *found
	fresh, end := e.addresses(ctx, h.Name, h.Port)
	if h.Addresses, h.Incomplete = fresh.Addresses, fresh.Incomplete; end.Before(until) {
		until = end
	}
	return &h, until
}

// addresses asks for the addresses of a host alone. Those of one family will do where
// nobody answers for the other: Postfix goes on with them. But the host is not negative
// for that (complete).
func (e *Engine) addresses(ctx context.Context, name string, port uint16) (*dane.Host, time.Time) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	h := &dane.Host{Name: name, Port: port, TTL: dane.MaxTTL, Status: dane.Failed}
	var list [2][]netip.Addr
	var ttl [2]time.Duration
	var failed [2]bool
	var both sync.WaitGroup
	for i, ask := range []func(context.Context) ([]netip.Addr, time.Duration, error){
		func(ctx context.Context) ([]netip.Addr, time.Duration, error) {
			a, err := e.resolver.A(ctx, name)
			return a.Records, a.TTL, err
		},
		func(ctx context.Context) ([]netip.Addr, time.Duration, error) {
			a, err := e.resolver.AAAA(ctx, name)
			return a.Records, a.TTL, err
		},
	} {
		both.Go(func() {
			var err error
			if list[i], ttl[i], err = ask(ctx); err != nil {
				ttl[i] = dane.FailureTTL
			}
			failed[i] = err != nil
		})
	}
	both.Wait()
	h.Addresses, h.Incomplete = slices.Concat(list[0], list[1]), failed[0] || failed[1]
	return h, time.Now().Add(dane.Clamp(min(ttl[0], ttl[1])))
}

// wait waits for the end of a flight, and reports whether it came. There is none
// after the engine has ended.
func (f *flight) wait(ctx context.Context) bool {
	if f == nil {
		return false
	}
	select {
	case <-f.done:
		return true
	case <-ctx.Done():
		return false
	}
}
