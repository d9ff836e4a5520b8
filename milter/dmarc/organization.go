package dmarc

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// maxQueries of one walk, RFC 9989 §4.10.
const maxQueries = 8

// Suffix tells public suffixes from domains of somebody.
type Suffix uint8

// The kinds. A single label that the list does not have counts as a registry.
const (
	NoSuffix Suffix = iota
	ICANN           // a registry: com, co.uk
	Private         // the names below belong to customers: github.io
)

// Organization is what is known about the organizational domain of a domain.
type Organization struct {
	// Domain in lower case and A-labels; empty when it can be no name in the DNS,
	// and then nothing was asked.
	Domain string
	// PSL is by the public suffix list, RFC 7489 §3.2: the suffix and one label.
	// Empty for a suffix.
	PSL    string
	Suffix Suffix
	// Walk is by the tree walk, RFC 9989 §4.10.2. A domain without any record on
	// its way up is its own. Empty when Err is set.
	Walk string
	// Queries is how many records the walk looked for, at most 8.
	Queries int
	// Err: nobody answered, so that the walk says nothing. PSL holds.
	Err error
}

// Organization gives both organizational domains of a domain, which may have
// U-labels and a trailing dot.
func (d *Discoverer) Organization(ctx context.Context, domain string) Organization {
	o := Organization{Domain: name(domain)}
	if o.Domain == "" {
		return o
	}
	o.PSL, o.Suffix = organization(o.Domain)
	a := asker{d: d, ctx: ctx, seen: map[string]published{}}
	w := a.walk(o.Domain)
	if o.Queries, o.Err = w.queries, w.err; w.err == nil {
		o.Walk = w.organization()
	}
	return o
}

// List gives the organizational domain by the public suffix list alone, without
// a question: Walk stays empty.
func List(domain string) Organization {
	o := Organization{Domain: name(domain)}
	if o.Domain != "" {
		o.PSL, o.Suffix = organization(o.Domain)
	}
	return o
}

// Names returns the names of the records that a walk from the domain may look
// for, _dmarc label included, in order: at most 8, to warm a cache.
func Names(domain string) []string {
	var names []string
	for target := name(domain); target != "" && len(names) < maxQueries; target = next(target, len(names)) {
		if len(prefix)+len(target) <= maxName {
			names = append(names, prefix+target)
		}
	}
	return names
}

// NeedsWalk tells whether alignment of a domain with the author's depends on
// organizational domains by the walk, RFC 9989 §4.10.2: not when no record
// applies, when it asks for strict alignment, or when both are one domain that
// publishes a record. Strict is Record.StrictDKIM or StrictSPF of what applies.
func (d *Discovery) NeedsWalk(domain string, strict bool) bool {
	return d.RFC9989.Found && !strict && (name(domain) != d.Domain || d.RFC9989.At != d.Domain)
}

// organization: the largest matching public suffix and one label, RFC 7489 §3.2.
func organization(domain string) (string, Suffix) {
	suffix, icann := publicsuffix.PublicSuffix(domain)
	if suffix != domain {
		return below(domain, suffix), NoSuffix
	}
	if icann || !strings.Contains(suffix, ".") {
		return "", ICANN
	}
	return "", Private
}

// walk is what a tree walk found.
type walk struct {
	start   string
	names   []string // with a record, from the longest to the shortest
	records map[string]Record
	suffix  string // that with psd=y
	queries int
	why     string // something that looks like a record but is none
	err     error
}

// walk goes up the tree from domain, RFC 9989 §4.10.
func (a *asker) walk(domain string) walk {
	w := walk{start: domain, records: map[string]Record{}}
	for target := domain; target != "" && w.queries < maxQueries; target = next(target, w.queries) {
		w.queries++
		p := a.at(target)
		switch {
		case p.err != nil:
			w.err = p.err
			return w
		case p.many && w.why == "":
			w.why = fmt.Sprintf("%s has several DMARC records: remove all but one", target)
		}
		if !p.found {
			continue
		}
		w.names = append(w.names, target)
		w.records[target] = p.record
		if p.record.PSD == PublicSuffix {
			w.suffix = target
		}
		if p.record.PSD != Unspecified {
			break // steps 2 and 6: psd=y and psd=n end the walk
		}
	}
	return w
}

// next: step 4 after the first query, a name of 8 labels and more is cut to 7;
// step 7 otherwise, one label less.
func next(target string, queries int) string {
	if queries == 1 && strings.Count(target, ".")+1 >= maxQueries {
		return last(target, maxQueries-1)
	}
	return parent(target)
}

// organization selects among the records, RFC 9989 §4.10.2.
func (w *walk) organization() string {
	org := w.start // no record: the domain itself
	for _, at := range w.names {
		switch psd := w.records[at].PSD; {
		case psd == Organizational:
			return at
		case psd == PublicSuffix && at != w.start:
			return below(w.start, at)
		}
		org = at // else that with the fewest labels
	}
	return org
}
