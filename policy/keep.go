package policy

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// held is the set of domains whose policies are kept.
type held struct {
	e             *Engine
	mu            sync.Mutex
	domains       map[string]*domain
	organizations map[string]int // kept policies below each organizational domain
	alarmed       map[string]bool
}

func (h *held) init(e *Engine) {
	h.e, h.domains, h.organizations, h.alarmed = e, map[string]*domain{}, map[string]int{}, map[string]bool{}
}

// add counts a domain whose policy shall be kept, and reports whether it may be:
// an organization that has too many already is used without being kept, so
// that nobody can fill the memory with policies (STS-096).
func (h *held) add(d *domain) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, is := h.domains[d.key]; is {
		h.domains[d.key] = d // the one before it was evicted
		return true
	}
	org := organization(d.key)
	if h.organizations[org] >= maxPerOrganization {
		if !h.alarmed[org] {
			h.alarmed[org] = true
			h.e.log.Error("too many policies below one organizational domain; further ones are used but not kept", "organization", org, "limit", maxPerOrganization)
		}
		return false
	}
	h.domains[d.key] = d
	h.organizations[org]++
	return true
}

// remove lets a domain go, unless another of its name has taken its place.
func (h *held) remove(d *domain) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.domains[d.key] != d {
		return
	}
	delete(h.domains, d.key)
	org := organization(d.key)
	if h.organizations[org]--; h.organizations[org] <= 0 {
		delete(h.organizations, org)
		delete(h.alarmed, org)
	}
}

// holds tells whether d is the domain of its name whose policy is kept.
func (h *held) holds(d *domain) bool { return h.get(d.key) == d }

// get returns the domain of a name whose policy is kept, nil without one.
func (h *held) get(name string) *domain {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.domains[name]
}

func (h *held) all() []*domain {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*domain, 0, len(h.domains))
	for _, d := range h.domains {
		all = append(all, d)
	}
	return all
}

func (h *held) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.domains)
}

// times are the earliest expiry and the earliest fetch of the enforced policies
// held, zero without one.
func (h *held) times(now time.Time) (expires, fetched time.Time) {
	for _, d := range h.all() {
		d.mu.Lock()
		if p := d.policy; p.enforced(now) {
			if at := p.expires(); expires.IsZero() || at.Before(expires) {
				expires = at
			}
			if fetched.IsZero() || p.fetched.Before(fetched) {
				fetched = p.fetched
			}
		}
		d.mu.Unlock()
	}
	return expires, fetched
}

// organization is the registrable domain by the public suffix list.
func organization(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// keepClass keeps the DANE standing just seen as a hint for row D4.
func (e *Engine) keepClass(d *domain, ev *dane.Evidence, now time.Time) {
	if e.noteClass(d, lastSeen(ev, now)) {
		e.writer.promptly(d)
	}
}

// noteClass takes a hint into memory and marks it for the store. It reports
// whether it says something new, and not only that all is as it was.
func (e *Engine) noteClass(d *domain, last *LastSeen) (news bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.policy
	if p == nil || !p.have {
		return false
	}
	old := p.last
	news = old == nil || old.Secure != last.Secure || !slices.Equal(old.Hosts, last.Hosts)
	if !news && last.At.Sub(old.At) < time.Hour {
		return false
	}
	p.last = last
	if p.kept {
		e.writer.dirty(d)
	}
	return news && p.kept
}

// load reads all policies and hints into memory. Questions that come meanwhile
// read theirs through, and go on doing so if the store cannot be read to its end.
func (e *Engine) load(ctx context.Context) {
	defer close(e.loaded)
	start := time.Now()
	if n, ok := e.read(ctx, false); ok {
		e.log.Info("policies loaded", "policies", n, "took", time.Since(start).Round(time.Millisecond))
	}
}

// read takes from the store what memory does not have, and reports how many
// policies that were and whether it came to the end. Read again, each record is
// looked at once more before it counts: the operator may have deleted it since.
func (e *Engine) read(ctx context.Context, again bool) (n int, ok bool) {
	e.reading.Lock()
	defer e.reading.Unlock()
	e.unread.Store(true)
	for _, kind := range []cache.Kind{kindPolicy, kindClass, kindMX} { // a hint belongs to a policy
		for r, err := range e.store.All(ctx, kind) {
			if ctx.Err() != nil {
				return n, false
			}
			if err != nil {
				e.log.Error("the store cannot be read to its end; what is missing is read, or fetched, when it is asked for", "error", err)
				return n, false
			}
			if e.take(ctx, r, again) {
				n++
			}
		}
	}
	e.unread.Store(false)
	return n, true
}

// take takes one record into memory, and reports whether it was a policy that was
// not there.
func (e *Engine) take(ctx context.Context, r cache.Record, again bool) (policy bool) {
	defer e.writer.order.share()()
	if again {
		var err error
		if r, err = e.store.Get(ctx, r.Kind, r.Key); err != nil {
			return false
		}
	}
	switch r.Kind {
	case kindPolicy:
		return e.restore(r)
	case kindClass:
		e.restoreClass(r)
	case kindMX:
		e.restoreMX(r)
	}
	return false
}

// restore takes a policy from the store into memory, unless one as new is there.
// The writer's order is held.
func (e *Engine) restore(r cache.Record) bool {
	now := time.Now().Round(0)
	p, asked, err := readPolicyRecord(r, now)
	if err != nil {
		e.log.Warn("policy in the store cannot be read; it is fetched again", "domain", r.Key, "error", err)
		return false
	}
	if !p.valid(now) {
		return false
	}
	p.refreshAt = p.fetched.Add(refreshAfter(p.policy.MaxAge))
	if p.failures > 0 {
		p.refreshAt = later(p.refreshAt, p.attempted.Add(p.pause()))
	}
	if asked.IsZero() {
		asked = now
	}
	// Not touched: when it was last asked for decides how long it is refreshed.
	d, known := e.domains.LoadOrStore(r.Key, func() *domain { return newDomain(r.Key, minutes(asked)) })
	if known && d.asked.Load() < minutes(asked) {
		d.asked.Store(minutes(asked))
	}
	d.mu.Lock()
	if d.policy.unclamp(now) {
		d.changes.Add(1)
	}
	if d.policy.valid(now) && (!p.noted.IsZero() || !d.policy.fetched.Before(p.fetched)) {
		if !d.policy.kept { // given up while the clock was ahead
			d.policy.kept = e.held.add(d)
		}
		d.mu.Unlock()
		return false
	}
	if d.policy != nil {
		p.last = d.policy.last
	}
	kept := e.held.add(d)
	p.kept = kept
	d.install(p)
	d.mu.Unlock()
	if kept && p.policy.Mode == mtasts.ModeEnforce {
		e.anchor(d)
	}
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// restoreClass takes a hint from the store into memory, unless one as new is
// there. The policy that it belongs to is there already.
func (e *Engine) restoreClass(r cache.Record) {
	last, err := readLastSeen(r, time.Now().Round(0))
	if err != nil {
		e.log.Warn("hint in the store cannot be read", "domain", r.Key, "error", err)
		return
	}
	d := e.domains.GetString(r.Key)
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.policy != nil && (d.policy.last == nil || d.policy.last.At.Before(last.At)) {
		d.policy.last = last
	}
}
