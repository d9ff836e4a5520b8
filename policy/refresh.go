package policy

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/postseal/postseal/policy/mtasts"
)

// Paces of the engine's own work.
const (
	lookEvery    = time.Second      // is the resolver still believed, did the clock jump
	refreshScan  = 30 * time.Second // which policies are due
	refreshPace  = 20               // fetches a second at most (CCH-05)
	clockJump    = time.Hour        // a jump worth telling (STS-097)
	expediteOnce = 10 * time.Minute // a mismatch fetches the policy anew so often at most
)

// Run loads the store and keeps policies fresh until ctx ends; then it writes
// what waits and returns when all flights have ended.
func (e *Engine) Run(ctx context.Context) error {
	defer e.close()
	var work sync.WaitGroup
	work.Go(func() { e.load(ctx) })
	work.Go(func() { e.refreshAll(ctx) })
	defer work.Wait()
	look, write := time.NewTicker(lookEvery), time.NewTicker(writeEvery)
	defer look.Stop()
	defer write.Stop()
	clock := clockWatch{last: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			now := time.Now()
			e.look(now)
			if jump := clock.jumped(now); jump != 0 {
				e.log.Warn("the clock jumped; policies that seem expired are fetched before they are given up", "by", jump.Round(time.Second))
			}
		case <-write.C:
			e.writer.flush(ctx)
		}
	}
}

// Loaded says that the store has been read.
func (e *Engine) Loaded() bool { return !e.loading.Load() }

func (e *Engine) close() {
	e.end()
	e.flights.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	e.writer.flush(ctx)
}

// clockWatch compares the wall clock with the monotonic one.
type clockWatch struct{ last time.Time }

func (c *clockWatch) jumped(now time.Time) time.Duration {
	wall := now.Round(0).Sub(c.last.Round(0)) // Round(0) drops the monotonic reading
	steady := now.Sub(c.last)
	c.last = now
	if jump := wall - steady; jump.Abs() > clockJump {
		return jump
	}
	return 0
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
		var nearest time.Time
		for _, d := range e.held.all() {
			due, expires := e.due(d, time.Now())
			if !expires.IsZero() && (nearest.IsZero() || expires.Before(nearest)) {
				nearest = expires
			}
			if due {
				if pace.Wait(ctx) != nil {
					return
				}
				e.startRefresh(d)
			}
		}
		e.metrics.nearestExpiry(nearest)
	}
}

// due reports whether a policy should be fetched now, and when an enforce policy
// expires. An expired policy is let go.
func (e *Engine) due(d *domain, now time.Time) (due bool, expires time.Time) {
	d.mu.Lock()
	p := d.policy
	valid := p.valid(now)
	if valid && p.policy.Mode == mtasts.ModeEnforce {
		expires = p.expires()
	}
	asked := time.Unix(int64(d.asked.Load())*60, 0)
	due = valid && !now.Before(p.refreshAt) && now.Sub(asked) < refreshUnasked && d.sts.flight == nil
	if !valid && p != nil {
		p.kept = false
	}
	d.mu.Unlock()
	if !valid {
		e.held.remove(d)
	}
	return due, expires
}

// startRefresh fetches a held policy anew under the id of its record, or under the
// id held where the record cannot be seen.
func (e *Engine) startRefresh(d *domain) *flight {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sts.flight != nil {
		return d.sts.flight
	}
	state := d.sts
	d.sts.flight = e.launch(dnsTimeout+fetchTimeout, func(ctx context.Context) {
		id := ""
		dnsContext, cancel := context.WithTimeout(ctx, dnsTimeout)
		if found, err := mtasts.Discover(dnsContext, e.resolver, d.key); err == nil && found.Found {
			id = found.Record.ID
			state = stsState{outcome: stsFound, until: time.Now().Add(clamp(found.TTL, recordLeast, recordMost)).UnixNano()}
		}
		cancel()
		if id == "" {
			d.mu.Lock()
			if d.policy != nil {
				id = d.policy.id
			}
			d.mu.Unlock()
		}
		if e.obtain(ctx, d, id) {
			d.answer.Store(nil) // decided anew at the next question
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		state.flight = nil
		d.sts = state
	})
	return d.sts.flight
}

// expedite fetches a policy anew that names none of the destination's hosts
// (CMB-12): perhaps it has been replaced without a new id.
func (e *Engine) expedite(d *domain, now time.Time) {
	d.mu.Lock()
	p := d.policy
	again := p != nil && p.have && now.Sub(p.attempted) > expediteOnce && now.Sub(p.fetched) > expediteOnce && d.sts.flight == nil
	d.mu.Unlock()
	if again {
		e.startRefresh(d)
	}
}

// outbound notices when every fetch fails for want of a connection: that is one
// alarm about port 443, not a thousand about policy hosts.
type outbound struct {
	mu      sync.Mutex
	domains map[string]struct{} // failed since the last success
	alarmed bool
}

// blockedAfter so many different domains have failed in a row.
const blockedAfter = 5

func (o *outbound) failed(e *Engine, domain string, err error) {
	var f *mtasts.FetchError
	switch {
	case errors.As(err, &f) && (f.StatusCode != 0 || f.Kind != mtasts.FetchFailed):
		o.succeeded() // something answered on port 443
		return
	case errors.Is(err, mtasts.ErrNoAddress), errors.Is(err, mtasts.ErrUnanswered), errors.Is(err, mtasts.ErrRefused),
		errors.Is(err, mtasts.ErrCannotHavePolicy), errors.Is(err, context.Canceled):
		return // no connection was tried
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.domains == nil {
		o.domains = map[string]struct{}{}
	}
	if o.domains[domain] = struct{}{}; len(o.domains) >= blockedAfter && !o.alarmed {
		o.alarmed = true
		e.metrics.outboundBlocked.Set(1)
		e.log.Error("all policy fetches fail: is port 443 outward blocked?", "domains", len(o.domains), "last", domain, "error", err)
	}
	if len(o.domains) > 1000 {
		clear(o.domains)
	}
}

func (o *outbound) succeeded() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.domains)
	o.alarmed = false
}
