package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// How long what was learned about a record is believed (CCH-04, STS-083).
const (
	noRecordLeast = 5 * time.Minute
	noRecordMost  = time.Hour
	recordLeast   = time.Second // an enforce policy's id is looked at again at the record's TTL
	recordMost    = time.Hour
	unanswered    = time.Minute // nobody answered
	dnsTimeout    = 20 * time.Second
	fetchTimeout  = 70 * time.Second // above the fetcher's own; a guard
	storeTimeout  = 5 * time.Second  // how long a new policy waits for the disk
)

func canHaveSTS(domain string) bool { return mtasts.CanHavePolicy(domain) }

// launch runs work on a context that outlives the asker.
func (e *Engine) launch(timeout time.Duration, work func(context.Context)) *flight {
	f := &flight{done: make(chan struct{}), started: time.Now()}
	e.flights.Go(func() {
		defer close(f.done)
		ctx, cancel := context.WithTimeout(e.life, timeout)
		defer cancel()
		work(ctx)
	})
	return f
}

// startMX looks up a domain's mail exchangers, one flight at a time. The lock of d is held.
func (e *Engine) startMX(d *domain) *flight {
	if d.mx.flight != nil {
		return d.mx.flight
	}
	d.mx.flight = e.launch(dnsTimeout, func(ctx context.Context) {
		m := dane.LookupMX(ctx, e.resolver, d.key)
		if m.Err != "" {
			m = dane.LookupMX(ctx, e.resolver, d.key) // row D4 wants one retry
		}
		ttl := dane.Clamp(m.TTL)
		if m.Err != "" {
			e.metrics.failures.WithLabelValues("mx").Inc()
			ttl = dane.FailureTTL
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mx.set(m, time.Now().Add(ttl).UnixNano(), func(name string) *host { return e.host(name, 25) })
		d.mxTrouble = m.Err
		d.mx.flight = nil
	})
	return d.mx.flight
}

// startHost looks up a mail host's addresses and TLSA records, one flight at a
// time for all destinations that share it. The lock of h is held.
func (e *Engine) startHost(h *host) *flight {
	if h.flight != nil {
		return h.flight
	}
	h.flight = e.launch(dnsTimeout, func(ctx context.Context) {
		found := dane.LookupHost(ctx, e.resolver, h.name, h.port)
		ttl := dane.Clamp(found.TTL)
		if found.Status == dane.Failed {
			e.metrics.failures.WithLabelValues("tlsa").Inc()
			ttl = dane.FailureTTL
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.evidence, h.until, h.flight = found, time.Now().Add(ttl).UnixNano(), nil
	})
	return h.flight
}

// startSTS looks at a domain's record and fetches its policy where that is due.
// The lock of d is held.
func (e *Engine) startSTS(d *domain) *flight {
	if d.sts.flight != nil {
		return d.sts.flight
	}
	d.sts.flight = e.launch(dnsTimeout+fetchTimeout, func(ctx context.Context) {
		outcome, ttl := e.discover(ctx, d)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.sts = stsState{outcome: outcome, until: time.Now().Add(ttl).UnixNano()}
	})
	return d.sts.flight
}

// discover is RFC 8461 §5.1: the record, and where its id is new the policy. It
// returns how long the outcome may be believed.
func (e *Engine) discover(ctx context.Context, d *domain) (stsOutcome, time.Duration) {
	e.readThrough(ctx, d)
	dnsContext, cancel := context.WithTimeout(ctx, dnsTimeout)
	found, err := mtasts.Discover(dnsContext, e.resolver, d.key)
	cancel()
	now := time.Now()
	if err != nil {
		// STS-020(d): not TEMP, and never the end of a policy that is held.
		e.metrics.failures.WithLabelValues("txt").Inc()
		e.noteTrouble(d, err)
		return stsFailed, unanswered
	}
	d.mu.Lock()
	held := d.policy
	if held != nil {
		held.checked = now
	}
	valid := held.valid(now)
	d.mu.Unlock()
	if !found.Found {
		outcome := stsNone
		if found.Err != nil {
			outcome = stsUnusable
		}
		e.noteTrouble(d, found.Err)
		if valid {
			// STS-044: a record that vanished does not end a policy.
			return outcome, clamp(found.TTL, recordLeast, noRecordLeast)
		}
		return outcome, clamp(found.TTL, noRecordLeast, noRecordMost)
	}
	ttl := clamp(found.TTL, recordLeast, recordMost)
	if valid && held.id == found.Record.ID {
		if held.policy.Mode != mtasts.ModeEnforce {
			ttl = clamp(found.TTL, noRecordLeast, recordMost)
		}
		return stsFound, ttl
	}
	if !held.mayFetch(found.Record.ID, now) {
		return stsFound, min(ttl, retryFirst)
	}
	if e.obtain(ctx, d, found.Record.ID) {
		return stsFound, ttl
	}
	return stsFound, min(ttl, retryFirst)
}

func clamp(t, least, most time.Duration) time.Duration { return min(max(t, least), most) }

// noteTrouble keeps the reason why there is no usable record, for explain.
func (e *Engine) noteTrouble(d *domain, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		if d.policy != nil && d.policy.failures == 0 {
			d.policy.err = ""
		}
		return
	}
	if d.policy == nil {
		d.policy = &policyState{}
	}
	d.policy.err = err.Error()
}

// obtain fetches the policy of a domain and adopts it; id is the record's, or
// the one held when a policy is refreshed. It reports success.
func (e *Engine) obtain(ctx context.Context, d *domain, id string) bool {
	if err := e.fetches.Acquire(ctx, 1); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	fetched, err := e.fetch(ctx, d.key)
	cancel()
	e.fetches.Release(1)
	if e.life.Err() != nil {
		return false // we are stopping: that is no failure of the policy host
	}
	if err != nil {
		e.outbound.failed(e, d.key, err)
		e.fetchFailed(d, id, err)
		return false
	}
	e.outbound.succeeded()
	e.metrics.fetches.WithLabelValues("ok").Inc()
	e.adopt(d, id, fetched)
	return true
}

// fetchFailed keeps the failure; a policy that is held stays in force.
func (e *Engine) fetchFailed(d *domain, id string, err error) {
	kind := "other"
	var f *mtasts.FetchError
	if errors.As(err, &f) {
		kind = f.Kind.String()
	}
	e.metrics.fetches.WithLabelValues(kind).Inc()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.policy == nil {
		d.policy = &policyState{}
	}
	p, now := d.policy, time.Now()
	if p.failedID != id {
		p.failures = 0
	}
	p.failedID, p.attempted, p.err = id, now, err.Error()
	p.failures++
	p.refreshAt = now.Add(p.pause())
	if p.valid(now) && p.policy.Mode != mtasts.ModeNone {
		// RFC 8461 §3.3: alert, unless the mode is none.
		e.log.Warn("policy cannot be refreshed; the one held stays in force", "domain", d.key, "mode", p.policy.Mode,
			"days_left", fmt.Sprintf("%.1f", p.expires().Sub(now).Hours()/24), "failures", p.failures, "error", err)
		e.writer.dirty(d)
		return
	}
	e.log.Info("policy cannot be fetched", "domain", d.key, "error", err)
}

// adopt takes a fetched policy into force, once it is on disk: what was answered
// once must survive kill -9.
func (e *Engine) adopt(d *domain, id string, f mtasts.Fetched) {
	now := time.Now()
	d.mu.Lock()
	before := d.policy
	next := &policyState{have: true, policy: f.Policy, body: f.Body, id: id, fetched: now, checked: now, attempted: now, notes: noteTexts(f.Notes)}
	if before != nil {
		next.last, next.kept = before.last, before.kept
	}
	next.refreshAt = now.Add(refreshAfter(f.Policy.MaxAge))
	d.mu.Unlock()

	if next.kept = e.held.add(e, d, next.kept); next.kept {
		e.keep(next, d)
	}
	d.mu.Lock()
	d.policy = next
	d.mu.Unlock()
	e.tellAdoption(d.key, before, next)
}

func (e *Engine) tellAdoption(domain string, before, next *policyState) {
	if before != nil && before.have && before.policy.Mode == next.policy.Mode && before.id == next.id {
		e.log.Debug("policy refreshed", "domain", domain, "id", next.id)
		return
	}
	e.log.Info("policy taken into force", "domain", domain, "id", next.id, "mode", next.policy.Mode, "mx", next.policy.MX, "max_age", next.policy.MaxAge, "notes", next.notes)
	if next.policy.Mode == mtasts.ModeEnforce && next.policy.MaxAge < 24*time.Hour {
		e.log.Info("the policy's max_age is too short to protect for long", "domain", domain, "max_age", next.policy.MaxAge)
	}
}

// keep writes a policy and waits for the disk, within bounds.
func (e *Engine) keep(p *policyState, d *domain) {
	r, err := p.record(d.key, time.Unix(int64(d.asked.Load())*60, 0))
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.life), storeTimeout)
		defer cancel()
		err = e.store.Put(ctx, r)
	}
	e.writer.result(err)
	if err != nil {
		e.log.Error("policy is not on disk: it would be lost at a restart", "domain", d.key, "error", err)
		e.writer.dirty(d)
	}
}

// readThrough fetches one policy from the store while the whole is still being
// loaded, so that no question is answered without it.
func (e *Engine) readThrough(ctx context.Context, d *domain) {
	if !e.loading.Load() {
		return
	}
	r, err := e.store.Get(ctx, kindPolicy, d.key)
	if err == nil {
		e.restore(r)
	} else if !errors.Is(err, cache.ErrNotFound) {
		e.log.Warn("policy in the store cannot be read; it is fetched again", "domain", d.key, "error", err)
	}
}
