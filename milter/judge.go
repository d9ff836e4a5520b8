package milter

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter/align"
	"github.com/postseal/postseal/milter/dkim"
	"github.com/postseal/postseal/milter/dmarc"
)

// prefer: signatures of ours are verified first when there are too many.
func (s *state) prefer(domain string) bool { return s.Senders.Restricted() && s.Senders.Ours(domain) }

// key looks up the record of a DKIM key.
func (i *Inspector) key(ctx context.Context, name string) ([]string, error) {
	r, err := i.lookups.TXT(ctx, name)
	result := "found"
	switch {
	case err != nil:
		result = "error"
	case len(r.Values) == 0:
		result = "none"
	}
	i.metrics.keys.WithLabelValues(result).Inc()
	return r.Values, err
}

// discoverer finds DMARC records and organizational domains.
func (i *Inspector) discoverer() *dmarc.Discoverer {
	return &dmarc.Discoverer{TXT: func(ctx context.Context, name string) ([]string, bool, error) {
		r, err := i.lookups.TXT(ctx, name)
		return r.Values, r.NXDomain, err
	}}
}

// warm begins the look-ups that the end of the message will need, so that they go
// on while the body comes in. What is remembered costs nothing.
func (x *Inspection) warm() {
	l := x.inspector.lookups
	for _, name := range x.dkim.Keys() {
		l.WarmTXT(name)
	}
	if d := x.author.Domain; d != "" {
		l.warmReceive(d)
		for _, name := range dmarc.Names(d) {
			l.WarmTXT(name)
		}
	}
	for _, egress := range x.spfSubjects() {
		l.spf.start(egress.key(), l.spfCheck(egress.domain, egress.address))
	}
}

// spfSubject is a domain with an address that its mail leaves from.
type spfSubject struct {
	domain  string
	address netip.Addr
}

func (s spfSubject) key() string { return s.domain + " " + s.address.String() }

// spfSubjects: DM-015: the null sender has no domain of its own; DKIM alone counts.
func (x *Inspection) spfSubjects() []spfSubject {
	_, domain, ok := cutLast(x.envelope.Mailer, '@')
	if domain = align.Domain(domain); !ok || domain == "" {
		return nil
	}
	all := make([]spfSubject, 0, len(x.state.Egress))
	for _, a := range x.state.Egress {
		all = append(all, spfSubject{domain, a})
	}
	return all
}

// evidence gathers all that the verdict rests on.
func (x *Inspection) evidence(ctx context.Context) (*align.Message, []dkim.Result, dmarc.Discovery) {
	results := x.dkim.Finish(ctx)
	d := x.inspector.discoverer()
	m := &align.Message{
		Fields: x.fields, Author: x.author, Now: time.Now(),
		MailFrom: x.envelope.MailFrom, NullSender: x.nullSender(),
		Forwarded:         x.state.Senders.Forwarder(x.envelope.Client),
		DomainsConfigured: x.state.Senders.Restricted(), AuthorOurs: true, UTF8: x.envelope.UTF8,
		EightBitBody: x.body.eightBit, LongLine: max(x.body.longest, longestLine(x.fields)), BodyInvalid: x.body.invalid(),
		HeaderCut: x.headerCut, BodyCut: x.bodyCut,
		Organizations: map[string]align.Organization{},
	}
	x.maySend(m)
	if s := x.inspector.seen; s != nil {
		m.SignedBefore = s.Signed(x.author.Domain)
	}
	var found dmarc.Discovery
	if x.author.Domain != "" {
		m.AuthorHost = x.authorHost(ctx)
		found = d.Discover(ctx, x.author.Domain)
		m.DMARC = discovered(&found)
		x.organization(ctx, d, m, x.author.Domain)
	}
	for i := range results {
		m.Signatures = append(m.Signatures, x.signature(&results[i]))
		if results[i].Domain != "" {
			x.organization(ctx, d, m, results[i].Domain)
		}
	}
	for _, s := range x.spfResults(ctx) {
		m.SPF = append(m.SPF, s)
		x.organization(ctx, d, m, s.Domain)
	}
	return m, results, found
}

// maySend asks the list of who may use which address, for each author.
func (x *Inspection) maySend(m *align.Message) {
	for _, a := range x.author.Addresses {
		switch v := x.state.Senders.MayUse(x.envelope.Client, a.String()); v.Use {
		case sender.Foreign:
			m.AuthorOurs = false
		case sender.Reserved:
			m.Sender = align.Sender{Denied: true, Detail: fmt.Sprintf("%s may not use %s: [[senders.allow]] at %s reserves %s for others",
				x.who(), a.String(), v.Source, v.Named)}
		}
	}
}

// who names the client for people.
func (x *Inspection) who() string {
	c := x.envelope.Client
	switch {
	case c.Login != "":
		return "login " + c.Login
	case c.Local:
		return "sendmail(1)"
	case c.Addr.IsValid():
		return "client " + c.Addr.String()
	}
	return "this client"
}

func (x *Inspection) authorHost(ctx context.Context) align.Host {
	found, nxdomain, err := x.inspector.lookups.canReceive(ctx, x.author.Domain)
	switch {
	case err != nil:
		return align.HostUnknown
	case found:
		return align.HostResolves
	case nxdomain:
		return align.HostNonexistent
	}
	return align.HostNoAddress
}

// discovered is a DMARC discovery in the terms of the verdict.
func discovered(d *dmarc.Discovery) align.DMARC {
	r := d.Applied()
	a := align.DMARC{
		Found: d.Found(), At: r.At, StrictDKIM: d.StrictDKIM(), StrictSPF: d.StrictSPF(),
		Invalid: d.Trouble(), Temp: d.Err() != nil,
	}
	if a.Found {
		a.Policy = r.Policy.String()
	}
	return a
}

// organization looks up the organizational domains of a domain, once.
func (x *Inspection) organization(ctx context.Context, d *dmarc.Discoverer, m *align.Message, domain string) {
	if _, known := m.Organizations[domain]; known {
		return
	}
	o := d.Organization(ctx, domain)
	suffix := align.NoSuffix
	switch o.Suffix {
	case dmarc.ICANN:
		suffix = align.ICANNSuffix
	case dmarc.Private:
		suffix = align.PrivateSuffix
	}
	m.Organizations[domain] = align.Organization{PSL: o.PSL, Walk: o.Walk, Suffix: suffix, Temp: o.Err != nil}
}

// spfResults: the milter never waits for SPF; the first message of a domain is
// judged without it.
func (x *Inspection) spfResults(ctx context.Context) []align.SPF {
	l := x.inspector.lookups
	var all []align.SPF
	for _, s := range x.spfSubjects() {
		result, known := l.spf.known(s.key(), l.spfCheck(s.domain, s.address))
		if !known && x.envelope.File {
			var err error
			result, err = l.spf.get(ctx, s.key(), l.spfCheck(s.domain, s.address))
			known = err == nil
		}
		if known {
			all = append(all, align.SPF{Address: s.address, Result: string(result.Result), Domain: s.domain, Weak: result.weak})
		}
	}
	return all
}

// causes are those of package dkim in the terms of the verdict; all others stand
// for a broken signature.
var causes = map[dkim.Cause]align.Cause{
	dkim.KeyMissing: align.CauseKeyMissing, dkim.KeyRevoked: align.CauseKeyRevoked, dkim.KeyWeak: align.CauseKeyWeak,
	dkim.AnotherKey: align.CauseKeyMismatch, dkim.BodyAnotherKey: align.CauseKeyMismatch, dkim.KeyWrongType: align.CauseKeyMismatch,
	dkim.KeyNotUnique: align.CauseKeyInvalid, dkim.KeyMalformed: align.CauseKeyInvalid, dkim.KeyWrongHash: align.CauseKeyInvalid,
	dkim.KeyWrongUse: align.CauseKeyInvalid, dkim.KeyStrict: align.CauseKeyInvalid, dkim.KeyOversized: align.CauseKeyInvalid,
	dkim.Expired: align.CauseExpired,
}

var statuses = map[dkim.Status]align.Status{
	dkim.Pass: align.Pass, dkim.Fail: align.Failed, dkim.TempError: align.TempError, dkim.PermError: align.PermError,
}

// signature is a DKIM result in the terms of the verdict.
func (x *Inspection) signature(r *dkim.Result) align.Signature {
	s := align.Signature{
		Domain: r.Domain, Selector: r.Selector, Algorithm: r.Algorithm, KeyBits: r.Key.Bits,
		Status: statuses[r.Status], Cause: causes[r.Cause], Detail: r.Detail,
		Ours: r.Domain != "" && x.state.prefer(r.Domain), Headers: r.Names, SignedAt: r.Time, Expires: r.Expiry,
		HasLength: r.Limit.Present, Length: r.Limit.Octets, Uncovered: r.Limit.Uncovered, Testing: r.Key.Testing,
	}
	if x.headerCut || x.bodyCut {
		s.Status = align.NotVerified // of a part of the message nothing can be said
	}
	for _, n := range r.Notes {
		class := align.Info
		if n.Class == dkim.Weak {
			class = align.Weak
		}
		s.Notes = append(s.Notes, align.Note{Name: n.Name, Class: class, Detail: n.Detail})
	}
	return s
}

// longestLine is the length of the longest line of a header, without CRLF.
func longestLine(fields [][]byte) int {
	longest := 0
	for _, f := range fields {
		for line := range strings.Lines(string(f)) {
			longest = max(longest, len(strings.TrimRight(line, "\r\n")))
		}
	}
	return longest
}
