// Package resolvertest is the DNS of the tests: data, not behaviour. It refuses
// what it was not told about, so that a question too many is an error.
package resolvertest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/postseal/postseal/internal/resolver"
)

// DNS answers the look-ups of resolver.Resolver from a table, without sockets,
// so that it works inside a testing/synctest bubble.
type DNS struct {
	mu       sync.Mutex
	answers  map[string]*entry // "TYPE name"
	asked    []string
	unproven bool
}

type entry struct {
	records []dns.RR
	ad, nx  bool
	ttl     uint32
	fail    string
	delay   time.Duration
}

// New reads a table with one line per answer, later lines adding records to it:
//
//	ad ex.test 300 MX 10 mx.ex.test      authentic record
//	ex.test 300 MX 10 mx.ex.test         the same, insecure
//	ad nodata ex.test 60 AAAA            authentic denial of the type
//	nx ex.test 60 MX                     insecure NXDOMAIN
//	servfail ex.test MX                  nobody answers: an error at once
//	hang ex.test MX                      nobody answers: until the context ends
//	delay=3s ad ex.test 300 A 192.0.2.1  answers after a time
//
// A CNAME record answers questions of every type at its name.
func New(table string) *DNS {
	d := &DNS{answers: map[string]*entry{}}
	d.Set(table)
	return d
}

// Set replaces the answers that the table names and keeps the others.
func (d *DNS) Set(table string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh := map[string]bool{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		e := &entry{}
		kind := ""
		for ; len(f) > 0; f = f[1:] {
			if rest, ok := strings.CutPrefix(f[0], "delay="); ok {
				e.delay, _ = time.ParseDuration(rest)
			} else if f[0] == "ad" {
				e.ad = true
			} else if slices.Contains([]string{"nodata", "nx", "servfail", "hang"}, f[0]) {
				kind = f[0]
			} else {
				break
			}
		}
		name := strings.ToLower(strings.TrimSuffix(f[0], "."))
		var typ string
		switch kind {
		case "servfail", "hang":
			typ, e.fail = f[1], kind
		case "nx", "nodata":
			typ, e.nx = f[2], kind == "nx"
			fmt.Sscan(f[1], &e.ttl)
		default:
			rr, err := dns.NewRR(strings.Join(append([]string{dns.Fqdn(f[0])}, f[1:]...), " "))
			if err != nil || rr == nil {
				panic(fmt.Sprintf("resolvertest: %q: %v", line, err))
			}
			typ, e.records, e.ttl = dns.TypeToString[rr.Header().Rrtype], []dns.RR{rr}, rr.Header().Ttl
		}
		k := strings.ToUpper(typ) + " " + name
		if old := d.answers[k]; fresh[k] && old != nil {
			old.records = append(old.records, e.records...)
			continue
		}
		fresh[k] = true
		d.answers[k] = e
	}
}

// Unproven makes the answers those of a server that has not shown that it validates.
func (d *DNS) Unproven(is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unproven = is
}

// Asked returns the questions so far as "TYPE name", in order, and forgets them.
func (d *DNS) Asked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.asked
	d.asked = nil
	return a
}

func ask[T any](ctx context.Context, d *DNS, typ, name string, conv func(dns.RR) (T, bool)) (resolver.Answer[T], error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	a := resolver.Answer[T]{Name: name, Canonical: name, Authentic: true, Proven: true, Server: "192.0.2.53:53"}
	ttl := ^uint32(0)
	d.mu.Lock()
	d.asked = append(d.asked, typ+" "+name)
	a.Proven = !d.unproven
	var found *entry
	var delay time.Duration
	for range 10 {
		if e := d.answers[typ+" "+a.Canonical]; e != nil {
			found = e
		} else if e := d.answers["CNAME "+a.Canonical]; e != nil && typ != "CNAME" {
			a.Authentic = a.Authentic && e.ad
			ttl, delay = min(ttl, e.ttl), delay+e.delay
			a.Canonical = strings.ToLower(strings.TrimSuffix(e.records[0].(*dns.CNAME).Target, "."))
			continue
		}
		break
	}
	d.mu.Unlock()
	if found == nil {
		return resolver.Answer[T]{}, fmt.Errorf("resolvertest: unexpected question %s %s", typ, a.Canonical)
	}
	if delay += found.delay; delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return resolver.Answer[T]{}, ctx.Err()
		}
	}
	switch found.fail {
	case "servfail":
		return resolver.Answer[T]{}, fmt.Errorf("%s %s: SERVFAIL", typ, name)
	case "hang":
		<-ctx.Done()
		return resolver.Answer[T]{}, ctx.Err()
	}
	a.Authentic = a.Authentic && found.ad && a.Proven
	a.NXDomain = found.nx
	a.TTL = time.Duration(min(ttl, found.ttl)) * time.Second
	for _, rr := range found.records {
		if v, ok := conv(rr); ok {
			a.Records = append(a.Records, v)
		}
	}
	return a, nil
}

func bare(s string) string {
	if s == "." {
		return s
	}
	return strings.ToLower(strings.TrimSuffix(s, "."))
}

// TXT answers as resolver.Resolver.TXT. Escapes of the table are taken literally.
func (d *DNS) TXT(ctx context.Context, name string) (resolver.Answer[string], error) {
	return ask(ctx, d, "TXT", name, func(rr dns.RR) (string, bool) {
		t, ok := rr.(*dns.TXT)
		if !ok {
			return "", false
		}
		return strings.Join(t.Txt, ""), true
	})
}

// MX answers as resolver.Resolver.MX.
func (d *DNS) MX(ctx context.Context, name string) (resolver.Answer[resolver.MX], error) {
	return ask(ctx, d, "MX", name, func(rr dns.RR) (resolver.MX, bool) {
		t, ok := rr.(*dns.MX)
		if !ok {
			return resolver.MX{}, false
		}
		return resolver.MX{Preference: t.Preference, Host: bare(t.Mx)}, true
	})
}

// A answers as resolver.Resolver.A.
func (d *DNS) A(ctx context.Context, name string) (resolver.Answer[netip.Addr], error) {
	return ask(ctx, d, "A", name, func(rr dns.RR) (netip.Addr, bool) {
		t, ok := rr.(*dns.A)
		if !ok {
			return netip.Addr{}, false
		}
		return netip.AddrFromSlice(t.A.To4())
	})
}

// AAAA answers as resolver.Resolver.AAAA.
func (d *DNS) AAAA(ctx context.Context, name string) (resolver.Answer[netip.Addr], error) {
	return ask(ctx, d, "AAAA", name, func(rr dns.RR) (netip.Addr, bool) {
		t, ok := rr.(*dns.AAAA)
		if !ok {
			return netip.Addr{}, false
		}
		return netip.AddrFromSlice(t.AAAA.To16())
	})
}

// CNAME answers as resolver.Resolver.CNAME.
func (d *DNS) CNAME(ctx context.Context, name string) (resolver.Answer[string], error) {
	return ask(ctx, d, "CNAME", name, func(rr dns.RR) (string, bool) {
		t, ok := rr.(*dns.CNAME)
		if !ok {
			return "", false
		}
		return bare(t.Target), true
	})
}

// TLSA answers as resolver.Resolver.TLSA.
func (d *DNS) TLSA(ctx context.Context, name string) (resolver.Answer[resolver.TLSA], error) {
	return ask(ctx, d, "TLSA", name, func(rr dns.RR) (resolver.TLSA, bool) {
		t, ok := rr.(*dns.TLSA)
		if !ok {
			return resolver.TLSA{}, false
		}
		data := make([]byte, len(t.Certificate)/2)
		if _, err := fmt.Sscanf(t.Certificate, "%x", &data); err != nil {
			return resolver.TLSA{}, false
		}
		return resolver.TLSA{Usage: t.Usage, Selector: t.Selector, MatchingType: t.MatchingType, Data: data}, true
	})
}
