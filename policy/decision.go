package policy

import (
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// MaxReply bounds a reply. Postfix refuses more than 100000 bytes, and what it
// leaves unread desynchronises the connection (socketmap_max_reply_size).
const MaxReply = 90_000

// Source says where an answer comes from. The texts are part of `explain --json`.
type Source string

// The sources.
const (
	SourceRule    Source = "rule"
	SourceDANE    Source = "dane"
	SourceSTS     Source = "sts"
	SourceDANESTS Source = "dane+sts"
	SourceFloor   Source = "floor"
	SourceError   Source = "error" // the floor, because nobody answered
)

// Decision is a verdict in Postfix's terms.
type Decision struct {
	// NotFound: Postfix goes on to its next map and then to main.cf. Line is
	// zero then.
	NotFound bool
	Line     tlspolicy.Line
	Row      Row
	Source   Source
}

// Level is the level answered, or "NOTFOUND".
func (d Decision) Level() string {
	if d.NotFound {
		return "NOTFOUND"
	}
	return d.Line.Level.String()
}

// String is the socketmap reply: "OK " and a line in the grammar of
// smtp_tls_policy_maps, or "NOTFOUND " with its trailing space.
func (d Decision) String() string {
	if d.NotFound {
		return "NOTFOUND "
	}
	return "OK " + d.Line.String()
}

// Mismatch: the policy names none of the hosts (CMB-12).
func (d Decision) Mismatch() bool { return d.Row == RowMismatch || d.Row == RowMismatchD1 }

// secure builds SEC+ or SEC- of docs/decision-table.md. With narrowed nil the
// published patterns hold (SEC+(P)), and exact is what a Postfix that does not
// compare MX names is told instead (SEC−): host names, which keep the one-label rule
// of `*.`, or the published patterns where the hosts are unknown.
func (c column) secure(row Row, narrowed, exact []string) Decision {
	d := Decision{Row: row, Source: SourceSTS}
	patterns := c.evidence.Policy.MX
	if narrowed != nil {
		d.Source = SourceDANESTS
		patterns, exact = sortedUnique(narrowed), narrowed
	}
	if len(exact) == 0 {
		exact = patterns // STS-072: no match= at all would be refused, the floor would be weaker
	}
	match := exact
	if c.Capability == Narrowing {
		match = patterns
	}
	reporting := patterns
	if c.Capability == Attributes {
		// Column E−: appended for reporting, with what was published.
		reporting = c.evidence.Policy.MX
	}
	d.Line = c.secureLine(match, reporting, c.evidence.Policy.Lines)
	if c.Capability == Plain || len(d.Line.String()) <= MaxReply {
		return d
	}
	// STS-061: first without the policy's text, then by the exact hosts.
	d.Line = c.secureLine(match, reporting, nil)
	if len(d.Line.String()) > MaxReply {
		if len(c.hosts.matching) > 0 {
			match = sortedUnique(c.hosts.matching)
		}
		d.Line = c.secureLine(match, match, nil)
	}
	if len(d.Line.String()) > MaxReply {
		plain := c
		plain.Capability = Plain
		d.Line = plain.secureLine(match, nil, nil)
	}
	return d
}

// secureLine writes one line: level match servername (rule's attributes)
// policy_type policy_domain mx_host_pattern… policy_string… (RPT-013).
func (c column) secureLine(match, patterns, text []string) tlspolicy.Line {
	d := c.withRule(Decision{Line: tlspolicy.Line{Level: tlspolicy.Secure, Attrs: []tlspolicy.Attr{
		{Name: "match", Value: postfixMatch(match)},
		// RFC 8461 §7.1: SNI must be sent, and Postfix sends none at secure without it.
		{Name: "servername", Value: "hostname"},
	}}})
	if c.Capability == Plain {
		return d.Line
	}
	d.Line.Attrs = c.appendSTS(d.Line.Attrs, patterns)
	for _, line := range text {
		d.Line.Attrs = append(d.Line.Attrs, tlspolicy.Attr{Name: "policy_string", Value: line})
	}
	return d.Line
}

// daneOnly builds DO+ or DO: dane-only, with the policy's MX filter where
// Postfix enforces it (CMB-05). Never with match=, which Postfix refuses there.
func (c column) daneOnly(row Row) Decision {
	d := c.withRule(Decision{Line: level(tlspolicy.DaneOnly), Row: row, Source: SourceDANESTS})
	if c.Capability == Narrowing {
		if attrs := c.appendSTS(d.Line.Attrs, c.evidence.Policy.MX); len(tlspolicy.Line{Attrs: attrs}.String()) <= MaxReply {
			d.Line.Attrs = attrs
		}
	}
	return d
}

func (c column) appendSTS(attrs []tlspolicy.Attr, patterns []string) []tlspolicy.Attr {
	attrs = append(attrs,
		tlspolicy.Attr{Name: "policy_type", Value: "sts"},
		tlspolicy.Attr{Name: "policy_domain", Value: c.evidence.Key.Name})
	for _, p := range patterns {
		attrs = append(attrs, tlspolicy.Attr{Name: "mx_host_pattern", Value: p})
	}
	return attrs
}

// postfixMatch writes patterns for match=: `*.example.com` becomes
// `.example.com`, because Postfix takes the former for a certificate that
// holds a literal wildcard (STS-071). Sorted bytewise, without duplicates.
func postfixMatch(patterns []string) string {
	m := make([]string, len(patterns))
	for i, p := range patterns {
		m[i] = strings.TrimPrefix(p, "*")
	}
	return strings.Join(sortedUnique(m), ":")
}
