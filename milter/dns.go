package milter

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Records are the answer to one question. Absence is an answer: no Values, and a
// lifetime. An error beside it means that nobody answered.
type Records[T any] struct {
	Values []T
	// NXDomain: the name itself does not exist (RFC 8020).
	NXDomain bool
	TTL      time.Duration
}

// Exchanger is an MX record; Host is "." for a null MX (RFC 7505).
type Exchanger struct {
	Preference uint16
	Host       string
}

// DNS asks. Names are absolute A-labels. TXT records come joined and unescaped.
type DNS interface {
	TXT(ctx context.Context, name string) (Records[string], error)
	MX(ctx context.Context, name string) (Records[Exchanger], error)
	Addresses(ctx context.Context, name string) (Records[netip.Addr], error)
	PTR(ctx context.Context, addr netip.Addr) (Records[string], error)
}

// How long answers are remembered. K-045: what is absent is asked for again within
// a minute, so that a fresh selector works; a failure is forgotten sooner.
const (
	longestPositive = time.Hour
	longestNegative = time.Minute
	failureLasts    = 10 * time.Second
	askTimeout      = 6 * time.Second // of one question, whoever waits for it
	maxRemembered   = 10_000          // answers of each kind
	maxText         = 16 << 10        // octets of one answer; the key of RSA with 16,384 bits has 3 kB
	maxAsking       = 200             // questions under way
)

// lifetime is how long an answer may be believed.
func (r Records[T]) lifetime() time.Duration {
	if len(r.Values) == 0 {
		return min(r.TTL, longestNegative)
	}
	return min(r.TTL, longestPositive)
}

// lookups remembers what the DNS answered, for all messages.
type lookups struct {
	dns     DNS
	work    *work
	txt     memory[Records[string]]
	mx      memory[Records[Exchanger]]
	address memory[Records[netip.Addr]]
	spf     memory[spfResult] // by domain and address
}

// TXT looks up text records.
func (l *lookups) TXT(ctx context.Context, name string) (Records[string], error) {
	return l.txt.get(ctx, name, l.askTXT(name))
}

// WarmTXT sees to it that text records are known soon, and does not wait.
func (l *lookups) WarmTXT(name string) { l.txt.start(name, l.askTXT(name)) }

func (l *lookups) askTXT(name string) ask[Records[string]] {
	return question(l.work, name, l.smallTXT)
}

var errLargeAnswer = fmt.Errorf("the answer has more than %d octets", maxText)

// smallTXT bounds what a signer's choice of names can make us remember.
func (l *lookups) smallTXT(ctx context.Context, name string) (Records[string], error) {
	r, err := l.dns.TXT(ctx, name)
	size := 0
	for _, text := range r.Values {
		size += len(text)
	}
	if size > maxText {
		return Records[string]{}, errLargeAnswer
	}
	return r, err
}

// canReceive says whether a domain has a mail host (DM-006): an MX record that is
// no null MX, or an address; and if not, whether there is no such name at all.
func (l *lookups) canReceive(ctx context.Context, domain string) (can, nxdomain bool, err error) {
	mx, err := l.mx.get(ctx, domain, question(l.work, domain, l.dns.MX))
	switch {
	case err != nil || mx.NXDomain:
		return false, mx.NXDomain, err
	case len(mx.Values) > 0:
		return !isNullMX(mx), false, nil
	}
	addresses, err := l.address.get(ctx, domain, question(l.work, domain, l.dns.Addresses))
	return len(addresses.Values) > 0, false, err
}

// isNullMX says whether a domain declares that it takes no mail. RFC 7505 §3: the
// "." stands alone; beside other records it means nothing.
func isNullMX(mx Records[Exchanger]) bool { return len(mx.Values) == 1 && mx.Values[0].Host == "." }

// warmReceive begins what canReceive will ask first.
func (l *lookups) warmReceive(domain string) {
	l.mx.start(domain, question(l.work, domain, l.dns.MX))
}

// question is one question to the DNS as work that can be remembered.
func question[T any](w *work, name string, do func(context.Context, string) (Records[T], error)) ask[Records[T]] {
	return func(done func(Records[T], time.Duration, error)) {
		w.spawn(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			r, err := do(ctx, name)
			if err != nil {
				done(r, failureLasts, err)
				return
			}
			done(r, r.lifetime(), nil)
		})
	}
}
