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
	// rule and monitored are what the rules said, for who asks about a recipient.
	rule, monitored *Rule
}

// verdict is what is told about an answer when it changes.
type verdict struct {
	level  string
	source Source
	row    Row
	would  string // the level that monitoring holds back
	// testing: a policy of mode testing names none of the mail hosts (STS-081).
	testing bool
}

// answeredAgain is how long an answer is given at most before the Observer is told anew
// that the destination is asked for.
const answeredAgain = time.Hour

// answer decides, remembers the answer for as long as what it rests on holds,
// and draws the consequences.
func (q *query) answer() *answer {
	a := &answer{plan: q.plan, rule: q.finding.Rule, monitored: q.finding.Monitored}
	for k := range mapKinds {
		d := q.decide(k, false)
		a.replies[k], a.counted[k] = d.String(), q.e.metrics.answered(d)
		if k == mapPostseal {
			a.verdict = verdict{level: d.Level(), source: d.Source, row: d.Row, testing: q.testingWouldFail()}
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
	q.conclude(a.verdict)
	if r := a.rule; r != nil && r.Demands() && q.e.observer != nil {
		q.e.observer.Answered(q.d.key, r, a.verdict.level)
		q.lasts(q.now.Add(answeredAgain))
	}
	if !q.partial {
		if before, kept := q.d.remember(a, q.changes, q.now.UnixNano(), q.until.UnixNano()); kept {
			q.tellChange(before, a)
		}
	}
	return a
}

// common is the identity of an answer that destinations can share.
type common struct {
	plan            *plan
	verdict         verdict
	replies         [mapKinds]string
	rule, monitored *Rule
}

func (e *Engine) intern(a *answer) *answer {
	shared, _ := e.common.LoadOrStore(common{a.plan, a.verdict, a.replies, a.rule, a.monitored}, a)
	return shared.(*answer)
}

// conclude draws the consequences of an answer that is about to be given.
func (q *query) conclude(v verdict) {
	e := q.e
	e.arm(v)
	if v.mismatch() {
		e.metrics.mismatches.Inc()
		e.expedite(q.d.domain, q.now)
	}
	if v.testing {
		e.metrics.testingWouldFail.Inc()
	}
	q.noteMX()
	if q.policy != nil && !q.partial && q.classified() {
		e.keepClass(q.d.domain, &q.evidence, q.now)
	}
}

// mismatch: the enforced policy names none of the mail hosts (CMB-12).
func (v verdict) mismatch() bool { return Decision{Row: v.row}.Mismatch() }

// testingWouldFail evaluates the part of a testing policy that can be seen from
// here, the names of the mail hosts, where these are known anyway (STS-081).
func (q *query) testingWouldFail() bool {
	if q.testing == nil || q.mx == nil || q.mx.Err != "" {
		return false
	}
	e := q.evidence
	e.MX = *q.mx
	return survey(Evidence{Policy: q.testing, DANE: e}).mismatch
}

// classified: the evidence is complete enough to be a hint for row D4.
func (q *query) classified() bool {
	return q.mx != nil && q.mx.Err == "" && !q.mx.Unproven && !q.evidence.Suspended && len(q.evidence.Hosts) == len(q.mx.Hosts) && !q.key.Brackets &&
		q.key.Port == 25 && q.evidence.Class() != dane.D3
}

// tellChange logs one line when a destination's verdict changes; the first one
// is only worth a debug line, unless mail will suffer from it.
func (q *query) tellChange(before, a *answer) {
	log, v, from := q.e.log, a.verdict, verdict{}
	if q.d.mandatory {
		log = log.With("map", EnforcedMap)
	}
	if before != nil {
		from = before.verdict
	}
	if v.mismatch() && !from.mismatch() {
		log.Warn("sts_mx_mismatch: the enforced policy names none of the mail hosts", "destination", q.d.key, "mx", few(q.exchangers()), "policy", few(q.policy.MX))
	}
	if v.testing && !from.testing {
		log.Info("sts_testing_would_fail: the policy in testing names none of the mail hosts", "destination", q.d.key, "mx", few(q.exchangers()), "policy", few(q.testing.MX))
	}
	switch {
	case before == nil:
		log.Debug("verdict", "destination", q.d.key, "level", v.level, "source", v.source, "row", v.row)
	case from != v:
		log.Log(context.Background(), levelOfChange(before, a), "verdict changed", "destination", q.d.key,
			"from", from.level, "to", v.level, "source", v.source, "row", v.row, "row_before", from.row)
	}
}

// exchangers are the names of the mail hosts, as far as known.
func (q *query) exchangers() []string {
	var names []string
	if q.mx != nil {
		for _, x := range q.mx.Hosts {
			names = append(names, x.Name)
		}
	}
	return names
}

// levelOfChange: a change of row alone matters less than one of level; and what
// changes for every destination at once, a floor or the standing of the resolver, is
// told where it happens, not once for each of them.
func levelOfChange(before, after *answer) slog.Level {
	from, to := before.verdict, after.verdict
	floors := from.onFloor() && to.onFloor()
	if from.level == to.level && from.source == to.source && from.would == to.would || floors || before.plan.suspended != after.plan.suspended {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

func (v verdict) onFloor() bool {
	return (v.source == SourceFloor || v.source == SourceError) && v.would == ""
}

// renew gathers evidence anew before it ends, for a destination that is asked for.
func (e *Engine) renew(d *destination, m *memo, now time.Time) {
	if from := m.renew.Load(); now.UnixNano() < from || !m.renew.CompareAndSwap(from, math.MaxInt64) {
		return // somebody else does
	}
	k, err := ParseKey(d.key)
	if err != nil {
		return
	}
	e.spawn(func() {
		q := e.newQuery(k, d)
		q.margin = time.Duration(m.until-now.UnixNano()) + time.Millisecond
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
