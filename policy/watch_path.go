package policy

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Our own path: that no mail host of a destination offers TLS may be the fault of a
// box beside us, which takes STARTTLS out of every conversation. Somebody else who
// was seen with TLS, lately, shows that it is not.
const (
	// MaxReferences bounds Settings.References.
	MaxReferences = 8
	// proofAhead of its end, a proof is renewed: more than the time between two looks
	// at a destination that is negative.
	proofAhead = 15 * time.Minute
	// proofAgain is the least time between two attempts that found none.
	proofAgain = 2 * time.Minute
	// proofNear is how much older than the first negative result a proof may be: when
	// many destinations lose TLS together, one witness is not asked for each of them.
	proofNear = time.Minute
	// maxProofs are tried, one after the other until one is good.
	maxProofs = 4
)

// ownPath is what is known of it.
type ownPath struct {
	proving sync.Mutex // held by the one who looks for a proof
	failed  time.Time  // when nobody was found to be good

	mu sync.Mutex
	// suspects are the destinations that are negative without a proof; true: a box on
	// the way seems to strip STARTTLS.
	suspects map[string]bool
}

// unproven tells whether all are negative and nothing shows that this is not the
// fault of our own path.
func (c *claim) unproven(now time.Time) bool {
	s := &c.standing
	return s.Verdict == ReachNegative && (!c.proved || s.OtherPositive.IsZero() || now.Sub(s.OtherPositive) > positiveLasts)
}

// needsProof tells whether somebody else is to be asked for TLS: once when all have
// become negative, since what was good before that moment tells little about it, and
// then before the proof is too old.
func (c *claim) needsProof(now time.Time) bool {
	s := &c.standing
	return s.Verdict == ReachNegative && (!c.proved || s.OtherPositive.IsZero() || now.Sub(s.OtherPositive) > positiveLasts-proofAhead)
}

// provePath looks for a proof where one is needed, and reports whether it did.
func (e *Engine) provePath(ctx context.Context, w *watched, p *plan, active []claim) bool {
	now := time.Now()
	if !slices.ContainsFunc(active, func(c claim) bool { return c.needsProof(now) }) {
		return false
	}
	path := &e.watch.path
	path.proving.Lock()
	defer path.proving.Unlock()
	now = time.Now()
	proved := true
	for _, c := range w.active(w.sum(e, p, now), now) { // somebody else may have found one meanwhile
		proved = (!c.needsProof(now) || e.prove(ctx, w, p, &c)) && proved
	}
	if proved {
		w.proved.Store(time.Now().UnixNano())
	}
	return true
}

// prove asks witnesses, and reports whether a claim's standing may be believed as far
// as our own path goes.
func (e *Engine) prove(ctx context.Context, w *watched, p *plan, c *claim) bool {
	path, s := &e.watch.path, &c.standing
	if s.OtherPositive.After(s.FirstNegative.Add(-proofNear)) && time.Since(s.OtherPositive) < positiveLasts-proofAhead {
		return true
	}
	if !path.failed.IsZero() && time.Since(path.failed) < proofAgain {
		return false
	}
	lost := false
	for _, d := range e.witnesses(ctx, w, p, c.demands) {
		switch e.reach.Probe(ctx, []Demand{d}, true).Verdict {
		case ReachPositive:
			path.failed = time.Time{}
			e.watch.changes.Add(1)
			return true
		case ReachNegative:
			lost = true // it had TLS, and has lost it as well
		}
	}
	path.failed = time.Now()
	e.watch.changes.Add(1)
	return !lost && !s.OtherPositive.IsZero() && time.Since(s.OtherPositive) <= positiveLasts
}

// witnesses are hosts that were seen with TLS and are none of these: of watched
// destinations, the latest first, and where there are none, of the references.
func (e *Engine) witnesses(ctx context.Context, w *watched, p *plan, not []Demand) []Demand {
	type witness struct {
		Demand
		at time.Time
	}
	var list []witness
	e.watch.all.Range(func(_ string, o *watched) bool {
		s := o.summary.Load()
		if s == nil || o == w || s.plan != p || s.unbound != "" {
			return true
		}
		for _, c := range append(slices.Clone(s.claims), s.sender) {
			for i, d := range c.demands {
				if i < len(c.standing.Hosts) && c.standing.Hosts[i].Verdict == ReachPositive && c.standing.Hosts[i].Version != "" && !d.shares(not) {
					list = append(list, witness{d, c.standing.Hosts[i].At})
				}
			}
		}
		return true
	})
	slices.SortFunc(list, func(a, b witness) int { return b.at.Compare(a.at) })
	var found []Demand
	add := func(d Demand) {
		if len(d.Addresses) > 0 && len(found) < maxProofs && !d.shares(found) {
			found = append(found, d)
		}
	}
	for _, x := range list {
		add(x.Demand)
	}
	if len(found) > 0 {
		return found
	}
	for _, name := range p.References[:min(len(p.References), MaxReferences)] {
		if k, err := ParseKey(name); err == nil && len(found) < maxProofs {
			for _, d := range e.gather(ctx, k, false).demands(tlspolicy.Line{Level: tlspolicy.Encrypt}) {
				if !d.shares(not) {
					add(d)
				}
			}
		}
	}
	return found
}

// suspect notes whether a destination is negative without a proof, and begins or ends
// the alarms about our own path. One alarm, however many destinations there are.
func (e *Engine) suspect(key string, active []claim) {
	path := &e.watch.path
	now := time.Now()
	suspected, stripped := false, ""
	for i := range active {
		if active[i].unproven(now) {
			suspected = true
			for _, h := range active[i].standing.Hosts {
				if stripped == "" {
					stripped = h.Stripped
				}
			}
		}
	}
	path.mu.Lock()
	defer path.mu.Unlock()
	if !suspected {
		delete(path.suspects, key)
	} else {
		if path.suspects == nil {
			path.suspects = map[string]bool{}
		}
		path.suspects[key] = stripped != ""
	}
	alike := 0
	for _, s := range path.suspects {
		if s {
			alike++
		}
	}
	if len(path.suspects) == 0 {
		e.alarms.clear(AlarmPath, pathUnproven)
	} else {
		e.alarms.raise(AlarmPath, pathUnproven, "no mail host elsewhere has shown TLS within the hour, so nobody is refused or deferred because of a rule",
			"destination", key, "fix", `add a second partner with TLS to a rule with unreachable = "refuse" or "defer", or set [reach] reference = ["gmail.com"]`)
	}
	if alike < 2 || alike < len(path.suspects) {
		e.alarms.clear(AlarmPath, pathStrips)
	} else {
		e.alarms.raise(AlarmPath, pathStrips, "a box on our own path seems to strip STARTTLS: every destination that lacks TLS fails alike",
			"seen", stripped, "fix", `turn off its SMTP inspection for our address (Cisco ASA: "no inspect esmtp")`)
	}
}

// The subjects of AlarmPath.
const (
	pathUnproven = "own path unproven"
	pathStrips   = "own path strips STARTTLS"
)

// unsuspect has those without a proof looked at again, when there may be one.
func (e *Engine) unsuspect(now time.Time) {
	path := &e.watch.path
	path.mu.Lock()
	keys := slices.Collect(maps.Keys(path.suspects))
	path.mu.Unlock()
	for _, key := range keys {
		if w := e.watch.all.GetString(key); w != nil {
			e.watch.schedule(w, now)
		}
	}
}
