package main

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy"
)

// mailDomain is what is remembered of a domain in addresses.
type mailDomain struct {
	name  string // in A-labels
	bytes []byte // of name

	exchangers atomic.Pointer[exchangers]
	ruled      atomic.Pointer[ruled]
	used       atomic.Int64 // Unix minutes
}

// exchangers is the answer to the question whether a domain takes no mail.
type exchangers struct {
	null     bool
	until    time.Time
	opinions [roles]*opinion
}

// role is what a domain is in an envelope.
type role int

const (
	asSender role = iota
	asRecipient
	roles
)

// ruled is the opinion that a verdict led to: its text is made once.
type ruled struct {
	verdict policy.RecipientVerdict
	opinion *opinion
}

// maxMailDomains bounds the domains remembered as they are written, some 15 MB of them.
const maxMailDomains = 1 << 16

// mailDomains finds domains of addresses, and remembers them.
type mailDomains struct{ *cache.Memory[mailDomain] }

func newMailDomains() mailDomains {
	return mailDomains{cache.NewMemory(cache.Options[mailDomain]{
		Limit: maxMailDomains, Used: func(d *mailDomain) int64 { return d.used.Load() },
	})}
}

// of returns the domain of an address; nil where there is none that mail is delivered
// to by the DNS. It allocates nothing for a domain that it remembers.
func (m mailDomains) of(address []byte, now time.Time) *mailDomain {
	at := bytes.LastIndexByte(address, '@') // a quoted local part may hold others
	if at < 0 {
		return nil
	}
	written := address[at+1:]
	d := m.Get(written)
	if d == nil {
		name, ok := domainName(string(written))
		if !ok {
			return nil
		}
		d, _ = m.LoadOrStore(string(written), func() *mailDomain {
			d := &mailDomain{name: name, bytes: []byte(name)}
			d.used.Store(now.Unix() / 60)
			return d
		})
	}
	if minute := now.Unix() / 60; d.used.Load() != minute {
		d.used.Store(minute)
	}
	return d
}

// domainName returns a domain in A-labels; false where the DNS does not lead mail
// there: an address literal, what no domain can be.
func domainName(domain string) (string, bool) {
	if strings.ContainsAny(domain, "[]:") { // RFC 5321 §4.1.3; a domain of mail has no port
		return "", false
	}
	k, err := policy.ParseKey(domain)
	return k.Name, err == nil && !k.Literal
}

// byRule is byRule, whose text is made anew only for another verdict.
func (d *mailDomain) byRule(v policy.RecipientVerdict) *opinion {
	if v.Action|v.Withheld == policy.RecipientPass {
		return byRule(v, d.name)
	}
	r := d.ruled.Load()
	if r == nil || r.verdict != v {
		r = &ruled{v, byRule(v, d.name)}
		d.ruled.Store(r)
	}
	return r.opinion
}

// nullMX asks whether a domain takes no mail, and how long the answer may be believed.
// An error means that nobody answered, and the zero time beside it that ctx ended.
type nullMX func(ctx context.Context, domain string) (null bool, until time.Time, err error)

// known returns the answer of earlier; nil: there is none that may still be believed.
func (d *mailDomain) known(now time.Time) *exchangers {
	if x := d.exchangers.Load(); x != nil && now.Before(x.until) {
		return x
	}
	return nil
}

// ask asks whether the domain takes no mail.
func (d *mailDomain) ask(ctx context.Context, do nullMX) *exchangers {
	null, until, err := do(ctx, d.name)
	x := &exchangers{null: null, until: until, opinions: [roles]*opinion{noOpinion, noOpinion}}
	switch {
	case err != nil:
		x.opinions = [roles]*opinion{unanswered, unanswered}
	case null:
		x.opinions = [roles]*opinion{asSender: senderNullMX(d.name), asRecipient: recipientNullMX(d.name)}
	}
	if !until.IsZero() {
		d.exchangers.Store(x)
	}
	return x
}
