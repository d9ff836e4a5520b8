package policy

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Paces of the engine's own work.
const (
	lookEvery    = time.Second      // is the resolver still believed, did the clock jump: so often at most
	refreshScan  = 30 * time.Second // which policies are due
	refreshPace  = 20               // fetches a second at most (CCH-05)
	expediteOnce = 10 * time.Minute // a mismatch fetches the policy anew so often at most
	justNow      = 20 * time.Second // a policy as young as that is not fetched again for a mismatch
)

// Run loads the store and keeps policies fresh until ctx ends; then it writes
// what waits and returns when all flights have ended. From then on questions are
// answered from what is known.
func (e *Engine) Run(ctx context.Context) error {
	defer e.close()
	var work sync.WaitGroup
	work.Go(func() { e.load(ctx) })
	work.Go(func() { e.refreshAll(ctx) })
	work.Go(func() { e.writer.run(ctx) })
	work.Go(func() { e.watchRules(ctx) })
	if e.reach != nil {
		work.Go(func() { e.watchAll(ctx) })
	}
	defer work.Wait()
	e.resolver.Ready(ctx)
	e.lookAround(time.Now())
	<-ctx.Done()
	return nil
}

// lookAround sees whether the resolver's standing has changed or the clock was
// set. It comes before an answer and before policies are found due, not by itself:
// a daemon that nobody asks has nothing to do.
func (e *Engine) lookAround(now time.Time) {
	e.looking.Lock()
	defer e.looking.Unlock()
	e.looked.Store(int64(now.Sub(e.born)))
	if jump := e.clock.jumped(now); jump != 0 {
		e.clockSet(now, jump)
	}
	e.look()
}

// Loaded says that the store has been read, as far as it can be.
func (e *Engine) Loaded() bool {
	select {
	case <-e.loaded:
		return true
	default:
		return false
	}
}

// untilLoaded waits for that: what is deleted or replaced earlier would be loaded again.
func (e *Engine) untilLoaded(ctx context.Context) error {
	select {
	case <-e.loaded:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *Engine) close() {
	e.endMu.Lock()
	e.end()
	e.endMu.Unlock()
	e.flights.Wait()
	e.writer.flush()
}

// refreshAfter is when a policy is fetched anew, counted from its last fetch:
// daily (RFC 8461 §3.3), and before half of its lifetime has passed, with jitter.
func refreshAfter(maxAge time.Duration) time.Duration {
	t := min(refreshEvery, max(maxAge, minEnforce)/2)
	return t - time.Duration(rand.Int64N(int64(t)/5+1))
}

// refreshAll fetches every policy anew when it is due, irrespective of its
// record (RFC 8461 §10.2), and forgets those that have expired.
func (e *Engine) refreshAll(ctx context.Context) {
	pace := rate.NewLimiter(refreshPace, refreshPace)
	scan := time.NewTicker(refreshScan)
	defer scan.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-scan.C:
		}
		now := time.Now()
		e.lookAround(now)
		var due []*domain
		for _, d := range e.held.all() {
			if e.due(d, now) {
				due = append(due, d)
			}
		}
		for _, d := range due {
			if pace.Wait(ctx) != nil || e.refreshes.Acquire(ctx, 1) != nil {
				return
			}
			e.refreshUnwaited(d)
		}
	}
}

// refreshUnwaited starts a refresh that is due still, and that nobody waits for. The caller has acquired
// one of refreshes; it is given back when the refresh ends.
func (e *Engine) refreshUnwaited(d *domain) {
	d.mu.Lock()
	var f *flight
	// It may have been fetched for a mismatch while this one waited for its turn.
	if d.sts.flight == nil && d.policy != nil && !time.Now().Before(d.policy.refreshAt) {
		f = e.startRefresh(d)
	}
	d.mu.Unlock()
	e.releaseAfter(f)
}

// releaseAfter gives one of refreshes back when a flight has ended; nil: there is none.
func (e *Engine) releaseAfter(f *flight) {
	if f == nil || !e.spawn(func() { <-f.done; e.refreshes.Release(1) }) {
		e.refreshes.Release(1)
	}
}

// due reports whether a policy should be fetched now. An expired policy is let
// go, and so is one whose domain was evicted, which only those can be that demand nothing.
func (e *Engine) due(d *domain, now time.Time) bool {
	evicted := e.domains.GetString(d.key) != d
	d.mu.Lock()
	p := d.policy
	if p.unclamp(now) {
		d.changes.Add(1)
	}
	valid, enforced := p.valid(now), p.enforced(now)
	due := valid && !now.Before(p.refreshAt) && now.Sub(asked(d)) < refreshUnasked && d.sts.flight == nil
	if !valid && p != nil {
		p.kept = false
	}
	d.mu.Unlock()
	switch {
	case !valid || evicted && !enforced:
		e.held.remove(d)
		return false
	case evicted:
		return e.bringBack(d) && due
	}
	return due
}

// bringBack lets questions find a held domain that was evicted, unless the operator
// flushed it just now.
func (e *Engine) bringBack(d *domain) bool {
	defer e.writer.order.share()()
	if !e.held.holds(d) {
		return false
	}
	e.anchor(d)
	return true
}

// startRefresh fetches a held policy anew under the id of its record, or under the
// id held where the record cannot be seen; nil after the engine has ended. The lock
// of d is held.
func (e *Engine) startRefresh(d *domain) *flight {
	if d.sts.flight == nil {
		d.sts.flight = e.launch(func(ctx context.Context, f *flight) {
			outcome, ttl := e.refresh(ctx, d, f)
			d.endSTS(f, outcome, ttl)
		})
	}
	return d.sts.flight
}

func (e *Engine) refresh(ctx context.Context, d *domain, f *flight) (stsOutcome, time.Duration) {
	id, outcome, ttl := e.lookRecord(ctx, d)
	d.mu.Lock()
	if id == "" && d.policy.valid(time.Now()) {
		id = d.policy.id
	}
	d.mu.Unlock()
	if id == "" {
		return outcome, ttl // STS-029: the first discovery always needs a record
	}
	_ = e.obtain(ctx, d, f, id) // the scan or the next question tries again
	return outcome, ttl
}

// expedite fetches a policy anew that names none of the destination's hosts:
// perhaps it was replaced without a new id (CMB-12, STS-083). It waits for
// nothing; when too many refreshes are under way already, the next answer tries again.
func (e *Engine) expedite(d *domain, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sts.flight != nil || !d.policy.mayExpedite(now) || !e.refreshes.TryAcquire(1) {
		return
	}
	d.policy.expedited = now
	// Begun under the same lock: another fetch could come and fail in between, and this
	// one would not heed the pause after it.
	e.releaseAfter(e.startRefresh(d))
}

// mayExpedite: the policy was not fetched just now, nor expedited within ten
// minutes, and the pause that RFC 8461 §3.3 demands after a failed fetch is over,
// whatever the id.
func (p *policyState) mayExpedite(now time.Time) bool {
	return p != nil && p.have && now.Sub(p.fetched) >= justNow && now.Sub(p.expedited) >= expediteOnce && p.mayFetch(p.failedID, now)
}
