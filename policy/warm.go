package policy

import "time"

// Warm sees to it that the answer for a destination will be known when Postfix
// asks, and does not wait. What is no destination is passed over.
func (e *Engine) Warm(name string) {
	k, err := ParseKey(name)
	if err != nil {
		return
	}
	d, now := e.destination(k), time.Now()
	d.touch(now)
	if d.current(now.UnixNano(), e.plan.Load()) == nil {
		e.warm(k, d, now)
	}
}

// warm gathers for an answer that is not known, one gathering per destination.
func (e *Engine) warm(k Key, d *destination, now time.Time) {
	if _, underway := e.warming.LoadOrStore(d.key, struct{}{}); underway {
		return
	}
	if !e.spawn(func() {
		defer e.warming.Delete(d.key)
		q := e.newQuery(k, d)
		q.wait(e.life, now.Add(q.plan.Deadline))
		if e.life.Err() == nil {
			q.answer()
		}
	}) {
		e.warming.Delete(d.key)
	}
}

// What Standing says where there is no TLS level to name.
const (
	StandingFloor   = "floor"   // nothing of the destination's own applies
	StandingUnknown = "unknown" // not known yet, or no longer
)

// Standing says what mail to a destination is held to at this moment: a TLS
// level, or one of the words above. It does not look anything up.
func (e *Engine) Standing(name string) string {
	k, err := ParseKey(name)
	if err != nil {
		return StandingUnknown
	}
	d := e.remembered([]byte(k.String()))
	if d == nil {
		return StandingUnknown
	}
	m := d.current(time.Now().UnixNano(), e.plan.Load())
	switch {
	case m == nil:
		return StandingUnknown
	case m.verdict.source == SourceFloor || m.verdict.source == SourceError || m.verdict.level == "NOTFOUND":
		return StandingFloor
	}
	return m.verdict.level
}
