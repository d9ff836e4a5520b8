package policy

import (
	"context"
	"math/rand/v2"
	"time"
)

// round looks at a destination: where its mail goes, which rules apply, what the
// mail hosts offer. It returns when the next one is due, zero when the destination is
// no longer watched.
func (e *Engine) round(w *watched) time.Time {
	now := time.Now()
	k, err := ParseKey(w.key)
	idle := now.Sub(time.Unix(int64(w.asked.Load())*60, 0)) >= watchLasts
	if err != nil || k.Literal || idle || e.watch.all.GetString(w.key) != w {
		e.unwatch(w)
		return time.Time{}
	}
	ctx, cancel := context.WithTimeout(e.life, roundTimeout)
	defer cancel()
	p := e.plan.Load()
	e.locate(ctx, w, p, k)
	s := w.sum(e, p, time.Now())
	active := w.active(s, time.Now())
	switch {
	case len(active) == 0 && e.plan.Load() != p:
		return time.Now() // other rules hold by now
	case len(active) == 0:
		e.unwatch(w)
		return time.Time{}
	case s.unbound == doubtRoutes:
		return time.Now() // it changed while it was being found out
	}
	if s.unbound != "" {
		e.settle(w, nil)
		return now.Add(watchLasts) // a recipient asks again where the mail goes
	}
	for _, c := range active {
		if len(c.demands) > 0 {
			at := anotherAt(c.rule, &c.standing)
			e.reach.Probe(ctx, c.demands, !at.IsZero() && !time.Now().Before(at))
		}
	}
	if ctx.Err() != nil && e.life.Err() != nil {
		return time.Time{}
	}
	e.watch.changes.Add(1)
	active = w.active(w.sum(e, p, time.Now()), time.Now())
	if e.provePath(ctx, w, p, active) {
		active = w.active(w.sum(e, p, time.Now()), time.Now())
	}
	e.settle(w, active)
	if e.route != nil && w.hosts.Load().routes != e.watch.routes.Load() {
		return time.Now() // no recipient may come for long
	}
	return w.next(active, e.watch.path.suspectedSince(w.key), time.Now())
}

// locate finds out where mail to the destination goes.
func (e *Engine) locate(ctx context.Context, w *watched, p *plan, k Key) {
	before := w.hosts.Load()
	routes := e.watch.routes.Load()
	h := e.exchangers(ctx, k)
	if h.routes = routes; !w.concerns(p, h, time.Now()) {
		w.hosts.Store(h) // an mx: rule that is not for them: no more is asked
		return
	}
	e.locateHosts(ctx, h, p.watching&watchingTLSA != 0)
	switch now := time.Now(); {
	case e.route == nil:
	case before != nil && before.routes == routes && now.Sub(before.routed) < before.routeLasts():
		h.unbound, h.doubt, h.routed = before.unbound, before.doubt, before.routed
	default:
		why := ""
		why, h.doubt = e.route(ctx, k.Name)
		if h.routed = time.Now(); why != "" {
			h.unbound = "rules do not bind: " + why
		}
	}
	if e.route != nil {
		if end := h.routed.Add(h.routeLasts()); end.Before(h.until) {
			h.until = end
		}
	}
	w.hosts.Store(h)
	w.again.Store(h.until.UnixNano())
}

// concerns tells whether a rule for whose sake hosts are probed is for a destination
// with these mail hosts, or for a sender that met it.
func (w *watched) concerns(p *plan, h *mailHosts, now time.Time) bool {
	f := p.Rules.Find(h.subject(Key{Name: w.key, Port: 25}), now)
	return f.Rule.watched() || f.Monitored.watched() || w.senderRule(p, now) != nil
}

// routeLasts is how long what Config.Route said is believed.
func (h *mailHosts) routeLasts() time.Duration {
	if h.doubt != "" {
		return routeDoubt
	}
	return routeLasts
}

// settle draws the consequences of a round: alarms, and what others are told.
func (e *Engine) settle(w *watched, active []claim) {
	e.tellAlarms(w, active)
	if e.observer == nil {
		return
	}
	for _, c := range active {
		if len(c.demands) > 0 {
			e.observer.Reached(w.key, c.rule, c.standing)
		}
	}
}

// unwatch lets a destination go.
func (e *Engine) unwatch(w *watched) {
	if e.watch.all.GetString(w.key) == w {
		e.watch.all.Delete(w.key)
	}
	if e.watch.all.GetString(w.key) == nil {
		e.clearAlarms(w)
	}
}

// next is when a destination is due again: when results are no longer fresh, when a
// rule that refuses needs another one, or when it is an alarm that it has been
// suspected, since then, to be without a proof.
func (w *watched) next(active []claim, suspected, now time.Time) time.Time {
	next, unknown := now.Add(freshPositive), false
	// Results are shared: a look by another destination may keep them fresh for a
	// while yet.
	earliest := func(t time.Time, pause time.Duration) {
		if least := now.Add(pause); t.Before(least) {
			t = least
		}
		if t.Before(next) {
			next = t
		}
	}
	for i := range active {
		c := &active[i]
		switch c.standing.Verdict {
		case ReachPositive:
			earliest(c.standing.LastSecured.Add(freshPositive), time.Minute)
		case ReachNegative:
			earliest(c.standing.LastNegative.Add(freshNegative), time.Minute)
			if at := anotherAt(c.rule, &c.standing); !at.IsZero() {
				earliest(at, probeAgain)
			}
			if c.unproven(now) {
				if alarm := suspected.Add(suspectAfter); now.Before(alarm) {
					earliest(alarm, 0)
				} else {
					earliest(now.Add(proofAgain), proofAgain)
				}
			}
		default:
			unknown = true
		}
	}
	if !unknown {
		w.unknown = 0
	} else {
		earliest(now.Add(min(freshUnknown<<min(w.unknown, 8), freshNegative)), time.Minute)
		w.unknown++
	}
	// Up to a twentieth later, so that those that began together do not stay together.
	return next.Add(time.Duration(rand.Int64N(int64(next.Sub(now))/20 + 1)))
}
