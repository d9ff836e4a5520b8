package policy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/dane"
)

// held is the set of domains whose policies are kept.
type held struct {
	mu            sync.Mutex
	domains       map[*domain]struct{}
	organizations map[string]int // kept policies below each organizational domain
	alarmed       map[string]bool
}

// add counts a domain whose policy shall be kept, and reports whether it may be:
// an organization that has too many already is used without being kept, so
// that nobody can fill the memory with policies (STS-096).
func (h *held) add(e *Engine, d *domain, already bool) bool {
	if already {
		return true
	}
	org := organization(d.key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, is := h.domains[d]; is {
		return true
	}
	if h.organizations[org] >= maxPerOrganization {
		if !h.alarmed[org] {
			if h.alarmed == nil {
				h.alarmed = map[string]bool{}
			}
			h.alarmed[org] = true
			e.log.Error("too many policies below one organizational domain; further ones are used but not kept", "organization", org, "limit", maxPerOrganization)
		}
		return false
	}
	h.domains[d] = struct{}{}
	h.organizations[org]++
	return true
}

func (h *held) remove(d *domain) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, is := h.domains[d]; !is {
		return
	}
	delete(h.domains, d)
	org := organization(d.key)
	if h.organizations[org]--; h.organizations[org] <= 0 {
		delete(h.organizations, org)
		delete(h.alarmed, org)
	}
}

func (h *held) all() []*domain {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*domain, 0, len(h.domains))
	for d := range h.domains {
		all = append(all, d)
	}
	return all
}

// organization is the registrable domain by the public suffix list.
func organization(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// writer writes book-keeping to the store in batches, off the path of questions,
// and tells once when the store fails and once when it works again.
type writer struct {
	e       *Engine
	mu      sync.Mutex
	waiting map[*domain]struct{}
	failing atomic.Bool
}

// Batches of book-keeping.
const (
	writeEvery = 2 * time.Second
	writeBatch = 1000
)

func (w *writer) init(e *Engine) { w.e, w.waiting = e, map[*domain]struct{}{} }

// dirty marks the book-keeping of a domain for the next batch.
func (w *writer) dirty(d *domain) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[d] = struct{}{}
}

// result raises and ends the alarm about the store.
func (w *writer) result(err error) {
	if failing := err != nil; w.failing.Swap(failing) != failing {
		if failing {
			w.e.log.Error("the store cannot be written; answers go on from memory, but would not survive a restart", "error", err)
		} else {
			w.e.log.Info("the store can be written again")
		}
	}
}

// flush writes what waits. What could not be written waits on.
func (w *writer) flush(ctx context.Context) {
	for {
		batch := w.take()
		if len(batch) == 0 {
			return
		}
		var records []cache.Record
		for _, d := range batch {
			records = append(records, d.records()...)
		}
		err := w.e.store.Put(ctx, records...)
		w.result(err)
		if err != nil {
			for _, d := range batch {
				w.dirty(d)
			}
			return
		}
	}
}

func (w *writer) take() []*domain {
	w.mu.Lock()
	defer w.mu.Unlock()
	var batch []*domain
	for d := range w.waiting {
		if delete(w.waiting, d); len(batch) < writeBatch {
			batch = append(batch, d)
		}
		if len(batch) == writeBatch {
			break
		}
	}
	return batch
}

// records are the store's records about a domain that is kept.
func (d *domain) records() []cache.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.policy
	if p == nil || !p.have || !p.kept {
		return nil
	}
	var records []cache.Record
	if r, err := p.record(d.key, time.Unix(int64(d.asked.Load())*60, 0)); err == nil {
		records = append(records, r)
	}
	if p.last != nil {
		if value, err := json.Marshal(p.last); err == nil {
			records = append(records, cache.Record{Kind: kindClass, Key: d.key, Value: value, Expires: p.last.At.Add(hintLasts)})
		}
	}
	return records
}

// keepClass keeps the DANE standing just seen as a hint for row D4.
func (e *Engine) keepClass(d *domain, ev *dane.Evidence, now time.Time) {
	last := &lastClass{At: now, Secure: ev.MX.Secure}
	for i, x := range ev.MX.Hosts {
		last.Hosts = append(last.Hosts, lastHost{Preference: x.Preference, Name: x.Name, Status: ev.Status(i)})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.policy
	if p == nil || !p.have {
		return
	}
	if old := p.last; old != nil && old.Secure == last.Secure && slices.Equal(old.Hosts, last.Hosts) && now.Sub(old.At) < time.Hour {
		return
	}
	p.last = last
	if p.kept {
		e.writer.dirty(d)
	}
}

// States of first-run safety in the store.
const (
	stateSecure   = "answered secure"
	stateDaneOnly = "answered dane-only"
)

// armed says which demands have been answered once (DESIGN, first-run safety).
type armed struct{ secure, daneOnly atomic.Bool }

func (a *armed) set(e *Engine, which *atomic.Bool, name string) {
	if which.Swap(true) {
		return
	}
	e.flights.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.life), storeTimeout)
		defer cancel()
		if err := e.store.Put(ctx, cache.Record{Kind: kindState, Key: name, Value: []byte(`{"v":1}`)}); err != nil {
			e.writer.result(err)
		}
	})
}

func (e *Engine) loadState() {
	ctx, cancel := context.WithTimeout(e.life, storeTimeout)
	defer cancel()
	for name, which := range map[string]*atomic.Bool{stateSecure: &e.armed.secure, stateDaneOnly: &e.armed.daneOnly} {
		if _, err := e.store.Get(ctx, kindState, name); err == nil {
			which.Store(true)
		} else if !errors.Is(err, cache.ErrNotFound) {
			// Whether a demand was ever answered is not known: do not relax.
			which.Store(true)
			e.log.Warn("first-run safety is off: the store cannot be read", "error", err)
		}
	}
}

// load reads all policies and hints into memory. Questions that come meanwhile
// read theirs through.
func (e *Engine) load(ctx context.Context) {
	defer e.loading.Store(false)
	start, n := time.Now(), 0
	for r, err := range e.store.All(ctx, kindPolicy) {
		if err != nil {
			e.log.Error("the store cannot be read to its end; what is missing is fetched again", "error", err)
			break
		}
		if e.restore(r) {
			n++
		}
	}
	for r, err := range e.store.All(ctx, kindClass) {
		if err != nil {
			break
		}
		e.restoreClass(r)
	}
	e.log.Info("policies loaded", "policies", n, "took", time.Since(start).Round(time.Millisecond))
}

// restore takes a policy from the store into memory, unless one is there already.
func (e *Engine) restore(r cache.Record) bool {
	now := time.Now()
	p, asked, err := readPolicyRecord(r, now)
	if err != nil {
		e.log.Warn("policy in the store cannot be read; it is fetched again", "domain", r.Key, "error", err)
		return false
	}
	if !p.valid(now) {
		return false
	}
	p.refreshAt = p.fetched.Add(refreshAfter(p.policy.MaxAge))
	d := e.domain(r.Key)
	d.mu.Lock()
	if d.policy != nil && d.policy.have {
		d.mu.Unlock()
		return false
	}
	d.policy = p
	d.asked.CompareAndSwap(0, minutes(asked))
	d.answer.Store(nil)
	d.mu.Unlock()
	kept := e.held.add(e, d, false)
	d.mu.Lock()
	p.kept = kept
	d.mu.Unlock()
	return true
}

func (e *Engine) restoreClass(r cache.Record) {
	var last lastClass
	if err := json.Unmarshal(r.Value, &last); err != nil {
		e.log.Log(context.Background(), slog.LevelWarn, "hint in the store cannot be read", "domain", r.Key, "error", err)
		return
	}
	d := e.domains.GetString(r.Key)
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.policy != nil && d.policy.last == nil {
		last.At = clampPast(last.At, time.Now())
		d.policy.last = &last
	}
}
