package policy

import (
	"context"
	"time"

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
	slotTimeout   = time.Minute // how long a fetch waits for its turn; then the next question tries again
	// fetchGuard lies above every timeout that a fetcher can have ([mta_sts]
	// fetch_timeout: up to 5 min); that one is what ends a fetch.
	fetchGuard = 6 * time.Minute
)

func canHaveSTS(domain string) bool { return mtasts.CanHavePolicy(domain) }

// spawn runs work that Run waits for, and reports whether it does: not after
// the engine has ended.
func (e *Engine) spawn(work func()) bool {
	e.endMu.RLock()
	defer e.endMu.RUnlock()
	if e.life.Err() != nil {
		return false
	}
	e.flights.Go(work)
	return true
}

// launch runs work on a context that outlives the asker; nil after the engine has
// ended. Each step of the work has a limit of its own.
func (e *Engine) launch(work func(context.Context, *flight)) *flight {
	f := &flight{done: make(chan struct{}), started: time.Now()}
	if !e.spawn(func() {
		defer close(f.done)
		work(e.life, f)
	}) {
		return nil
	}
	return f
}

// startMX looks up a domain's mail exchangers, one flight at a time. The lock of d is held.
func (e *Engine) startMX(d *domain) *flight {
	if d.mx.flight != nil {
		return d.mx.flight
	}
	d.mx.flight = e.launch(func(ctx context.Context, _ *flight) {
		ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
		defer cancel()
		e.readMXThrough(ctx, d.key)
		e.resolver.Ready(ctx)
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
		now := time.Now()
		d.mx.set(m, now.UnixNano(), now.Add(ttl).UnixNano(), func(name string) string { return e.host(name, 25).name })
		if d.setTrouble(mxTrouble, m.Err); d.mx.flags&mxAgain != 0 {
			d.setTrouble(mxTrouble, m.Failure())
		}
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
	h.flight = e.launch(func(ctx context.Context, _ *flight) {
		ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
		defer cancel()
		e.resolver.Ready(ctx)
		found := dane.LookupHost(ctx, e.resolver, h.name, h.port)
		ttl := dane.Clamp(found.TTL)
		if found.Status == dane.Failed {
			e.metrics.failures.WithLabelValues("tlsa").Inc()
			ttl = dane.FailureTTL
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.set(found, time.Now(), ttl)
		h.flight = nil
	})
	return h.flight
}

// startSTS looks at a domain's record and fetches its policy where that is due.
// The lock of d is held.
func (e *Engine) startSTS(d *domain) *flight {
	if d.sts.flight != nil {
		return d.sts.flight
	}
	d.sts.flight = e.launch(func(ctx context.Context, f *flight) {
		outcome, ttl := e.discover(ctx, d, f)
		d.endSTS(f, outcome, ttl)
	})
	return d.sts.flight
}

// endSTS keeps the outcome of a flight, unless the operator made the engine
// forget the domain meanwhile.
func (d *domain) endSTS(f *flight, outcome stsOutcome, ttl time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sts.flight != f {
		return
	}
	now := time.Now()
	if outcome == stsFailed && d.sts.outcome != stsFailed && now.UnixNano() < d.sts.until {
		d.sts.flight, d.sts.again = nil, true // what was answered holds until its time is up
		return
	}
	until := now.Add(ttl)
	if d.policy.valid(now) && d.policy.expires().Before(until) {
		until = d.policy.expires() // then the record and the policy are looked at anew
	}
	d.sts = stsState{outcome: outcome, until: until.UnixNano()}
}

// discover is RFC 8461 §5.1: the record, and where its id is new the policy. It
// returns how long the outcome may be believed.
func (e *Engine) discover(ctx context.Context, d *domain, f *flight) (stsOutcome, time.Duration) {
	e.readThrough(ctx, d)
	id, outcome, ttl := e.lookRecord(ctx, d)
	if outcome != stsFound {
		return outcome, ttl
	}
	now := time.Now()
	d.mu.Lock()
	same := d.policy.valid(now) && d.policy.id == id
	fetch := !same && d.policy.mayFetch(id, now)
	d.mu.Unlock()
	switch {
	case same:
		return stsFound, ttl
	case !fetch:
		return stsFound, min(ttl, retryFirst)
	}
	switch err := e.obtain(ctx, d, f, id); {
	case err == nil:
		return stsFound, ttl
	case untried(err):
		return stsFound, min(ttl, retryBusy)
	}
	return stsFound, min(ttl, retryFirst)
}

// lookRecord looks at the record of a domain, and keeps why there is none.
func (e *Engine) lookRecord(ctx context.Context, d *domain) (id string, outcome stsOutcome, ttl time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	found, err := mtasts.Discover(ctx, e.resolver, d.key)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		// STS-020(d): not TEMP, and never the end of a policy that is held.
		e.metrics.failures.WithLabelValues("txt").Inc()
		d.setTrouble(stsTrouble, err.Error())
		return "", stsFailed, unanswered
	}
	now, text := time.Now(), ""
	if found.Err != nil {
		text = found.Err.Error()
	}
	d.setTrouble(stsTrouble, text)
	if d.policy != nil {
		d.policy.checked = now.Round(0)
	}
	held := d.policy.valid(now)
	switch {
	case found.Found && held && d.policy.policy.Mode != mtasts.ModeEnforce:
		return found.Record.ID, stsFound, clamp(found.TTL, noRecordLeast, recordMost)
	case found.Found:
		return found.Record.ID, stsFound, clamp(found.TTL, recordLeast, recordMost)
	case found.Err != nil:
		outcome = stsUnusable
	default:
		outcome = stsNone
	}
	if held {
		// STS-044: a record that vanished does not end a policy.
		return "", outcome, clamp(found.TTL, recordLeast, noRecordLeast)
	}
	return "", outcome, clamp(found.TTL, noRecordLeast, noRecordMost)
}

func clamp(t, least, most time.Duration) time.Duration { return min(max(t, least), most) }
