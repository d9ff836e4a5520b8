package policy

import (
	"cmp"
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
	// suspectAfter is how long a destination is negative without a proof before that
	// is an alarm: partners that are asked for the first time, together, are seen in it.
	suspectAfter = 15 * time.Second
	// maxProofs are tried, one after the other until one is good.
	maxProofs = 4
)

// ownPath is what is known of it.
type ownPath struct {
	proving    sync.Mutex // held by the one who looks for a proof
	referenced time.Time  // when the references were last asked, in vain; under proving

	mu       sync.Mutex
	hopes    uint64 // how often somebody turned out to be good
	suspects map[string]suspect
}

// suspect is a destination that is negative without a proof.
type suspect struct {
	since    time.Time
	stripped string // what seems to strip STARTTLS on the way there
}

// unproven tells whether all are negative and nothing shows that this is not the
// fault of our own path.
func (c *claim) unproven(now time.Time) bool {
	s := &c.standing
	return s.Verdict == ReachNegative && (!c.proved || s.OtherPositive.IsZero() || age(s.OtherPositive, now) > positiveLasts)
}

// needsProof tells whether somebody else is to be asked for TLS: once when all have
// become negative, since what was good before that moment tells little about it, and
// then before the proof is too old.
func (c *claim) needsProof(now time.Time) bool {
	s := &c.standing
	return s.Verdict == ReachNegative && (!c.proved || s.OtherPositive.IsZero() || age(s.OtherPositive, now) > positiveLasts-proofAhead)
}

// provePath looks for a proof where one is needed, and reports whether it did.
func (e *Engine) provePath(ctx context.Context, w *watched, p *plan, active []claim) bool {
	now := time.Now()
	if !slices.ContainsFunc(active, func(c claim) bool { return c.needsProof(now) }) {
		return false
	}
	path := &e.watch.path
	e.suspect(w.key, active) // before the look: whoever is seen with TLS after it tells us
	path.proving.Lock()
	defer path.proving.Unlock()
	now = time.Now()
	proved := true
	for _, c := range w.active(w.sum(e, p, now), now) { // somebody else may have found one meanwhile
		proved = (!c.needsProof(now) || e.prove(ctx, w, p, &c)) && proved
	}
	if proved {
		w.proved.Store(int64(time.Since(e.born)))
	}
	return true
}

// prove asks witnesses, and reports whether a claim's standing may be believed as far
// as our own path goes.
func (e *Engine) prove(ctx context.Context, w *watched, p *plan, c *claim) bool {
	path, s := &e.watch.path, &c.standing
	// A proof after the first negative result holds for all that became negative before
	// it: where many lose TLS together, few witnesses are asked.
	if !s.OtherPositive.Before(s.FirstNegative) && age(s.OtherPositive, time.Now()) < positiveLasts-proofAhead {
		return true
	}
	// Who may be a witness depends on who asks: it must be somebody else.
	hopes := path.hoped()
	if hopes == w.hopes && !w.unproven.IsZero() && time.Since(w.unproven) < proofAgain {
		return w.lenient && age(s.OtherPositive, time.Now()) <= positiveLasts
	}
	w.hopes, w.unproven = hopes, time.Time{}
	lost := false
	list := e.witnesses(w, p, c.demands)
	if len(list) == 0 && time.Since(path.referenced) >= proofAgain {
		if list = e.references(ctx, w, p, c.demands); len(list) > 0 {
			path.referenced = time.Now()
		}
	}
	for _, d := range list {
		switch e.reach.Probe(ctx, []Demand{d}, true).Verdict {
		case ReachPositive:
			path.referenced = time.Time{}
			e.watch.changes.Add(1)
			return true
		case ReachNegative:
			lost = true // it had TLS, and has lost it as well
		}
	}
	e.watch.changes.Add(1)
	// Without an answer from anybody, what was good within the hour counts.
	w.unproven, w.lenient = time.Now(), !lost && !s.OtherPositive.IsZero()
	return w.lenient && age(s.OtherPositive, time.Now()) <= positiveLasts
}

// witnesses are hosts of other watched destinations that were seen with TLS and are
// none of these, the latest first.
func (e *Engine) witnesses(w *watched, p *plan, not []Demand) []Demand {
	type witness struct {
		Demand
		at time.Time
	}
	var list []witness
	e.watch.all.Range(func(_ string, o *watched) bool {
		if o == w {
			return true
		}
		// Rules that do not bind have nobody probed, so they have no standing. While it is
		// only being found out anew whether they do, a host that was good a moment ago is as
		// good a witness as before; its own round may come hours later.
		s := o.current(e, p, time.Now())
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
	for _, x := range list {
		if len(found) < maxProofs && !x.shares(found) {
			found = append(found, x.Demand)
		}
	}
	return found
}

// references are mail hosts of destinations that are remembered with TLS, and of the
// domains that the operator names for the purpose.
func (e *Engine) references(ctx context.Context, w *watched, p *plan, not []Demand) []Demand {
	var found []Demand
	for _, name := range append(e.rememberedWitnesses(w, p), p.References[:min(len(p.References), MaxReferences)]...) {
		if k, err := ParseKey(name); err == nil && len(found) < maxProofs {
			for _, d := range e.gather(ctx, k, false).demands(tlspolicy.Line{Level: tlspolicy.Encrypt}) {
				if len(d.Addresses) > 0 && len(found) < maxProofs && !d.shares(not) && !d.shares(found) {
					found = append(found, d)
				}
			}
		}
	}
	return found
}

// rememberedWitnesses are destinations that offered TLS before this process began and
// for whose rules hosts are still probed: after a restart a partner need not wait for
// mail to another one. They leave room for what the operator names.
func (e *Engine) rememberedWitnesses(w *watched, p *plan) (names []string) {
	if e.recalled == nil {
		return nil
	}
	for _, name := range e.recalled() {
		if name != w.key && len(names) < maxProofs/2 && p.mayWatch(name, time.Now()) {
			names = append(names, name)
		}
	}
	return names
}

// suspect notes whether a destination is negative without a proof, and begins or ends
// the alarms about our own path: one, however many destinations there are, and not
// before others had time to be seen.
func (e *Engine) suspect(key string, active []claim) {
	path, now := &e.watch.path, time.Now()
	suspected, s := false, suspect{since: now}
	for i := range active {
		if active[i].unproven(now) {
			suspected = true
			s.stripped = cmp.Or(s.stripped, stripped(&active[i].standing))
		}
	}
	path.mu.Lock()
	defer path.mu.Unlock()
	if before, known := path.suspects[key]; known {
		s.since = before.since
	}
	if !suspected {
		delete(path.suspects, key)
	} else {
		if path.suspects == nil {
			path.suspects = map[string]suspect{}
		}
		path.suspects[key] = s
	}
	path.tell(&e.alarms, now)
}

func (path *ownPath) suspectedSince(key string) time.Time {
	path.mu.Lock()
	defer path.mu.Unlock()
	return path.suspects[key].since
}

// stripped names what seems to strip STARTTLS on the way to a destination.
func stripped(s *Standing) string {
	for i := range s.Hosts {
		if text := s.Hosts[i].Stripped; text != "" {
			return text
		}
	}
	return ""
}

// tell begins or ends the alarms. The lock of path is held.
func (path *ownPath) tell(a *alarms, now time.Time) {
	var lasting, alike []string
	var box string
	for key, s := range path.suspects {
		if s.stripped != "" {
			alike, box = append(alike, key), s.stripped
		}
		if now.Sub(s.since) >= suspectAfter {
			lasting = append(lasting, key)
		}
	}
	slices.Sort(lasting)
	switch {
	case len(lasting) > 0:
		a.raise(AlarmPath, pathUnproven, "no mail host elsewhere has shown TLS within the hour, so nobody is refused or deferred because of a rule",
			"destination", lasting[0], "fix", `add a second partner with TLS to a rule with unreachable = "refuse" or "defer", or set [reach] reference = ["gmail.com"]`)
	case len(path.suspects) == 0:
		a.clear(AlarmPath, pathUnproven)
	}
	if len(lasting) > 0 && len(alike) > 1 && len(alike) == len(path.suspects) {
		a.raise(AlarmPath, pathStrips, "a box on our own path seems to strip STARTTLS: every destination that lacks TLS fails alike",
			"seen", box, "fix", `turn off its SMTP inspection for our address (Cisco ASA: "no inspect esmtp")`)
	} else {
		a.clear(AlarmPath, pathStrips)
	}
}

// The subjects of AlarmPath.
const (
	pathUnproven = "own path unproven"
	pathStrips   = "own path strips STARTTLS"
)

// hoped is how often somebody turned out to be good.
func (path *ownPath) hoped() uint64 {
	path.mu.Lock()
	defer path.mu.Unlock()
	return path.hopes
}

// unsuspect has those without a proof looked at again, when somebody is good who may
// be one.
func (e *Engine) unsuspect(now time.Time) {
	path := &e.watch.path
	path.mu.Lock()
	path.hopes++
	keys := slices.Collect(maps.Keys(path.suspects))
	path.mu.Unlock()
	for _, key := range keys {
		if w := e.watch.all.GetString(key); w != nil {
			e.wake(w, now)
		}
	}
}
