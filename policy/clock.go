package policy

import "time"

// Steps of the wall clock. Lifetimes are kept in its time, because they outlive
// the process; what the monotonic clock says only tells when it was set.
const (
	clockStep = 10 * time.Second // answers are decided anew
	clockJump = time.Hour        // worth telling (STS-097)
)

// clockWatch compares the wall clock with the monotonic one.
type clockWatch struct{ last time.Time }

// jumped tells by how much the wall clock was set since the last call, zero when
// it only went on.
func (c *clockWatch) jumped(now time.Time) time.Duration {
	wall := now.Round(0).Sub(c.last.Round(0)) // Round(0) drops the monotonic reading
	steady := now.Sub(c.last)
	c.last = now
	if jump := wall - steady; jump.Abs() > clockStep {
		return jump
	}
	return 0
}

// clockSet draws the consequences of a step of the wall clock: nothing may last
// longer because of it, and no policy is lost to a clock that was wrong for a while.
// What has expired by a step forward is found expired, and a policy is fetched before
// it is given up, as always; the store is read again, which holds what was given up
// while the clock was ahead.
func (e *Engine) clockSet(now time.Time, jump time.Duration) {
	if jump.Abs() > clockJump {
		e.log.Warn("the clock jumped; policies that seem expired are fetched before they are given up", "by", jump.Round(time.Second))
	}
	if jump < 0 {
		e.domains.Range(func(_ string, d *domain) bool { e.setBack(d, now, jump); return true })
		for _, d := range e.held.all() {
			e.setBack(d, now, 0) // one that was evicted
		}
		e.hosts.Range(func(_ string, h *host) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.until += int64(jump)
			return true
		})
	}
	e.unread.Store(true) // who asks before the reading begins must find what the store has
	e.spawn(func() { e.read(e.life, true) })
	e.planMu.Lock()
	defer e.planMu.Unlock()
	p := e.plan.Load()
	e.replan(p.Settings, p.Postfix)
}

// setBack moves what is known of a domain by a negative jump, and takes a fetch
// or a question that now lies ahead for one of this moment.
func (e *Engine) setBack(d *domain, now time.Time, jump time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sts.until += int64(jump)
	d.mx.until += int64(jump)
	if m := minutes(now); d.asked.Load() > m {
		d.asked.Store(m)
	}
	if d.policy != nil && d.policy.clamp(now.Round(0)) && d.policy.kept {
		e.writer.dirty(d)
	}
}

// clamp lets no time of p lie ahead, and reports whether one did. STS-097. Which
// of two clocks was wrong cannot be known here: the fetch as it was noted is kept
// beside, also on disk, for a clock that agrees with it again. So a policy that was
// fetched while the clock was ahead counts from each restart, until it is refreshed.
func (p *policyState) clamp(now time.Time) bool {
	changed := false
	if p.fetched.After(now) {
		p.noted, p.fetched, changed = later(p.noted, p.fetched), now, true
	}
	for _, t := range []*time.Time{&p.checked, &p.attempted} {
		if t.After(now) {
			*t, changed = now, true
		}
	}
	if changed && p.have {
		p.refreshAt = now.Add(refreshAfter(p.policy.MaxAge))
	}
	if p.last != nil && p.last.At.After(now) {
		last := *p.last
		last.At = now
		p.last, changed = &last, true
	}
	return changed
}

// unclamp undoes clamp as soon as the clock has reached the fetch as it was noted,
// and reports whether it did. It comes before a policy is found expired.
func (p *policyState) unclamp(now time.Time) bool {
	if p == nil || p.noted.IsZero() || p.noted.After(now) {
		return false
	}
	p.fetched, p.noted = p.noted, time.Time{}
	p.refreshAt = p.fetched.Add(refreshAfter(p.policy.MaxAge))
	return true
}
