package policy

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Subject is a destination that rules are looked for.
type Subject struct {
	Key Key
	// MX holds the names of the mail exchangers, canonical (lower-case A-labels,
	// no trailing dot); the domain itself where it has no MX records. It is
	// ignored for a key in brackets, whose only mail host is the one named there.
	MX []string
	// MXKnown: MX is the set as it is, or as it was last known.
	MXKnown bool
	// MXSecure: the whole set was validated; only then may a rule lower because of it.
	MXSecure bool
}

// Finding is what the rules say about a Subject.
type Finding struct {
	// Rule is the first that applies, nil without one.
	Rule *Rule
	// NeedsMX: the MX set is not known, and an mx: rule that stands before Rule,
	// or anywhere where Rule is nil, could apply to it.
	NeedsMX bool
	// AtLeastEncrypt: one of those rules raises. As long as the MX set is not
	// known, nothing below encrypt may be answered, whatever Rule says.
	AtLeastEncrypt bool
	// Monitored is the first rule with mode monitor that would have applied
	// before Rule, nil without one.
	Monitored *Rule
}

// Find looks for the rules that apply at a moment. It allocates nothing.
// Expired rules are passed over. A raising mx: rule applies if any mail
// exchanger matches, a lowering one only if the set is secure and all of them do:
// whoever forges an MX answer must not choose a weaker level by it.
func (rs *Rules) Find(s Subject, now time.Time) Finding {
	if rs == nil || len(rs.rules) == 0 {
		return Finding{}
	}
	w := search{Rules: rs, now: now, first: none, monitored: none}
	w.byKey(s.Key)
	var f Finding
	switch {
	case len(rs.mxRaising)+len(rs.mxLowering)+len(rs.mxMonitored) == 0 || s.Key.Literal:
	case s.Key.Brackets:
		// STS-004: the host in the brackets is the whole list of candidates, and
		// it comes from the configuration, not from the DNS.
		host := [1]string{s.Key.Name}
		w.byMX(host[:], true)
	case s.MXKnown:
		w.byMX(s.MX, s.MXSecure)
	default:
		f.AtLeastEncrypt = w.inPlay(rs.mxRaising)
		f.NeedsMX = f.AtLeastEncrypt || w.inPlay(rs.mxLowering)
	}
	if w.first != none {
		f.Rule = &rs.rules[w.first]
	}
	if w.monitored < w.first {
		f.Monitored = &rs.rules[w.monitored]
	}
	return f
}

// none is the number of no rule, greater than every other.
const none = math.MaxInt32

// search is one run through the rules. Patterns are found by name, not by going
// through the file: the least number among the rules found is the first match.
type search struct {
	*Rules
	now       time.Time
	first     int32 // the first rule that applies
	monitored int32 // the first that would, but for its mode
}

// consider takes in the rules of one pattern that matches, in file order.
func (w *search) consider(list []int32) {
	for _, n := range list {
		if w.take(n) {
			return
		}
	}
}

// take notes one rule that matches, and tells whether those after it no longer
// matter.
func (w *search) take(n int32) (done bool) {
	if n >= w.first {
		return true
	}
	r := &w.rules[n]
	if r.Expired(w.now) {
		return false
	}
	if r.Monitor {
		w.monitored = min(w.monitored, n)
		return false
	}
	w.first = n
	return true
}

func (w *search) byKey(k Key) {
	if k.Brackets {
		w.consider(w.host[hostPort{k.Name, k.Port}])
		return
	}
	if k.Literal {
		return
	}
	w.consider(w.name[k.Name])
	if len(w.port) > 0 {
		w.consider(w.port[hostPort{k.Name, k.Port}])
	}
	if len(w.parent) > 0 {
		for parent := range parents(k.Name) {
			w.consider(w.parent[parent])
		}
	}
}

// byMX takes in the mx: rules for a known set.
func (w *search) byMX(hosts []string, secure bool) {
	for i, host := range hosts {
		// All hosts match a lowering rule only if the first one does.
		lowering := secure && i == 0
		w.considerMX(w.mx[host], hosts, lowering)
		if len(w.mxBelow) > 0 {
			for parent := range parents(host) {
				w.considerMX(w.mxBelow[parent], hosts, lowering)
			}
		}
	}
}

func (w *search) considerMX(list []int32, hosts []string, lowering bool) {
	for _, n := range list {
		if w.rules[n].Lowers() && !(lowering && w.matchesAll(n, hosts)) {
			continue
		}
		if w.take(n) {
			return
		}
	}
}

// matchesAll tells whether every host matches one of the rule's mx: patterns.
func (rs *Rules) matchesAll(n int32, hosts []string) bool {
	for _, host := range hosts {
		if !rs.matchesHost(n, host) {
			return false
		}
	}
	return true
}

func (rs *Rules) matchesHost(n int32, host string) bool {
	if _, ok := slices.BinarySearch(rs.mx[host], n); ok {
		return true
	}
	for parent := range parents(host) {
		if _, ok := slices.BinarySearch(rs.mxBelow[parent], n); ok {
			return true
		}
	}
	return false
}

// inPlay tells whether one of the rules stands before the first that applies.
func (w *search) inPlay(list []int32) bool {
	for _, n := range list {
		if n >= w.first {
			return false
		}
		if !w.rules[n].Expired(w.now) {
			return true
		}
	}
	return false
}

// parents yields the domains above a name: "a.b.c" gives "b.c" and "c".
func parents(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			_, parent, ok := strings.Cut(name, ".")
			if !ok || !yield(parent) {
				return
			}
			name = parent
		}
	}
}

// Expired lists the rules that no longer hold, in file order.
func (rs *Rules) Expired(now time.Time) []*Rule {
	return rs.where(func(r *Rule) bool { return r.Expired(now) })
}

func (rs *Rules) where(is func(*Rule) bool) []*Rule {
	if rs == nil {
		return nil
	}
	var list []*Rule
	for i := range rs.rules {
		if is(&rs.rules[i]) {
			list = append(list, &rs.rules[i])
		}
	}
	return list
}

// NextChange is the next moment at which a rule ends, the zero time without one.
func (rs *Rules) NextChange(now time.Time) time.Time {
	if rs == nil {
		return time.Time{}
	}
	i, found := slices.BinarySearchFunc(rs.ends, now, time.Time.Compare)
	if found {
		i++ // a rule does not hold at its Until any more
	}
	for i < len(rs.ends) && !rs.ends[i].After(now) {
		i++
	}
	if i == len(rs.ends) {
		return time.Time{}
	}
	return rs.ends[i]
}
