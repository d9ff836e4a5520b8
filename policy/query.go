package policy

import (
	"cmp"
	"context"
	"time"

	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// query is one look at a destination: what is known, what is missing, what
// follows. It may be asked for more than an answer needs (explain).
type query struct {
	e    *Engine
	plan *plan
	key  Key
	d    *destination
	// everything: gather also what cannot change the answer.
	everything bool
	// margin: evidence must last so much longer, to gather it ahead of its end.
	margin time.Duration
	// live: all evidence is gathered anew. What is known stays until it is known
	// better, or its time is up: a look must not weaken the answers.
	live bool
	// patience is how long a flight is waited for, from its start.
	patience time.Duration
	// tried is what was gathered because of the margin. Once is enough: a
	// caching resolver answers with what is left of a lifetime.
	tried map[any]bool
	view
}

// view is what a query saw in the engine's memory at one moment.
type view struct {
	now     time.Time
	changes uint32 // of the domain, before anything was looked at
	finding Finding
	// rulesNeedMX: an mx: rule could apply, depending on the MX set.
	rulesNeedMX bool
	missing     []*flight // evidence that is being gathered
	until       time.Time // how long all of it may be believed
	partial     bool      // something needed is not known (yet)
	sts         stsOutcome
	policy      *mtasts.Policy // unexpired and enforce, whatever the mode
	testing     *mtasts.Policy // unexpired and testing
	mx          *dane.MXSet    // nil: unknown
	evidence    dane.Evidence
	last        *dane.Evidence
	lastMX      *dane.MXSet // the last known set, where it is unknown now
	failed      bool        // nobody answered something that was needed
	// again says of what is used why it could not be looked up anew, by the name of
	// the mail host; "" stands for the MX set.
	again map[string]string
}

func (e *Engine) newQuery(k Key, d *destination) *query {
	p := e.plan.Load()
	return &query{e: e, plan: p, key: k, d: d, patience: p.patience()}
}

// anew makes q gather all evidence that it needs anew.
func (q *query) anew() *query {
	q.live, q.patience = true, liveTimeout
	return q
}

// wait gathers until nothing is missing, but no longer than the deadline. A
// flight that has used up its own deadline is not waited for again.
func (q *query) wait(ctx context.Context, deadline time.Time) {
	for {
		q.see()
		if len(q.missing) == 0 {
			return
		}
		if !q.waitForOne(ctx, deadline) {
			q.see()
			return
		}
	}
}

func (q *query) waitForOne(ctx context.Context, deadline time.Time) bool {
	for _, f := range q.missing {
		end := f.started.Add(q.patience)
		if deadline.Before(end) {
			end = deadline
		}
		left := time.Until(end)
		if left <= 0 {
			continue
		}
		timer := time.NewTimer(left)
		select {
		case <-f.done:
			timer.Stop()
			return true
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
	return false
}

// see looks at the memory and starts flights for what is needed and missing.
func (q *query) see() {
	now := time.Now()
	q.view = view{now: now, until: now.Add(24 * time.Hour), changes: q.d.domain.changes.Load()}
	p, rules := q.plan, q.plan.Rules
	if next := rules.NextChange(q.now); !next.IsZero() {
		q.lasts(next)
	}
	q.finding = rules.Find(Subject{Key: q.key}, q.now)
	if q.rulesNeedMX = q.finding.NeedsMX; q.rulesNeedMX {
		q.seeMX()
		q.finding = rules.Find(q.subject(), q.now)
	}
	r := q.finding.Rule
	if q.asWritten() && !q.everything {
		return
	}
	if looked, _ := p.stsFor(q.key, r); looked {
		if f := q.seeSTS(); f != nil {
			// Waited for last: the hosts are asked for as soon as the MX set is
			// there, however slow the policy host is.
			defer q.await(f)
		}
	}
	if q.needsMX() {
		q.seeMX()
	}
	q.evidence = dane.Evidence{Suspended: true}
	if q.mx != nil {
		q.evidence.MX = *q.mx
	} else {
		q.evidence.MX.Err = "not looked up"
	}
	looked, _ := p.daneFor(r)
	q.evidence.Suspended = !looked
	if q.mx != nil && q.needsHosts() {
		q.seeHosts()
	}
	if looked && q.mx != nil && q.mx.Failure() != "" {
		q.failed = true
	}
}

// asWritten: the rule is the answer. A lowering one is not, as long as the MX set
// is unknown and a raising mx: rule stands before it.
func (q *query) asWritten() bool {
	r := q.finding.Rule
	return r != nil && q.options(mapPostseal).asWritten(r) && !(q.finding.AtLeastEncrypt && r.Lowers())
}

func (q *query) options(k mapKind) Options { return q.plan.options(k, q.d.mandatory) }

// lasts notes that something the answer rests on ends at t.
func (q *query) lasts(t time.Time) {
	if t.Before(q.until) {
		q.until = t
	}
}

// subject describes the destination to the rules, with the MX set as known.
func (q *query) subject() Subject {
	s := Subject{Key: q.key}
	m := q.mx
	if m == nil || m.Err != "" {
		if m = q.lastMX; m == nil {
			return s
		}
	}
	s.MXKnown, s.MXSecure = true, m.Secure && !m.Truncated // a lowering rule must match them all
	for _, h := range m.Hosts {
		s.MX = append(s.MX, h.Name)
	}
	return s
}

// seeSTS takes the MTA-STS state of the domain, and returns the flight that is
// gathering it, if one must.
func (q *query) seeSTS() *flight {
	d := q.d.domain
	d.mu.Lock()
	defer d.mu.Unlock()
	known := time.Unix(0, d.sts.until)
	d.policy.unclamp(q.now)
	if d.policy.valid(q.now) {
		q.lasts(d.policy.expires())
		policy := d.policy.policy
		switch policy.Mode {
		case mtasts.ModeEnforce:
			q.policy = &policy
		case mtasts.ModeTesting:
			q.testing = &policy
		}
	}
	q.sts = d.sts.outcome
	if q.take(known) {
		q.failed = q.failed || q.sts == stsFailed || q.sts == stsFound && !d.policy.valid(q.now)
	}
	if !q.stale(known, &d.sts, d.sts.again, d.sts.flight) {
		return nil
	}
	if q.live && d.policy != nil && d.policy.have {
		return q.e.startRefresh(d) // whatever its record says
	}
	return q.e.startSTS(d)
}

// take notes that evidence known until a moment is used, and reports whether
// there is any; without it the answer is partial.
func (q *query) take(known time.Time) bool {
	if !known.After(q.now) {
		q.partial, q.failed = true, true
		return false
	}
	q.lasts(known)
	return true
}

// stale: the evidence must be gathered, now or, once in a query, ahead of its end;
// but not again there where that has failed. A gathering that is under way is
// waited for.
func (q *query) stale(known time.Time, what any, failed bool, f *flight) bool {
	over := !known.After(q.now)
	ahead := q.live || q.margin > 0 && !failed && !known.After(q.now.Add(q.margin))
	if !ahead || q.tried[what] {
		return over || f != nil && q.tried[what]
	}
	if q.tried == nil {
		q.tried = map[any]bool{}
	}
	q.tried[what] = true
	return true
}

func (q *query) failedAgain(name, why string) {
	if q.again == nil {
		q.again = map[string]string{}
	}
	q.again[name] = why
}

// await adds a flight to those that are waited for; there is none after the
// engine has ended.
func (q *query) await(f *flight) {
	if f != nil {
		q.missing = append(q.missing, f)
	}
}

// needsMX: only the questions that can change the answer (CMB-13).
func (q *query) needsMX() bool {
	if q.key.Literal {
		return false
	}
	if q.everything || q.policy != nil {
		return true
	}
	looked, _ := q.plan.daneFor(q.finding.Rule)
	return looked && q.floorNeedsDANE()
}

// floorNeedsDANE: without STS, does the answer depend on the class?
func (q *query) floorNeedsDANE() bool {
	e, o := Evidence{Rule: q.finding.Rule, AtLeastEncrypt: q.finding.AtLeastEncrypt}, q.options(mapPostseal)
	switch {
	case o.Floor == FloorInherit && o.Main == MainStronger:
		return false
	case e.raised():
		return true
	}
	return o.Floor != FloorDANE
}

// needsHosts: with an insecure MX set only inherit without STS tells D5 from D0;
// with an enforced policy a mismatch turns on which hosts have addresses.
func (q *query) needsHosts() bool {
	if len(q.mx.Hosts) == 0 || q.mx.Err != "" {
		return false
	}
	if q.everything {
		return true
	}
	if q.evidence.Suspended || q.mx.Unproven {
		return false
	}
	if q.mx.Secure {
		return true
	}
	if q.policy != nil {
		matching := len(survey(Evidence{Policy: q.policy, DANE: dane.Evidence{MX: *q.mx, Hosts: make([]*dane.Host, len(q.mx.Hosts))}}).matching)
		if matching > 0 && matching < len(q.mx.Hosts) {
			return true
		}
		_, counts := q.plan.stsFor(q.key, q.finding.Rule)
		if counts {
			return false
		}
	}
	e, o := Evidence{Rule: q.finding.Rule, AtLeastEncrypt: q.finding.AtLeastEncrypt}, q.options(mapPostseal)
	return o.Floor == FloorInherit && o.Main == MainUpToDANE && !e.raised()
}

// seeMX takes the MX set: of the domain, or the one host in brackets.
func (q *query) seeMX() {
	if q.mx != nil || q.key.Literal {
		return
	}
	if q.key.Brackets {
		m := dane.Direct(q.key.Name)
		q.mx = &m
		return
	}
	d := q.d.domain
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.rulesNeedMX {
		q.lastMX = q.e.sets.get(d.key, q.now).mxSet()
	}
	if d.policy != nil {
		last := d.policy.last.evidence(q.now)
		if last != nil && q.lastMX == nil {
			q.lastMX = &last.MX
		}
		if q.key.Port == 25 { // the TLSA records of another port are others
			q.last = last
		}
	}
	known := time.Unix(0, d.mx.until)
	m := d.mxSet()
	if q.lastMX == nil && len(m.Hosts) > 0 && d.mx.flags&mxFailed == 0 {
		q.lastMX = &m // its time was up a moment ago
	}
	if q.take(known) {
		if q.mx = &m; d.mx.flags&mxFailed != 0 {
			q.mx = &dane.MXSet{Err: cmp.Or(d.troubles().mx, "the look-up failed")}
		}
		if d.mx.flags&mxAgain != 0 {
			q.failedAgain("", d.troubles().mx)
		}
	}
	if q.stale(known, &d.mx, d.mx.flags&mxAgain != 0, d.mx.flight) {
		q.await(q.e.startMX(d))
	}
}

// seeHosts takes the evidence of every mail host; a host not known yet counts as failed.
func (q *query) seeHosts() {
	q.evidence.Hosts = make([]*dane.Host, len(q.mx.Hosts))
	for i, x := range q.mx.Hosts {
		h := q.e.host(x.Name, q.key.Port)
		h.mu.Lock()
		known := time.Unix(0, h.until)
		if q.take(known) {
			q.evidence.Hosts[i] = h.evidence
			if h.again != "" {
				q.failedAgain(x.Name, h.again)
			}
		}
		if q.stale(known, h, h.again != "", h.flight) {
			q.await(q.e.startHost(h))
		}
		h.mu.Unlock()
	}
}

// weigh builds the evidence for Decide. With enforced, mechanisms that are only
// monitored count as well: what would be answered.
func (q *query) weigh(enforced bool) Evidence {
	r := q.finding.Rule
	e := Evidence{Key: q.key, Rule: r, AtLeastEncrypt: q.finding.AtLeastEncrypt, DANE: q.evidence, LastKnown: q.last, Unanswered: q.failed}
	if enforced && q.finding.Monitored != nil {
		e.Rule = q.finding.Monitored
	}
	looked, counts := q.plan.stsFor(q.key, r)
	if looked && (counts || enforced) {
		e.Policy = q.policy
	}
	looked, counts = q.plan.daneFor(r)
	if !looked || !counts && !enforced {
		e.DANE.Suspended = true
	}
	return e
}

// decide gives the decision for one kind of map, and with enforced what it
// would be if nothing were only monitored.
func (q *query) decide(k mapKind, enforced bool) Decision {
	if q.plan.Monitor && !enforced {
		return Decision{NotFound: true, Row: RowNotNeeded, Source: SourceFloor}
	}
	return Decide(q.weigh(enforced), q.options(k))
}

func (q *query) monitoring() bool {
	return q.plan.Monitor || q.plan.DANE == ModeMonitor || q.plan.STS == ModeMonitor || q.finding.Monitored != nil
}
