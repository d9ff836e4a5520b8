package reach

import (
	"cmp"
	"container/list"
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How long results are kept, and how much else.
const (
	// DefaultKeepPositive, DefaultKeepNegative and DefaultKeepUnknown are how long
	// a result answers for a new probe, before jitter.
	DefaultKeepPositive = 6 * time.Hour
	DefaultKeepNegative = 10 * time.Minute
	DefaultKeepUnknown  = 2 * time.Minute
	// DefaultSize is how many results a Memory has.
	DefaultSize = 8192

	// runGap is the longest time between two negative results of one run: what was
	// not looked at for longer may have been good meanwhile.
	runGap = 30 * time.Minute
	// maxProofs is how many hosts are remembered for their last good handshake:
	// more than there can be MX hosts of one destination that do not count.
	maxProofs = 256
	jitter    = 0.1 // of the time that a result is kept, up or down
)

// Memory keeps what a Prober finds, for each host, address and demand, and
// shares it: destinations with the same mail hosts cost one probe. Its methods
// may be called from many goroutines at once; fields must not change once it is
// in use.
//
// A result that is no longer fresh is not forgotten, Standing still tells of it
// with its age. The least used results go when there are more than Size.
type Memory struct {
	// Prober finds out what is not known, a single address at a time.
	Prober interface {
		Probe(ctx context.Context, t Target) Result
	}
	// KeepPositive, KeepNegative and KeepUnknown are how long results are fresh; 0
	// means the default. Unknown ones that follow each other are kept for twice as
	// long each time, up to KeepNegative. Each result gets up to a tenth more or less.
	KeepPositive, KeepNegative, KeepUnknown time.Duration
	// Size is how many results are kept; 0 is DefaultSize.
	Size int

	mu     sync.Mutex
	all    map[string]*entry
	used   list.List // of *entry, last used first
	proofs []proof   // latest first
}

// entry is what is known of one address under one demand.
type entry struct {
	key      string
	place    *list.Element
	flight   chan struct{} // closed when the probe under way has ended
	kept     int           // results so far
	last     Attempt       // if there were any
	fresh    time.Time     // until then
	since    time.Time     // of the first of a run of negative results
	negative time.Time     // of its last
	unknown  int           // results in a row
	secured  time.Time     // of the last good one with TLS
}

// proof is a host at which TLS as demanded was seen.
type proof struct {
	host    string
	address netip.AddrPort
	when    time.Time
}

// Probe returns what is known and fresh of the target's addresses, and probes the
// others. Callers that ask for the same address at the same time share one probe;
// it ends with the context of the one whose call began it, and another begins
// anew. What ended with a context is not kept.
func (m *Memory) Probe(ctx context.Context, t Target) Result { return m.probe(ctx, t, false) }

// Renew probes all addresses, whatever is known, and keeps the results.
func (m *Memory) Renew(ctx context.Context, t Target) Result { return m.probe(ctx, t, true) }

func (m *Memory) probe(ctx context.Context, t Target, anew bool) Result {
	d, err := demandOf(&t)
	if err != nil {
		return m.Prober.Probe(ctx, t) // which says so
	}
	var attempts []Attempt
	addresses := t.Addresses[:min(len(t.Addresses), MaxAddresses)]
	for _, ip := range addresses {
		one := t
		one.Addresses = []netip.Addr{ip}
		attempts = append(attempts, m.one(ctx, one, memoryKey(&t, ip, d), anew))
	}
	return fold(&t, attempts, len(addresses) == len(t.Addresses))
}

// one returns the result for a single address.
func (m *Memory) one(ctx context.Context, t Target, key string, anew bool) Attempt {
	var before *entry
	kept := 0
	for {
		m.mu.Lock()
		e := m.entry(key)
		if e != before {
			before, kept = e, e.kept
		}
		// What came during this call is new enough for Renew.
		if !anew && e.kept > 0 && time.Now().Before(e.fresh) || e.kept > kept {
			defer m.mu.Unlock()
			return e.last
		}
		flight := e.flight
		if flight == nil {
			return m.fly(ctx, t, e)
		}
		m.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			address := netip.AddrPortFrom(t.Addresses[0].Unmap(), t.port())
			return Attempt{Address: address, When: time.Now(), Text: "not tried", Cause: context.Cause(ctx).Error()}
		}
	}
}

// fly probes; m.mu is held at the beginning and not at the end.
func (m *Memory) fly(ctx context.Context, t Target, e *entry) Attempt {
	flight := make(chan struct{})
	e.flight = flight
	m.mu.Unlock()
	var r Result
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		e.flight = nil
		close(flight)
		if len(r.Attempts) == 1 && (ctx.Err() == nil || r.Verdict != Unknown) {
			m.keep(e, t.name("hostname"), r.Attempts[0])
		}
		m.shrink()
	}()
	r = m.Prober.Probe(ctx, t)
	if len(r.Attempts) != 1 {
		return Attempt{When: time.Now(), Text: r.Text, Cause: "one address was to be probed"}
	}
	return r.Attempts[0]
}

// keep remembers a result; m.mu is held.
func (m *Memory) keep(e *entry, host string, a Attempt) {
	now := time.Now()
	e.kept, e.last = e.kept+1, a
	switch a.Verdict {
	case Positive:
		e.fresh = now.Add(spread(cmp.Or(m.KeepPositive, DefaultKeepPositive)))
		e.since, e.negative = time.Time{}, time.Time{}
		if a.Handshake {
			e.secured = a.When
			m.prove(proof{host, a.Address, a.When})
		}
	case Negative:
		e.fresh = now.Add(spread(cmp.Or(m.KeepNegative, DefaultKeepNegative)))
		if e.since.IsZero() || apart(e.negative, a.When) > runGap {
			e.since = a.When
		}
		e.negative = a.When
		if !a.Offered { // whatever takes STARTTLS away here may do so elsewhere
			m.disprove(host, a.Address)
		}
	default:
		longest := cmp.Or(m.KeepNegative, DefaultKeepNegative)
		e.fresh = now.Add(spread(min(cmp.Or(m.KeepUnknown, DefaultKeepUnknown)<<min(e.unknown, 8), longest)))
		e.unknown++
		return
	}
	e.unknown = 0
}

// apart is how much later b is than a at most. The monotonic clock stands still while
// the machine sleeps, and the other one can be set back.
func apart(a, b time.Time) time.Duration {
	return max(b.Sub(a), b.Round(0).Sub(a.Round(0)))
}

// prove puts a host in front of the proofs; m.mu is held.
func (m *Memory) prove(p proof) {
	m.disprove(p.host, p.address)
	m.proofs = slices.Insert(m.proofs, 0, p)
	m.proofs = m.proofs[:min(len(m.proofs), maxProofs)]
}

// disprove takes a host out of the proofs; m.mu is held.
func (m *Memory) disprove(host string, address netip.AddrPort) {
	m.proofs = slices.DeleteFunc(m.proofs, func(o proof) bool { return o.host == host && o.address == address })
}

// entry finds or makes the entry of a key; m.mu is held.
func (m *Memory) entry(key string) *entry {
	if e := m.all[key]; e != nil {
		m.used.MoveToFront(e.place)
		return e
	}
	if m.all == nil {
		m.all = map[string]*entry{}
	}
	e := &entry{key: key}
	e.place = m.used.PushFront(e)
	m.all[key] = e
	return e
}

// shrink forgets what was not used for longest; m.mu is held. Entries with a
// probe under way stay: there are no more of them than callers.
func (m *Memory) shrink() {
	size := m.Size
	if size <= 0 {
		size = DefaultSize
	}
	for place := m.used.Back(); place != nil && len(m.all) > size; {
		e := place.Value.(*entry)
		before := place.Prev()
		if e.flight == nil {
			m.used.Remove(place)
			delete(m.all, e.key)
		}
		place = before
	}
}

func memoryKey(t *Target, ip netip.Addr, d demand) string {
	return hostKey(t) + " " + ip.Unmap().String() + " " + d.key()
}

// spread is jitter: probes that began together do not stay together.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - jitter + 2*jitter*rand.Float64()))
}
