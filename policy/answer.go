package policy

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
)

// answer is what a destination is told through each kind of map. Destinations
// without a policy share the few answers that there are.
type answer struct {
	plan    *plan
	verdict verdict
	replies [mapKinds]string
	counted [mapKinds]prometheus.Counter
	would   [mapKinds]prometheus.Counter // set where monitoring holds an answer back
}

// verdict is what is told about an answer when it changes.
type verdict struct {
	level  string
	source Source
	row    Row
	would  string // the level that monitoring holds back
}

// answer decides, remembers the answer for as long as what it rests on holds,
// and draws the consequences.
func (q *query) answer() *answer {
	a := &answer{plan: q.plan}
	for k := range mapKinds {
		d := q.decide(k, false)
		a.replies[k], a.counted[k] = d.String(), q.e.metrics.answered(d)
		if k == mapPostseal {
			a.verdict = verdict{level: d.Level(), source: d.Source, row: d.Row}
		}
		if q.monitoring() {
			if w := q.decide(k, true); w.String() != a.replies[k] {
				a.would[k], a.verdict.would = q.e.metrics.wouldAnswer(w), w.Level()
			}
		}
	}
	if q.policy == nil {
		a = q.e.intern(a)
	}
	q.conclude(a)
	if !q.partial {
		q.d.remember(a, q.now.UnixNano(), q.until.UnixNano())
	}
	return a
}

// common is the identity of an answer that destinations can share.
type common struct {
	verdict verdict
	replies [mapKinds]string
}

func (e *Engine) intern(a *answer) *answer {
	shared, _ := e.common.LoadOrStore(common{a.verdict, a.replies}, a)
	if s := shared.(*answer); s.plan == a.plan {
		return s
	}
	return a
}

// conclude draws the consequences of an answer that is about to be given.
func (q *query) conclude(a *answer) {
	e, v := q.e, a.verdict
	if !q.partial || q.policy != nil {
		q.tellChange(v)
	}
	e.arm(v)
	if v.row == RowMismatch || v.row == RowMismatchD1 {
		e.metrics.mismatches.Inc()
		e.expedite(q.d.domain, q.now)
	}
	if q.policy != nil && !q.partial && q.classified() {
		e.keepClass(q.d.domain, &q.evidence, q.now)
	}
}

// classified: the evidence is complete enough to be a hint for row D4.
func (q *query) classified() bool {
	return q.mx != nil && q.mx.Err == "" && !q.mx.Unproven && !q.evidence.Suspended && len(q.evidence.Hosts) == len(q.mx.Hosts) && !q.key.Brackets &&
		q.key.Port == 25 && q.evidence.Class() != dane.D3
}

// tellChange logs one line when a destination's verdict changes; the first one
// is only worth a debug line.
func (q *query) tellChange(v verdict) {
	before := q.d.answer.Load()
	switch {
	case before == nil:
		q.e.log.Debug("verdict", "destination", q.d.key, "level", v.level, "source", v.source, "row", v.row)
	case before.verdict != v:
		q.e.log.Log(context.Background(), levelOfChange(before.verdict, v), "verdict changed", "destination", q.d.key,
			"from", before.verdict.level, "to", v.level, "source", v.source, "row", v.row, "row_before", before.verdict.row)
	}
}

// levelOfChange: a change of row alone matters less than one of level.
func levelOfChange(from, to verdict) slog.Level {
	if from.level == to.level && from.source == to.source && from.would == to.would {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// renew gathers evidence anew before it ends, for a destination that is asked for.
func (e *Engine) renew(d *destination, now time.Time) {
	until := d.until.Load()
	if from := d.renew.Load(); now.UnixNano() < from || !d.renew.CompareAndSwap(from, math.MaxInt64) {
		return // somebody else does
	}
	k, err := ParseKey(d.key)
	if err != nil {
		return
	}
	e.flights.Go(func() {
		q := e.newQuery(k, d)
		q.margin = time.Duration(until-now.UnixNano()) + time.Millisecond
		q.wait(e.life, time.Now().Add(q.plan.Deadline))
		if e.life.Err() == nil {
			q.answer()
		}
	})
}

// arm ends first-run safety for good once a demand of its kind was answered.
func (e *Engine) arm(v verdict) {
	switch {
	case v.source == SourceRule:
	case v.level == tlspolicy.Secure.String():
		e.armed.set(e, &e.armed.secure, stateSecure)
	case v.level == tlspolicy.DaneOnly.String():
		e.armed.set(e, &e.armed.daneOnly, stateDaneOnly)
	}
}
