package policy

import (
	"slices"
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// Evidence is all that Decide may know about a destination.
type Evidence struct {
	Key Key
	// Rule is the operator's rule that applies, nil without one.
	Rule *Rule
	// AtLeastEncrypt: the MX set is unknown and a rule that raises could still
	// apply to it; then nothing below encrypt is answered.
	AtLeastEncrypt bool
	// Policy is the MTA-STS policy in force: unexpired, mode enforce. Nil in all
	// other cases, the modes monitor and off of [mta_sts] included.
	Policy *mtasts.Policy
	// DANE is what is known of the mail hosts. Suspended is set also where
	// [dane] mode keeps DANE out of the answer (CMB-16).
	DANE dane.Evidence
	// LastKnown is the evidence that was last complete, if it is at most 7 days
	// old; row D4.A looks at it. Nil otherwise.
	LastKnown *dane.Evidence
	// Unanswered: a look-up failed that could have strengthened the answer.
	Unanswered bool
}

// raised: a rule makes TLS mandatory here.
func (e Evidence) raised() bool {
	return e.AtLeastEncrypt || e.Rule != nil && e.Rule.Line.Level == tlspolicy.Encrypt && e.Rule.Exempt == 0
}

// Floor is the answer when nothing stronger applies ([tls_policy] floor).
type Floor uint8

// The floors.
const (
	FloorInherit Floor = iota // NOTFOUND: main.cf decides
	FloorDANE
	FloorEncrypt
)

// MainLevel is what main.cf demands at least, of every smtp(8) service that
// asks us. It counts only under FloorInherit (CMB-15).
type MainLevel uint8

// The levels of main.cf that make a difference.
const (
	MainUpToDANE MainLevel = iota // none, may, dane; also: unknown
	MainEncrypt
	MainStronger // dane-only, fingerprint, verify, secure
)

// Capability is what the asking map's Postfix understands: the columns E+
// and E− of docs/decision-table.md.
type Capability uint8

// The capabilities.
const (
	Plain      Capability = iota // no STS attributes: before 3.10
	Attributes                   // STS attributes for reports only: 3.10.0 to 3.10.4
	Narrowing                    // mx_host_pattern= is enforced: from 3.10.5
)

// Options are what the operator and his Postfix set.
type Options struct {
	Floor      Floor
	Main       MainLevel
	Capability Capability
	// Mandatory: nothing goes in clear, whatever rule says so. It comes with
	// FloorEncrypt.
	Mandatory bool
}

// asWritten tells whether a rule is answered as the operator wrote it. Where TLS is
// mandatory none, may and dane are raised to encrypt, and like encrypt select the
// column; an exemption takes its mechanisms out of the column, and no more.
func (o Options) asWritten(r *Rule) bool { return r.asWritten() && !(o.Mandatory && r.Lowers()) }

// Row names a row of docs/decision-table.md, or what stood before it.
type Row string

// Rows of the decision table that are not the name of a class.
const (
	RowRule       Row = "rule" // the operator's rule, as written
	RowNone       Row = "none" // no destination that could have a policy
	RowNotNeeded  Row = "not needed"
	RowMismatch   Row = "MM"
	RowMismatchD1 Row = "MM.1"
)

// Decide gives the verdict: the operator's rule, then STS and DANE together, then
// the floor (CMB-00). It is pure: the same evidence gives the same bytes.
func Decide(e Evidence, o Options) Decision {
	if r := e.Rule; e.AtLeastEncrypt && r != nil && r.asWritten() && r.Lowers() {
		e.Rule = nil // a rule that raises stands before it and may yet apply
	}
	if e.Rule != nil && (o.asWritten(e.Rule) || e.Key.Literal && e.Rule.Exempt == 0 && !o.Mandatory) {
		line := e.Rule.Line
		if o.Capability == Plain {
			line.Attrs = withoutSTS(line.Attrs)
		}
		return Decision{Line: line, Row: RowRule, Source: SourceRule}
	}
	if e.Key.Literal {
		// RFC 8461 §3.4, RFC 7672 §2.2: an address has no policy.
		if o.Mandatory {
			c := column{Options: o, evidence: e}
			return c.floor(c.withRule(Decision{Line: level(tlspolicy.Encrypt), Row: RowNone}))
		}
		return Decision{NotFound: true, Row: RowNone, Source: SourceFloor}
	}
	c := column{Options: o, evidence: e, hosts: survey(e)}
	c.class = e.DANE.Class()
	if o.Floor != FloorInherit {
		c.Main = MainUpToDANE // an explicit floor does not ask main.cf
	}
	if e.raised() {
		// CMB-00: the level of a rule is a minimum, so encrypt selects a column.
		c.Floor = FloorEncrypt
	}
	if e.Policy != nil {
		return c.enforce()
	}
	return c.noSTS()
}

// column is one column of the table for one destination.
type column struct {
	Options
	evidence Evidence
	class    dane.Class
	hosts    hosts
}

// hosts are the host sets of docs/decision-table.md.
type hosts struct {
	mx       []string // MX
	matching []string // m(MX)
	usable   bool     // U ≠ ∅
	lacking  bool     // N ≠ ∅
	// lackingMatching is m(N).
	lackingMatching []string
	best            bool // B ≠ ∅
	bestUsable      bool // B∩U ≠ ∅
	mismatch        bool
}

// survey sorts the mail hosts into sets. Without a policy every host matches.
func survey(e Evidence) hosts {
	var h hosts
	reachable, reachableMatching := 0, 0
	var bestPreference uint16
	for i, x := range e.DANE.MX.Hosts {
		status := e.DANE.Status(i)
		matches := e.Policy == nil || e.Policy.Match(x.Name)
		h.mx = append(h.mx, x.Name)
		if matches {
			h.matching = append(h.matching, x.Name)
		}
		if status == dane.Unreachable {
			continue
		}
		reachable++
		if matches {
			reachableMatching++
		}
		if status == dane.Failed {
			continue
		}
		if status == dane.Usable {
			h.usable = true
		} else {
			h.lacking = true
			if matches {
				h.lackingMatching = append(h.lackingMatching, x.Name)
			}
		}
		if !matches {
			continue
		}
		// B: the best preference among the matching hosts that answered.
		if !h.best || x.Preference < bestPreference {
			h.best, h.bestUsable, bestPreference = true, false, x.Preference
		}
		if x.Preference == bestPreference && status == dane.Usable {
			h.bestUsable = true
		}
	}
	if reachable > 0 {
		h.mismatch = reachableMatching == 0
	} else {
		h.mismatch = len(h.mx) > 0 && len(h.matching) == 0
	}
	return h
}

// noSTS gives the columns without an enforced policy.
func (c column) noSTS() Decision {
	switch {
	case c.Floor == FloorInherit && c.Main == MainEncrypt:
		// CMB-15: main.cf's own encrypt serves as the reply encrypt.
		c.Floor = FloorEncrypt
		d := c.noSTS()
		if d.Line.Level == tlspolicy.Encrypt {
			return c.floor(Decision{NotFound: true, Row: d.Row})
		}
		return d
	case c.Main == MainStronger:
		// Nor may a rule's encrypt lower what main.cf demands.
		return c.floor(Decision{NotFound: true, Row: RowNotNeeded})
	case c.Floor == FloorDANE:
		return c.floor(Decision{Line: level(tlspolicy.Dane), Row: c.row()})
	}
	vouched := false // DANE has a say
	switch c.class {
	case dane.D1, dane.D2:
		vouched = true
		if c.Floor == FloorEncrypt {
			return c.withRule(Decision{Line: level(tlspolicy.DaneOnly), Row: c.row(), Source: SourceDANE})
		}
	case dane.D3:
		vouched = true
		if c.Floor == FloorEncrypt && c.hosts.usable {
			return c.withRule(Decision{Line: level(tlspolicy.DaneOnly), Row: c.row(), Source: SourceDANE})
		}
	case dane.D2u, dane.D5:
		vouched = true
	}
	if c.Floor == FloorEncrypt {
		// Never a dane-only that DANE does not give: a domain without TLSA
		// records would get no mail (rows D0, D2u, D5 of docs/decision-table.md).
		return c.floor(c.withRule(Decision{Line: level(tlspolicy.Encrypt), Row: c.row()}))
	}
	if vouched {
		return Decision{Line: level(tlspolicy.Dane), Row: c.row(), Source: SourceDANE}
	}
	return c.floor(Decision{NotFound: true, Row: c.row()})
}

// row names the row of the columns without STS.
func (c column) row() Row { return Row(c.class.String()) }

// floor marks d as the floor: nothing stronger was found, or nobody answered.
func (c column) floor(d Decision) Decision {
	d.Source = SourceFloor
	if c.evidence.Rule != nil || c.evidence.raised() {
		d.Source = SourceRule
	} else if c.evidence.Unanswered {
		d.Source = SourceError
	}
	return d
}

// enforce gives the columns with an enforced policy, the same for all floors.
func (c column) enforce() Decision {
	h, p := c.hosts, c.evidence.Policy
	mxKnown := c.evidence.DANE.MX.Err == ""
	if h.mismatch && c.class != dane.D4 && mxKnown {
		// CMB-12: fail closed by the published list, never the floor.
		if c.class == dane.D1 {
			return c.daneOnly(RowMismatchD1)
		}
		return c.secure(RowMismatch, nil, c.closed())
	}
	switch c.class {
	case dane.D1:
		return c.daneOnly("D1")
	case dane.D2:
		if h.bestUsable {
			return c.daneOnly("D2.A")
		}
		return c.secure("D2.B", h.lackingMatching, nil)
	case dane.D3:
		return c.enforceD3()
	case dane.D4:
		if c.lastOnDANE() {
			return c.daneOnly("D4.A")
		}
		return c.secure("D4.B", nil, p.MX)
	}
	if !mxKnown {
		return c.secure(c.row(), nil, p.MX) // row DX with the MX set unknown
	}
	// D0, D2u, D5, DX: DANE has no authority over the names.
	return c.secure(c.row(), nil, h.matching)
}

// noSuchHost is for match= when nothing may match: RFC 2606 keeps the name free.
const noSuchHost = "mx-not-in-policy.invalid"

// closed is the published list of a policy that names none of the hosts, for a
// Postfix that takes ".example.com" for any depth: without the patterns below
// which one of these hosts is, two labels deep, since that one's own certificate
// would satisfy them (STS-072). An exact name stays: whoever has its key could
// also have forged its address, and passes RFC 8461 §4 anyway.
func (c column) closed() []string {
	var list []string
	for _, pattern := range c.evidence.Policy.MX {
		parent, wild := strings.CutPrefix(pattern, "*")
		if !wild || !slices.ContainsFunc(c.hosts.mx, func(host string) bool { return strings.HasSuffix(host, parent) }) {
			list = append(list, pattern)
		}
	}
	if len(list) == 0 {
		return []string{noSuchHost}
	}
	return list
}

// enforceD3 leaves out the hosts whose look-up failed (RFC 7672 §2.1.2) and
// classifies the rest.
func (c column) enforceD3() Decision {
	h := c.hosts
	switch {
	case h.best && h.bestUsable:
		return c.daneOnly("D3.A")
	case h.best && h.usable:
		return c.secure("D3.B", h.lackingMatching, nil)
	case !h.usable && len(h.lackingMatching) > 0:
		return c.secure("D3.C", h.lackingMatching, nil)
	}
	// Postfix asks again by itself and logs the true reason: TLSA lookup error.
	return c.daneOnly("D3.D")
}

// lastOnDANE: when it was last seen, the best matching host had usable TLSA.
func (c column) lastOnDANE() bool {
	last := c.evidence.LastKnown
	return last != nil && survey(Evidence{Policy: c.evidence.Policy, DANE: *last}).bestUsable
}

func level(l tlspolicy.Level) tlspolicy.Line { return tlspolicy.Line{Level: l} }

// withRule carries the attributes of an encrypt rule (protocols, ciphers, …)
// over to the stronger answer: they are a demand too. What it says about a policy
// to report gives way to the policy that is enforced: Postfix refuses a line with
// one of these attributes twice (PFX-06).
func (c column) withRule(d Decision) Decision {
	if r := c.evidence.Rule; r != nil {
		attrs := r.Line.Attrs
		if c.Capability == Plain || c.evidence.Policy != nil {
			attrs = withoutSTS(attrs)
		}
		for _, a := range attrs {
			if a.Name != "servername" || d.Line.Level == tlspolicy.Encrypt {
				d.Line.Attrs = append(d.Line.Attrs, a)
			}
		}
	}
	return d
}

// withoutSTS leaves out the attributes about an MTA-STS policy.
func withoutSTS(attrs []tlspolicy.Attr) []tlspolicy.Attr {
	if !slices.ContainsFunc(attrs, tlspolicy.Attr.STS) {
		return attrs
	}
	return slices.DeleteFunc(slices.Clone(attrs), tlspolicy.Attr.STS)
}

// sortedUnique sorts bytewise and drops duplicates (PFX-16).
func sortedUnique(names []string) []string {
	s := slices.Clone(names)
	slices.Sort(s)
	return slices.Compact(s)
}

// asWritten: verify, secure, fingerprint and dane-only, and what lowers (none,
// may, dane), are answered as the operator wrote them.
func (r *Rule) asWritten() bool { return r.Exempt == 0 && r.Line.Level != tlspolicy.Encrypt }
