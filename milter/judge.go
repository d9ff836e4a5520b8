package milter

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"blitiri.com.ar/go/spf"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter/align"
	"github.com/postseal/postseal/milter/dkim"
	"github.com/postseal/postseal/milter/dmarc"
)

// ours: the domain is one of the configured ones.
func (s *state) ours(domain string) bool { return s.Senders.Restricted() && s.Senders.Ours(domain) }

// prefer: signatures of ours, and those that can be aligned with the author, are
// verified first when there are too many.
func (x *Inspection) prefer(domain string) bool {
	author := x.author.Domain
	if x.state.ours(domain) || domain == author {
		return true
	}
	mine, other := dmarc.List(author).PSL, dmarc.List(domain).PSL
	return mine != "" && mine == other
}

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
		// The walk of RFC 9989 may ask for more; these are enough as a rule.
		l.WarmTXT("_dmarc." + d)
		if org := dmarc.List(d).PSL; org != "" && org != d {
			l.WarmTXT("_dmarc." + org)
		}
	}
	for _, s := range x.spfSubjects() {
		if result, known := l.spf.known(s.key(), l.spfCheck(s)); known {
			x.spfKnown = append(x.spfKnown, s.found(result))
		}
	}
}

// spfSubject is a domain with an address that its mail leaves from.
type spfSubject struct {
	sender  string // for macros of the record; that of the first message counts
	domain  string
	address netip.Addr
}

func (s spfSubject) key() string { return s.domain + " " + s.address.String() }

// spfSubjects: DM-015: the null sender has no domain of its own; DKIM alone counts.
func (x *Inspection) spfSubjects() []spfSubject {
	local, domain, ok := cutLast(x.envelope.Mailer, '@')
	if domain = align.Domain(domain); !ok || domain == "" {
		return nil
	}
	all := make([]spfSubject, 0, len(x.state.Egress))
	for _, a := range x.state.Egress {
		all = append(all, spfSubject{local + "@" + domain, domain, a})
	}
	return all
}

// evidence gathers all that the verdict rests on.
func (x *Inspection) evidence(ctx context.Context) (*align.Message, []dkim.Result, dmarc.Discovery) {
	results := x.dkim.Finish(ctx)
	if x.headerCut || x.bodyCut {
		for i := range results {
			results[i].Status, results[i].Detail = dkim.TempError, "not verified: the message is over the limit of what is looked at"
		}
	}
	d := x.inspector.discoverer()
	m := &align.Message{
		Fields: x.fields, Author: x.author, Now: time.Now(),
		MailFrom: x.envelope.MailFrom, NullSender: x.nullSender(),
		Forwarded:         x.state.Senders.Forwarder(x.envelope.Client),
		DomainsConfigured: x.state.Senders.Restricted(), AuthorOurs: true, UTF8: x.envelope.UTF8,
		EightBitBody: x.body.eightBit, LongLine: max(x.body.longest, longestLine(x.fields)), BodyInvalid: x.body.invalid(),
		HeaderCut: x.headerCut, FromCut: x.fromCut, SignaturesCut: x.signaturesCut, BodyCut: x.bodyCut, Skipped: x.dkim.Skipped(),
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
	}
	organizations := organizations{x, d, &found, m.Organizations}
	organizations.list(x.author.Domain)
	for i := range results {
		m.Signatures = append(m.Signatures, x.signature(&results[i]))
		organizations.compare(ctx, results[i].Domain, m.DMARC.StrictDKIM)
	}
	for _, s := range x.spfResults(ctx) {
		m.SPF = append(m.SPF, s)
		organizations.compare(ctx, s.Domain, m.DMARC.StrictSPF)
	}
	if x.envelope.File {
		organizations.walk(ctx, x.author.Domain) // it is shown
	}
	return m, results, found
}

// maySend asks the list of who may use which address, for each author.
func (x *Inspection) maySend(m *align.Message) {
	may := func(a align.Address) sender.Use {
		v := x.state.Senders.MayUse(x.envelope.Client, a.String())
		if v.Use == sender.Reserved {
			m.Sender = align.Sender{Denied: true, Detail: fmt.Sprintf("%s may not use %s: [[senders.allow]] at %s reserves %s for others",
				x.who(), a.String(), v.Source, v.Named)}
		}
		return v.Use
	}
	for _, a := range x.author.Addresses {
		m.AuthorOurs = may(a) != sender.Foreign && m.AuthorOurs
	}
	for _, a := range x.author.Others {
		may(a) // somebody could be shown it as the author
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

// organizations are the organizational domains that alignment depends on.
type organizations struct {
	x     *Inspection
	d     *dmarc.Discoverer
	found *dmarc.Discovery
	known map[string]align.Organization
}

// compare sees to it that a domain can be compared with the author's; both are
// walked only where that can make a difference (DM-023).
func (o organizations) compare(ctx context.Context, domain string, strict bool) {
	if o.list(domain); domain != "" && o.found.NeedsWalk(domain, strict) {
		o.walk(ctx, o.x.author.Domain)
		o.walk(ctx, domain)
	}
}

// list takes what the public suffix list says, which needs no question.
func (o organizations) list(domain string) {
	if _, known := o.known[domain]; !known && domain != "" {
		o.known[domain] = organization(dmarc.List(domain))
	}
}

func (o organizations) walk(ctx context.Context, domain string) {
	if k := o.known[domain]; domain != "" && k.Walk == "" && !k.Temp {
		o.known[domain] = organization(o.d.Organization(ctx, domain))
	}
}

// organization is one in the terms of the verdict.
func organization(o dmarc.Organization) align.Organization {
	suffix := align.NoSuffix
	switch o.Suffix {
	case dmarc.ICANN:
		suffix = align.ICANNSuffix
	case dmarc.Private:
		suffix = align.PrivateSuffix
	}
	return align.Organization{PSL: o.PSL, Walk: o.Walk, Suffix: suffix, Temp: o.Err != nil}
}

// spfResults: the milter never waits for SPF; the first message of a domain is
// judged without it, however soon the answer comes.
func (x *Inspection) spfResults(ctx context.Context) []align.SPF {
	if !x.envelope.File {
		return x.spfKnown
	}
	l := x.inspector.lookups
	var all []align.SPF
	for _, s := range x.spfSubjects() {
		result, err := l.spf.get(ctx, s.key(), l.spfCheck(s))
		if err != nil {
			result.Result = spf.TempError
		}
		all = append(all, s.found(result))
	}
	return all
}

func (s spfSubject) found(r spfResult) align.SPF {
	return align.SPF{Address: s.address, Result: string(r.Result), Domain: s.domain, Weak: r.weak}
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
		Ours: r.Domain != "" && x.state.ours(r.Domain), Headers: r.Names, SignedAt: r.Time, Expires: r.Expiry,
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
