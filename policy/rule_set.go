package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Rules are the operator's rules in file order, compiled. They are immutable and
// may be used by many goroutines; nil stands for none.
type Rules struct {
	rules []Rule
	// The numbers of the rules by pattern, each list in file order.
	name, parent map[string][]int32
	port, host   map[hostPort][]int32
	mx, mxBelow  map[string][]int32
	sender       map[string][]int32 // by senderAddress.key
	// The rules with an mx: pattern, in file order: the enforced ones that raise
	// and that lower, and those that are monitored.
	mxRaising, mxLowering, mxMonitored []int32
	ends                               []time.Time // every Until, sorted, each once
	warnings                           []RuleWarning
}

type hostPort struct {
	name string
	port uint16
}

// RuleWarning is something about a rule that is allowed, but hardly meant.
type RuleWarning struct {
	Source string
	Text   string
}

func (w RuleWarning) String() string { return w.Source + ": " + w.Text }

// maxRules bounds the number of rules; a hundred times what a large site has.
const maxRules = 1_000_000

// NewRules compiles rules, which it copies. Their patterns are checked again, so that
// rules which did not come from ParseRule are held to the same grammar.
func NewRules(rules []Rule) (*Rules, error) {
	if len(rules) > maxRules {
		return nil, fmt.Errorf("%d rules: at most %d", len(rules), maxRules)
	}
	rs := &Rules{
		rules: make([]Rule, len(rules)),
		name:  map[string][]int32{}, parent: map[string][]int32{},
		port: map[hostPort][]int32{}, host: map[hostPort][]int32{},
		mx: map[string][]int32{}, mxBelow: map[string][]int32{}, sender: map[string][]int32{},
	}
	var errs []error
	for i := range rules {
		rs.rules[i] = rules[i].clone()
		if err := rs.add(int32(i)); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(rs.ends, time.Time.Compare)
	rs.ends = slices.CompactFunc(rs.ends, time.Time.Equal)
	return rs, nil
}

func (rs *Rules) add(n int32) error {
	r := &rs.rules[n]
	overMX := false
	for _, note := range r.notes {
		rs.warnings = append(rs.warnings, RuleWarning{r.Source, note})
	}
	for i, text := range r.Match {
		p, err := parsePattern(text)
		if err != nil {
			err.Source, err.Field = r.Source, fmt.Sprintf("match[%d]", i)
			return err
		}
		r.Match[i] = p.text
		if shadow := rs.shadow(p, r); shadow != none {
			rs.warnings = append(rs.warnings, RuleWarning{r.Source,
				fmt.Sprintf("match %q is never reached: %s matches it before", p.text, rs.rules[shadow].place())})
		}
		rs.index(p, n)
		overMX = overMX || p.kind == matchMX || p.kind == matchMXBelow
	}
	if overMX {
		list := rs.mxList(r)
		*list = append(*list, n)
	}
	if err := rs.addSender(n); err != nil {
		return err
	}
	if !r.Until.IsZero() {
		rs.ends = append(rs.ends, r.Until)
	}
	return nil
}

func (rs *Rules) mxList(r *Rule) *[]int32 {
	switch {
	case r.Monitor:
		return &rs.mxMonitored
	case r.Lowers():
		return &rs.mxLowering
	}
	return &rs.mxRaising
}

// index enters a pattern of rule n; a pattern given twice in one rule counts once.
func (rs *Rules) index(p pattern, n int32) {
	switch p.kind {
	case matchName:
		enter(rs.name, p.name, n)
	case matchParent:
		enter(rs.parent, p.name, n)
	case matchPort:
		enter(rs.port, hostPort{p.name, p.port}, n)
	case matchHost:
		enter(rs.host, hostPort{p.name, p.port}, n)
	case matchMX:
		enter(rs.mx, p.name, n)
	case matchMXBelow:
		enter(rs.mxBelow, p.name, n)
	}
}

func enter[K comparable](m map[K][]int32, key K, n int32) {
	if list := m[key]; len(list) == 0 || list[len(list)-1] != n {
		m[key] = append(list, n)
	}
}

// shadow finds an earlier rule that leaves nothing for the pattern p of r, or none.
func (rs *Rules) shadow(p pattern, r *Rule) int32 {
	first := int32(none)
	look := func(list []int32, counts func(*Rule) bool) {
		for _, n := range list {
			if s := &rs.rules[n]; s != r && s.permanent() && counts(s) {
				first = min(first, n)
				return
			}
		}
	}
	always := func(*Rule) bool { return true }
	// A raising rule applies if any host matches, so it takes all that a later
	// one could get; a lowering one leaves the sets of which only some match.
	raising := func(s *Rule) bool { return !s.Lowers() || r.Lowers() && len(s.Match) == 1 && len(r.Match) == 1 }
	switch p.kind {
	case matchName, matchPort:
		look(rs.name[p.name], always)
		if p.kind == matchPort {
			look(rs.port[hostPort{p.name, p.port}], always)
		}
	case matchParent:
		look(rs.parent[p.name], always)
	case matchHost:
		look(rs.host[hostPort{p.name, p.port}], always)
	case matchMX:
		look(rs.mx[p.name], raising)
	case matchMXBelow:
		look(rs.mxBelow[p.name], raising)
	}
	for parent := range parents(p.name) {
		switch p.kind {
		case matchName, matchPort, matchParent:
			look(rs.parent[parent], always)
		case matchMX, matchMXBelow:
			look(rs.mxBelow[parent], raising)
		}
	}
	return first
}

func (r *Rule) place() string { return cmp.Or(r.Source, "an earlier rule") }

// All lists the rules in file order. The caller must not change them.
func (rs *Rules) All() []Rule {
	if rs == nil {
		return nil
	}
	return rs.rules
}

// Warnings lists, in file order, the patterns that are never reached because an
// earlier rule matches first, and keys without effect.
func (rs *Rules) Warnings() []RuleWarning {
	if rs == nil {
		return nil
	}
	return rs.warnings
}
