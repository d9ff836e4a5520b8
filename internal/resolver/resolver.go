package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Resolver asks the servers of its Config. It is made by New, works at once and
// may be used by many goroutines; Run adds the probes and watches resolv.conf.
type Resolver struct {
	log       *slog.Logger
	metrics   *metrics
	schedule  schedule
	slots     chan struct{}
	questions sync.Pool
	roster    atomic.Pointer[roster]
	standing  atomic.Pointer[standing]

	mu   sync.Mutex // held while the roster is replaced
	told sync.Mutex // held while the standing is worked out and announced
}

// roster is the servers and what else a Config says; it is replaced as a whole.
type roster struct {
	servers []*server
	trust   TrustAD
	probe   Probe
	timeout time.Duration
	// source is the file that the servers come from; empty: the configuration.
	source   string
	skipped  []string      // lines of source
	trouble  error         // why source names nobody
	replaced chan struct{} // closed when another is in force
}

// turns is the order in which the servers are asked.
type turns struct {
	server [maxServers]*server
	tier   [maxServers]int
	n      int
}

// New checks a configuration and makes a Resolver of it. The error says what is
// wrong with which value; a resolv.conf without servers is not an error.
func New(cfg Config) (*Resolver, error) {
	r := &Resolver{
		log:      cfg.Logger,
		schedule: usualSchedule(),
		slots:    make(chan struct{}, maxInFlight),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.questions.New = func() any { return new(question) }
	first, err := makeRoster(cfg, nil)
	if err != nil {
		return nil, err
	}
	if r.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	r.replace(first)
	return r, nil
}

// Reconfigure puts another configuration in force, for the questions that start
// from then on; those under way end as they began. Servers that stay keep their
// state. When there is an error the old configuration stays.
func (r *Resolver) Reconfigure(cfg Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, err := makeRoster(cfg, r.roster.Load())
	if err != nil {
		return err
	}
	r.replace(next)
	return nil
}

// makeRoster checks a configuration. Servers of old that are the same are kept.
func makeRoster(cfg Config, old *roster) (*roster, error) {
	next := &roster{trust: cfg.TrustAD, timeout: cfg.Timeout, replaced: make(chan struct{})}
	if next.timeout == 0 {
		next.timeout = defaultTimeout
	}
	if next.timeout < minTimeout || next.timeout > maxTimeout {
		return nil, fmt.Errorf("resolver timeout %v is not from %v to %v", cfg.Timeout, minTimeout, maxTimeout)
	}
	var err error
	if next.probe, err = ParseProbe(cfg.Probe); err != nil {
		return nil, err
	}
	addrs, err := ParseServers(cfg.Servers)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		if next.source = cfg.ResolvConf; next.source == "" {
			next.source = defaultResolvConf
		}
		addrs, next.skipped, next.trouble = readResolvConf(next.source)
		switch {
		case next.trouble == nil:
		case old != nil && old.source == next.source:
			addrs = old.addresses()
		default:
			addrs = []netip.AddrPort{localhost}
		}
	}
	next.enlist(addrs, old)
	return next, nil
}

// enlist fills in the servers.
func (ro *roster) enlist(addrs []netip.AddrPort, old *roster) {
	for _, addr := range addrs {
		trusted := ro.trust.Counts(addr.Addr())
		s := old.find(addr)
		if s == nil || s.trusted != trusted || s.probe != ro.probe {
			s = newServer(addr, trusted, ro.probe)
		}
		ro.servers = append(ro.servers, s)
	}
}

func (ro *roster) find(addr netip.AddrPort) *server {
	if ro == nil {
		return nil
	}
	if i := slices.IndexFunc(ro.servers, func(s *server) bool { return s.addr == addr }); i >= 0 {
		return ro.servers[i]
	}
	return nil
}

func (ro *roster) addresses() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, s := range ro.servers {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// order puts the servers into tiers, the best first.
func (ro *roster) order(now int64) (t turns) {
	var ranks [maxServers]int
	for _, s := range ro.servers {
		tier, rank := s.place(now)
		i := t.n
		for ; i > 0 && (t.tier[i-1] > tier || t.tier[i-1] == tier && ranks[i-1] > rank); i-- {
			t.server[i], t.tier[i], ranks[i] = t.server[i-1], t.tier[i-1], ranks[i-1]
		}
		t.server[i], t.tier[i], ranks[i] = s, tier, rank
		t.n++
	}
	return t
}

// replace puts a roster in force; r.mu is held, but in New.
func (r *Resolver) replace(next *roster) {
	old := r.roster.Swap(next)
	for _, text := range next.skipped {
		r.log.Warn("nameserver line skipped: not a usable IP address", "file", next.source, "value", text)
	}
	if next.trouble != nil {
		r.log.Warn("no name server in resolv.conf", "file", next.source, "error", next.trouble, "using", next.servers[0].text)
	}
	if old != nil {
		close(old.replaced)
		for _, s := range old.servers {
			if !slices.Contains(next.servers, s) {
				s.sockets.retire()
				r.metrics.forget(s)
			}
		}
	}
	r.announce()
}

// Run probes the servers and watches resolv.conf until the context ends, and
// then closes the idle sockets. It is to be called once.
func (r *Resolver) Run(ctx context.Context) error {
	defer func() {
		for _, s := range r.roster.Load().servers {
			s.sockets.retire()
		}
	}()
	var complaint string
	for ctx.Err() == nil {
		r.serve(ctx, &complaint)
	}
	return nil
}

// serve does what Run does as long as one roster is in force.
func (r *Resolver) serve(ctx context.Context, complaint *string) {
	var probes sync.WaitGroup
	defer probes.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	roster := r.roster.Load()
	for _, s := range roster.servers {
		if s.mustProbe() {
			probes.Go(func() { r.keepProbing(ctx, roster, s) })
		}
	}
	tick := time.NewTicker(r.schedule.watch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-roster.replaced:
			return
		case <-tick.C:
			r.reread(roster, complaint)
			for _, s := range roster.servers {
				s.sockets.trim(time.Now().Add(-idleFor))
			}
		}
	}
}

// reread looks whether resolv.conf names other servers. The file is read, not only
// looked at: an edit within the granularity of its time stamp counts too.
func (r *Resolver) reread(current *roster, complaint *string) {
	if current.source == "" {
		return
	}
	addrs, skipped, err := readResolvConf(current.source)
	if err != nil {
		if *complaint != err.Error() && (current.trouble == nil || current.trouble.Error() != err.Error()) {
			r.log.Warn("resolv.conf cannot be used, the name servers stay", "file", current.source, "error", err)
		}
		*complaint = err.Error()
		return
	}
	*complaint = ""
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.roster.Load() != current || slices.Equal(addrs, current.addresses()) {
		return
	}
	next := &roster{
		trust: current.trust, probe: current.probe, timeout: current.timeout,
		source: current.source, skipped: skipped, replaced: make(chan struct{}),
	}
	next.enlist(addrs, current)
	r.log.Info("resolv.conf changed", "file", current.source, "servers", addrs)
	r.replace(next)
}
