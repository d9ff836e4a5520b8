package resolver

import (
	"context"
	"time"
)

// keepProbing asks the probe at once and then again and again (DANE-004).
func (r *Resolver) keepProbing(ctx context.Context, ro *roster, s *server) {
	for {
		r.probe(ctx, ro, s)
		if ctx.Err() != nil {
			return
		}
		s.markProbed()
		wait := r.schedule.unknown
		switch s.is() {
		case Proven:
			wait = r.schedule.proven
		case Suspended:
			wait = r.schedule.suspended
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// probe asks until the matter is settled: once, or twice when the first answer
// came without AD. A probe that nobody answered settles nothing, but for a server
// that was silent there is a second attempt with more time.
func (r *Resolver) probe(ctx context.Context, ro *roster, s *server) {
	q := r.questions.Get().(*question)
	defer r.questions.Put(q)
	for round := 0; round < rounds; {
		if err := q.set(s.probe.name, s.probe.qtype); err != nil {
			return // ParseProbe has set it before
		}
		timeout := ro.timeout >> (rounds - 1 - round)
		l := lookup{Resolver: r, ctx: ctx, until: time.Now().Add(2 * timeout), q: q, into: &list[struct{}]{decode: anyData}}
		l.chain.names[0] = q.name
		r.metrics.probed.Inc()
		p, err := l.exchange(s, timeout)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.metrics.failed(err)
			s.probeFailed(err, time.Now())
			if !silent(err) {
				return
			}
			round++
			continue
		}
		changed, again := s.sawProbe(p.ad, time.Now())
		if changed {
			r.moved(s)
		}
		if !again {
			return
		}
	}
}

// Ready waits until the first probes of the trusted servers were answered or
// have failed, so that Suspended can be relied on, or until the context ends. It
// needs Run; where nothing is probed it returns at once.
func (r *Resolver) Ready(ctx context.Context) {
	for {
		roster := r.roster.Load()
		again := false
		for _, s := range roster.servers {
			select {
			case <-s.probed:
			case <-roster.replaced:
				again = true
			case <-ctx.Done():
				return
			}
		}
		if !again {
			return
		}
	}
}
