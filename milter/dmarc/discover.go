package dmarc

import (
	"context"
	"fmt"
)

// TXT returns the TXT records at a name, each joined and unescaped. No records,
// whether the name exists or not, is empty and no error; nxdomain tells that the
// name does not exist. An error means that nobody answered.
type TXT func(ctx context.Context, name string) (records []string, nxdomain bool, err error)

// Discoverer asks the DNS. TXT must be set.
type Discoverer struct {
	TXT TXT
	// Exists tells whether the domain is in the DNS at all (RFC 9989 §3.2.13,
	// RFC 8020). Nil: the answer of TXT for the domain itself tells.
	Exists func(ctx context.Context, domain string) (bool, error)
}

// Reading is what one of the two standards makes of the records.
type Reading struct {
	// Found: a record applies.
	Found bool
	// At is the domain that publishes it, Record the record. Both may be set
	// although none applies: then Why says why not.
	At     string
	Record Record
	// Policy is the effective one: sp=, np= and t= applied. Absent when none is
	// found.
	Policy Policy
	Why    string
	// Err: nobody answered, so that the rest says nothing.
	Err error
}

// Discovery is what applies to mail of an author's domain.
type Discovery struct {
	// Domain is the author's, in lower case and A-labels; empty when it can be no
	// name in the DNS, and then nothing was asked.
	Domain string
	// RFC9989 and RFC7489 are the two readings.
	RFC9989, RFC7489 Reading
	// Nonexistent: the domain was asked about, because of np=, and does not exist.
	Nonexistent bool
}

// Found tells whether a record applies by one of the readings.
func (d *Discovery) Found() bool { return d.RFC9989.Found || d.RFC7489.Found }

// Applied is the reading to show: that of RFC 9989, or of RFC 7489 where only
// that one finds a record.
func (d *Discovery) Applied() *Reading {
	if !d.RFC9989.Found && d.RFC7489.Found {
		return &d.RFC7489
	}
	return &d.RFC9989
}

// StrictDKIM tells whether any reading asks for strict alignment of DKIM: mail
// must pass by both.
func (d *Discovery) StrictDKIM() bool {
	return d.RFC9989.Found && d.RFC9989.Record.StrictDKIM || d.RFC7489.Found && d.RFC7489.Record.StrictDKIM
}

// StrictSPF is the same for SPF.
func (d *Discovery) StrictSPF() bool {
	return d.RFC9989.Found && d.RFC9989.Record.StrictSPF || d.RFC7489.Found && d.RFC7489.Record.StrictSPF
}

// Err is the first error of the readings: nobody answered.
func (d *Discovery) Err() error {
	if d.RFC9989.Err != nil {
		return d.RFC9989.Err
	}
	return d.RFC7489.Err
}

// Trouble says in one sentence why a part of the receivers reads the records
// otherwise, or why there is a record and none applies; empty when all find the
// same record. They may still differ in its policy: np= and t= are new.
func (d *Discovery) Trouble() string {
	newer, older := &d.RFC9989, &d.RFC7489
	switch {
	case newer.Err != nil || older.Err != nil:
		return ""
	case newer.Found && older.Found && newer.Record.Strict7489 != "":
		return fmt.Sprintf("the DMARC record of %s is not by RFC 7489: %s", newer.At, newer.Record.Strict7489)
	case newer.Found && !older.Found:
		return fmt.Sprintf("receivers that follow RFC 7489 find no DMARC record, those that follow RFC 9989 find that of %s: %s", newer.At, older.why())
	case older.Found && !newer.Found:
		return fmt.Sprintf("receivers that follow RFC 9989 find no DMARC record, those that follow RFC 7489 find that of %s: %s", older.At, newer.why())
	case newer.Found && newer.Record.InvalidNP:
		return fmt.Sprintf("the DMARC record of %s counts as p=none for a part of the receivers: np= has no valid value", newer.At)
	case newer.Found && newer.At != older.At:
		return fmt.Sprintf("receivers find two DMARC records: that of %s by RFC 9989, that of %s by RFC 7489", newer.At, older.At)
	case newer.Found:
		return ""
	case newer.Why != "":
		return newer.Why
	}
	return older.Why
}

func (r *Reading) why() string {
	if r.Why == "" {
		return "there is none where they look"
	}
	return r.Why
}

// Discover finds what applies to mail of an author's domain, RFC 9989 §4.10.1
// and RFC 7489 §6.6.3. The domain may have U-labels and a trailing dot. When the
// domain publishes a record itself, one question is enough (RFC 9989 §4.10.2).
func (d *Discoverer) Discover(ctx context.Context, domain string) Discovery {
	found := Discovery{Domain: name(domain)}
	if found.Domain == "" {
		return found
	}
	a := asker{d: d, ctx: ctx, seen: map[string]published{}}
	own := a.at(found.Domain)
	if own.err != nil {
		found.RFC9989.Err, found.RFC7489.Err = own.err, own.err
		return found
	}
	if own.found {
		found.RFC9989 = apply9989(found.Domain, own.record, found.Domain, nil)
	} else {
		found.RFC9989, found.Nonexistent = a.inherit9989(found.Domain)
	}
	found.RFC7489 = a.read7489(found.Domain, own)
	return found
}

// inherit9989 takes the record of the organizational domain, or else that of the
// public suffix domain, RFC 9989 §4.10.1.
func (a *asker) inherit9989(domain string) (r Reading, nonexistent bool) {
	w := a.walk(domain)
	if w.err != nil {
		return Reading{Err: w.err}, false
	}
	at := w.organization()
	record, ok := w.records[at]
	if !ok && w.suffix != "" {
		at = w.suffix
		record, ok = w.records[at]
	}
	if !ok {
		return Reading{Why: w.why}, false
	}
	var missing bool
	if record.differsForMissing() {
		exists, err := a.exists(domain)
		if err != nil {
			return Reading{Err: err}, false
		}
		missing = !exists
	}
	return apply9989(at, record, domain, &missing), missing
}

// apply9989 gives the effective policy. Missing is nil where the record is the
// domain's own.
func apply9989(at string, record Record, domain string, missing *bool) Reading {
	r := Reading{At: at, Record: record}
	// RFC 9989 §4.10.1: a record without a valid p=, or with sp= or np= that are
	// not valid, counts as p=none if it asks for reports, and not at all otherwise.
	if record.P == Absent || record.InvalidSP || record.InvalidNP {
		if !record.Reports {
			r.Why = fmt.Sprintf("the DMARC record of %s has no valid policy and no valid rua=: add p=none", at)
			return r
		}
		r.Found, r.Policy = true, None
		return r
	}
	r.Found, r.Policy = true, record.P
	if at != domain {
		if record.SP != Absent {
			r.Policy = record.SP
		}
		if record.NP != Absent && missing != nil && *missing {
			r.Policy = record.NP
		}
	}
	if record.Testing {
		r.Policy = r.Policy.lower()
	}
	return r
}

// lower: RFC 9989 §4.7, t=y applies the policy one level below.
func (p Policy) lower() Policy {
	if p > None {
		return p - 1
	}
	return p
}

// differsForMissing tells whether it matters that a subdomain does not exist.
func (r *Record) differsForMissing() bool {
	existing := r.SP
	if existing == Absent {
		existing = r.P
	}
	return r.NP != Absent && r.NP != existing && r.P != Absent && !r.InvalidSP && !r.InvalidNP
}

// read7489: RFC 7489 §6.6.3, the author's domain, else the organizational one by
// the list.
func (a *asker) read7489(domain string, own published) Reading {
	at, have := domain, own
	if org, _ := organization(domain); !own.found && !own.many && org != "" && org != domain {
		at, have = org, a.at(org)
	}
	switch {
	case have.err != nil:
		return Reading{Err: have.err}
	case have.many:
		// RFC 7489 §6.6.3, step 5: several records, no DMARC.
		return Reading{Why: fmt.Sprintf("%s has several DMARC records: remove all but one", at)}
	case !have.found:
		return Reading{}
	}
	return apply7489(at, have.record, domain)
}

func apply7489(at string, record Record, domain string) Reading {
	r := Reading{At: at, Record: record}
	// RFC 7489 §6.6.3, step 6: no valid p=, or sp= not valid.
	if record.P == Absent || record.InvalidSP {
		if !record.Reports {
			r.Why = fmt.Sprintf("the DMARC record of %s has no valid policy and no valid rua=: add p=none", at)
			return r
		}
		r.Found, r.Policy = true, None
		return r
	}
	r.Found, r.Policy = true, record.P
	if at != domain && record.SP != Absent {
		r.Policy = record.SP
	}
	return r
}

// exists: RFC 8020, no name at all.
func (a *asker) exists(domain string) (bool, error) {
	if a.d.Exists != nil {
		return a.d.Exists(a.ctx, domain)
	}
	if a.seen[domain].answered { // where a name below exists, the domain does
		return true, nil
	}
	_, nxdomain, err := a.d.TXT(a.ctx, domain)
	if err != nil {
		return false, fmt.Errorf("TXT %s: %w", domain, err)
	}
	return !nxdomain, nil
}

// published is what is at one _dmarc name.
type published struct {
	record   Record
	found    bool // exactly one record
	many     bool
	answered bool // the name exists
	err      error
}

// asker remembers the answers of one discovery, so that no name is asked for
// twice.
type asker struct {
	d    *Discoverer
	ctx  context.Context
	seen map[string]published
}

// at asks for the record of a domain.
func (a *asker) at(domain string) published {
	if p, ok := a.seen[domain]; ok {
		return p
	}
	p := a.ask(domain)
	a.seen[domain] = p
	return p
}

func (a *asker) ask(domain string) published {
	if len(prefix)+len(domain) > maxName {
		return published{} // there is no room for a record
	}
	if err := a.ctx.Err(); err != nil {
		return published{err: fmt.Errorf("TXT %s%s: %w", prefix, domain, err)}
	}
	txts, nxdomain, err := a.d.TXT(a.ctx, prefix+domain)
	if err != nil {
		return published{err: fmt.Errorf("TXT %s%s: %w", prefix, domain, err)}
	}
	p := published{answered: !nxdomain}
	var one string
	for _, txt := range txts {
		// RFC 9989 §4.10, step 2: records of another kind are discarded. Equal
		// records are one (RFC 2181 §5).
		if !IsRecord(txt) || p.found && txt == one {
			continue
		}
		p.many = p.many || p.found
		p.found, one = true, txt
	}
	if p.many {
		p.found = false // all are discarded
		return p
	}
	if p.found {
		p.record, err = ParseRecord(one)
		p.found = err == nil
	}
	return p
}
