package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/ledger"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
)

// enforcedReport is what `report enforced --json` prints. Every key is always there;
// times that are not known are null.
type enforcedReport struct {
	At           time.Time             `json:"at"`
	Since        time.Time             `json:"since"`
	Proves       string                `json:"proves"`
	Destinations []enforcedDestination `json:"destinations"` // the worst first
	Rules        []enforcedRule        `json:"rules"`        // in the order of the configuration
	Warnings     []string              `json:"warnings"`
}

// enforcedState says how a destination stands. The texts are part of the interface.
type enforcedState string

// The states, the worst first.
const (
	stateNotHeld     enforcedState = "not-held"
	stateInert       enforcedState = "inert"
	stateUnreachable enforcedState = "unreachable"
	stateUnknown     enforcedState = "unknown"
	stateNotProbed   enforcedState = "not-probed"
	stateReached     enforcedState = "reached"
	stateExpired     enforcedState = "expired"
	stateNoRule      enforcedState = "no-rule"
)

var enforcedStates = []enforcedState{stateNotHeld, stateInert, stateUnreachable, stateUnknown, stateNotProbed, stateReached, stateExpired, stateNoRule}

// finding: what the rule demands is not had.
func (s enforcedState) finding() bool {
	return s == stateNotHeld || s == stateInert || s == stateUnreachable
}

type enforcedDestination struct {
	Destination string        `json:"destination"`
	State       enforcedState `json:"state"`
	Why         string        `json:"why"`
	Rule        ruleReport    `json:"rule"`
	// Level is what Postfix was told; "NOTFOUND": main.cf decides; "main.cf": the same, and
	// that demands more; empty: nothing yet.
	Level         string           `json:"level"`
	Hosts         []enforcedHost   `json:"hosts"`
	Refused       int              `json:"refused"`
	Deferred      int              `json:"deferred"`
	LastTurned    *time.Time       `json:"last_refused_or_deferred"`
	FirstAsked    *time.Time       `json:"first_asked"`
	LastAsked     *time.Time       `json:"last_asked"`
	Changed       *time.Time       `json:"evidence_changed"`
	LastSecured   *time.Time       `json:"last_secured"`
	Changes       []enforcedChange `json:"changes"`
	expiringFirst time.Time        // a certificate that ends soon, under a level that looks at it
}

type enforcedHost struct {
	Host     string     `json:"host"`
	Port     uint16     `json:"port"`
	Level    string     `json:"level"`
	Verdict  string     `json:"verdict"`
	Address  string     `json:"address"`
	At       *time.Time `json:"at"`
	StartTLS bool       `json:"starttls"`
	Version  string     `json:"version"`
	Cipher   string     `json:"cipher"`
	Names    []string   `json:"certificate_names"`
	Expires  *time.Time `json:"certificate_expires"`
	Days     *int       `json:"certificate_days"` // whole days left
	Text     string     `json:"text"`
	Cause    string     `json:"cause"`
	Stripped string     `json:"stripped"`
	Secured  *time.Time `json:"last_secured"`
}

type enforcedChange struct {
	At    time.Time      `json:"at"`
	What  []string       `json:"what"`
	Rule  ruleReport     `json:"rule"`
	Level string         `json:"level"`
	Inert string         `json:"inert"`
	Hosts []enforcedHost `json:"hosts"`
}

// ruleReport is a rule; of its patterns the first five.
type ruleReport struct {
	Source      string     `json:"source"`
	Match       []string   `json:"match"`
	Sender      []string   `json:"sender"`
	Level       string     `json:"level"`
	Unreachable string     `json:"unreachable"`
	Reason      string     `json:"reason"`
	Until       *time.Time `json:"until"` // the first instant at which it no longer holds
	Mode        string     `json:"mode"`
}

func reportRule(r *ledger.Rule, mode policy.Mode) ruleReport {
	return ruleReport{Source: r.Source, Match: orEmpty(r.Match), Sender: orEmpty(r.Sender), Level: r.Level, Unreachable: r.Unreachable, Reason: r.Reason,
		Until: orNull(r.Until), Mode: mode.String()}
}

// enforcedRule is a rule that demands TLS, and what mail it met.
type enforcedRule struct {
	ruleReport
	State        string     `json:"state"` // one of the texts below
	Why          string     `json:"why"`   // of an inert one
	Destinations int        `json:"destinations"`
	LastAsked    *time.Time `json:"last_asked"`
}

// newEnforcedReport holds what was kept against the rules as they are now. inert says of
// some why they do not bind.
func newEnforcedReport(b ledger.Book, cfg *Config, inert map[*policy.Rule]string, since, now time.Time) *enforcedReport {
	r := &enforcedReport{At: now.UTC().Truncate(time.Second), Since: since.Truncate(time.Second), Proves: proves, Destinations: []enforcedDestination{}, Warnings: []string{}}
	rules := newEnforcedRules(cfg, inert, now)
	for i := range b.Entries {
		e := &b.Entries[i]
		current := rules.of(e)
		shown := shownSince(e, since)
		rules.met(current, e, shown)
		if shown {
			r.Destinations = append(r.Destinations, rules.destination(e, current))
		}
	}
	slices.SortStableFunc(r.Destinations, func(a, b enforcedDestination) int {
		return cmp.Or(cmp.Compare(slices.Index(enforcedStates, a.State), slices.Index(enforcedStates, b.State)),
			-cmp.Compare(a.Refused+a.Deferred, b.Refused+b.Deferred), sooner(a.expiringFirst, b.expiringFirst))
	})
	r.Rules = rules.report()
	if b.Unreadable > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("records of the ledger that are damaged and left out: %d", b.Unreadable))
	}
	return r
}

// sooner sorts times; none comes last.
func sooner(a, b time.Time) int {
	switch {
	case a.Equal(b):
		return 0
	case a.IsZero() || !b.IsZero() && b.Before(a):
		return 1
	}
	return -1
}

func shownSince(e *ledger.Entry, since time.Time) bool {
	recent := func(t time.Time) bool { return !t.IsZero() && !t.Before(since.Truncate(time.Second)) }
	return recent(e.LastAsked) || recent(e.Changed) || e.Count.Refused+e.Count.Deferred > 0 ||
		slices.ContainsFunc(e.Hosts, func(h ledger.Host) bool { return recent(h.At) })
}

func (r *enforcedReport) findings() (n int) {
	for i := range r.Destinations {
		if r.Destinations[i].State.finding() {
			n++
		}
	}
	for i := range r.Rules {
		if r.Rules[i].State == ruleInert {
			n++
		}
	}
	return n
}

// enforcedRules are the rules of the configuration that demand TLS.
type enforcedRules struct {
	cfg   *Config
	now   time.Time
	inert map[*policy.Rule]string
	all   []*policy.Rule
	byID  map[string]*policy.Rule
	seen  map[*policy.Rule]*enforcedRule
}

func newEnforcedRules(cfg *Config, inert map[*policy.Rule]string, now time.Time) *enforcedRules {
	rs := &enforcedRules{cfg: cfg, now: now, inert: inert, byID: map[string]*policy.Rule{}, seen: map[*policy.Rule]*enforcedRule{}}
	all := cfg.Rules.All()
	for i := range all {
		r := &all[i]
		if !r.Demands() {
			continue
		}
		kept := keptRule(r)
		rs.all = append(rs.all, r)
		rs.seen[r] = &enforcedRule{ruleReport: reportRule(kept, rs.mode(r))}
		if before := rs.byID[kept.ID]; before == nil || before.Expired(now) {
			rs.byID[kept.ID] = r
		}
	}
	return rs
}

// mode is the weaker of the global and the rule's own (CMB-16).
func (rs *enforcedRules) mode(r *policy.Rule) policy.Mode {
	if r.Monitor {
		return policy.ModeMonitor
	}
	return rs.cfg.Mode
}

// of is the rule of the configuration that a destination is under now: the first that
// applies, else, since only its mail hosts may tell, the one that it was under. Nil: none
// demands TLS of it any more.
func (rs *enforcedRules) of(e *ledger.Entry) *policy.Rule {
	same := rs.byID[e.Rule.ID]
	k, err := policy.ParseKey(e.Name)
	if err != nil || e.Sender {
		return same
	}
	s := policy.Subject{Key: k, MXKnown: len(e.Hosts) > 0}
	for _, h := range e.Hosts {
		s.MX = append(s.MX, h.Host)
	}
	switch f := rs.cfg.Rules.Find(s, rs.now); {
	case f.Rule != nil && f.Rule.Demands():
		return f.Rule
	case f.Monitored != nil && f.Monitored.Demands():
		return f.Monitored
	case f.Rule != nil:
		return nil
	case same != nil && (same.Expired(rs.now) || f.NeedsMX && slices.ContainsFunc(same.Match, ofMailHosts)):
		return same
	case f.NeedsMX:
		return rs.alike(&e.Rule)
	}
	return nil
}

// alike is a rule that has a pattern of mail hosts in common with one that was changed.
func (rs *enforcedRules) alike(kept *ledger.Rule) *policy.Rule {
	for _, r := range rs.all {
		if !r.Expired(rs.now) && slices.ContainsFunc(kept.Match, func(m string) bool { return ofMailHosts(m) && slices.Contains(r.Match, m) }) {
			return r
		}
	}
	return nil
}

// ofMailHosts: the pattern is one of mail hosts.
func ofMailHosts(pattern string) bool { return strings.HasPrefix(pattern, "mx:") }

// met notes what mail a rule met.
func (rs *enforcedRules) met(r *policy.Rule, e *ledger.Entry, shown bool) {
	if r == nil {
		return
	}
	s := rs.seen[r]
	if last := e.LastAsked; !last.IsZero() && (s.LastAsked == nil || last.After(*s.LastAsked)) {
		s.LastAsked = &last
	}
	if shown {
		s.Destinations++
	}
}

// What a rule that is listed comes to.
const (
	ruleInUse   = "in use"
	ruleUnused  = "no mail to it yet"
	ruleQuiet   = "no mail to it since" // the time asked for
	ruleSenders = "a class of senders"  // of what mail they send nothing is kept but probes
	ruleInert   = "inert"
	ruleExpired = "expired"
)

func (rs *enforcedRules) report() []enforcedRule {
	list := make([]enforcedRule, 0, len(rs.all))
	for _, r := range rs.all {
		s := *rs.seen[r]
		switch {
		case r.Expired(rs.now):
			s.State = ruleExpired
		case rs.inert[r] != "":
			s.State, s.Why = ruleInert, "it does not bind: "+rs.inert[r]
		case s.Destinations > 0:
			s.State = ruleInUse
		case s.LastAsked != nil:
			s.State = ruleQuiet
		case len(r.Sender) > 0:
			s.State = ruleSenders
		default:
			s.State = ruleUnused
		}
		list = append(list, s)
	}
	return list
}

// weaker tells whether a level that was answered is less than any rule demands.
func weaker(level string) bool {
	l, err := tlspolicy.ParseLevel(level)
	return level == notAnswered || err == nil && l < tlspolicy.Encrypt
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
