package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// Emergency writes a static policy map in texthash form, for when the daemon
// cannot run: what row D4 of the decision table answers for every enforce
// policy, and the rules that a static map can express, in the grammar of the
// oldest supported Postfix. left names what it cannot. What known tells of the MX
// sets, by domain, decides about mx: rules; where it tells nothing they count as in
// an answer of which the MX set is unknown.
//
// Postfix looks for the whole key first and then for the parents, whatever the
// order of the lines; so each key gets the rule that is the first to match it.
func Emergency(all []HeldPolicy, known map[string]KnownMX, rules *Rules, o Options, now time.Time) (lines, left []string) {
	o.Capability = Plain
	m := emergency{known: known, rules: rules, options: o, now: now, done: map[string]bool{}, written: map[string]bool{}}
	for _, h := range all {
		m.policy(h)
	}
	for i := range rules.All() {
		m.rule(&rules.All()[i])
	}
	m.byMX()
	m.shadowed()
	if len(m.lines) > 0 || o.Floor != FloorInherit {
		m.leave("keys with a port or in brackets, as a transport map or relayhost gives them, are covered only where a rule names them")
	}
	if o.Floor != FloorInherit {
		m.leave(fmt.Sprintf("floor = %q: until the daemon is back, smtp_tls_security_level must be at least that", o.Floor))
	}
	slices.Sort(m.lines)
	return m.lines, m.left
}

type emergency struct {
	known   map[string]KnownMX
	rules   *Rules
	options Options
	now     time.Time
	done    map[string]bool // keys that were decided about
	written map[string]bool // keys of lines
	lines   []string
	left    []string
	without []string // keys that the daemon answers NOTFOUND
}

func (m *emergency) leave(what string) {
	if !slices.Contains(m.left, what) {
		m.left = append(m.left, what)
	}
}

// policy writes the line of a policy that is held.
func (m *emergency) policy(h HeldPolicy) {
	policy, _, err := mtasts.ParsePolicy([]byte(h.Body))
	k, keyErr := ParseKey(h.Domain)
	if err != nil || keyErr != nil || policy.Mode != mtasts.ModeEnforce || !h.ExpiresAt.IsZero() && !m.now.Before(h.ExpiresAt) {
		return
	}
	m.key(k, k.Name, Evidence{Policy: &policy, LastKnown: h.LastSeen.evidence(m.now)})
}

// rule writes the keys that a rule names.
func (m *emergency) rule(r *Rule) {
	if r.Monitor || r.Expired(m.now) {
		return
	}
	for _, match := range r.Match {
		p, err := parsePattern(match)
		if err != nil {
			continue // NewRules has refused it
		}
		switch p.kind {
		case matchMX, matchMXBelow:
			m.leave(match + ": a static map cannot see MX hosts; only domains whose MX hosts are known now get the rule (" + r.Source + ")")
		case matchParent:
			// The rule of a name below that no rule names.
			m.key(Key{Name: "*." + p.name, Port: 25}, match, Evidence{})
		default:
			m.named(match)
		}
	}
}

// byMX writes the domains that get a rule because of their MX set.
func (m *emergency) byMX() {
	for name := range m.known {
		k := Key{Name: name, Port: 25}
		if r := m.rules.Find(m.subject(k), m.now).Rule; r != nil && r != m.rules.Find(Subject{Key: k}, m.now).Rule {
			m.key(k, name, Evidence{})
		}
	}
}

// named writes a key as a rule names it; port 25 goes without saying, so Postfix
// may ask either way.
func (m *emergency) named(match string) {
	k, err := ParseKey(match)
	if err != nil {
		return
	}
	m.key(k, k.String(), Evidence{})
	if k.Port != 25 || !k.Brackets && !k.HasPort {
		return
	}
	for _, port := range []bool{false, true} {
		k.HasPort = port
		m.key(k, k.String(), Evidence{})
	}
}

// key decides about one key, by the rule that the daemon would find for it.
func (m *emergency) key(k Key, text string, e Evidence) {
	if m.done[text] {
		return
	}
	m.done[text] = true
	f := m.rules.Find(m.subject(k), m.now)
	e.Key, e.Rule, e.AtLeastEncrypt = k, f.Rule, f.AtLeastEncrypt
	e.DANE = dane.Evidence{MX: dane.MXSet{Err: "static map"}}
	if f.Rule != nil && f.Rule.Exempt&ExemptSTS != 0 {
		e.Policy = nil
	}
	d := Decide(e, m.options)
	switch {
	case !d.NotFound:
		m.write(text, d.Line)
	case f.Rule != nil:
		m.without = append(m.without, text)
	}
}

// subject describes a key to the rules.
func (m *emergency) subject(k Key) Subject {
	set, known := m.known[k.Name]
	return Subject{Key: k, MX: set.Hosts, MXSecure: set.Secure, MXKnown: known && len(set.Hosts) > 0}
}

// write puts a line into the map, in the grammar of every supported Postfix.
func (m *emergency) write(key string, line tlspolicy.Line) {
	old := tlspolicy.Version{}
	if err := line.Validate(old); err != nil {
		kept := tlspolicy.Line{Level: line.Level}
		for _, a := range line.Attrs {
			kept.Attrs = append(kept.Attrs, a)
			if kept.Validate(old) != nil {
				kept.Attrs = kept.Attrs[:len(kept.Attrs)-1]
			}
		}
		m.leave(fmt.Sprintf("%s: written without what only a newer Postfix understands: %v", key, err))
		if line = kept; line.Validate(old) != nil {
			return
		}
	}
	m.written[key] = true
	m.lines = append(m.lines, key+" "+line.String())
}

// shadowed names the keys that the daemon answers NOTFOUND, but for which Postfix
// would come upon the line of a parent.
func (m *emergency) shadowed() {
	for _, key := range m.without {
		if strings.ContainsAny(key, "[:") {
			continue // Postfix asks for these once, without parents
		}
		for parent := range parents(strings.TrimPrefix(key, ".")) {
			if m.written["."+parent] {
				m.leave(key + ": the line of ." + parent + " applies to it as well")
				break
			}
		}
	}
}
