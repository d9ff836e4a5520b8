package milter

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"blitiri.com.ar/go/spf"
)

// spfLasts is how long the outcome for one domain and address is remembered; what
// failed for a moment, shorter.
const (
	spfLasts   = time.Hour
	spfTimeout = 15 * time.Second
)

// spfCheck evaluates the SPF record of a MAIL FROM domain for an address that mail
// leaves from (DM-012). The library obeys the limits of RFC 7208 §4.6.4.
func (l *lookups) spfCheck(s spfSubject) ask[spfResult] {
	return func(done func(spfResult, time.Duration, error)) {
		l.work.spawn(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, spfTimeout)
			defer cancel()
			result, err := spf.CheckHostWithSender(net.IP(s.address.AsSlice()), s.domain, s.sender,
				spf.WithContext(ctx), spf.WithResolver(spfDNS{l}))
			lasts := spfLasts
			if result == spf.TempError {
				lasts = failureLasts
			} else {
				err = nil // a permerror is an outcome
			}
			found := spfResult{Result: result}
			if result == spf.Pass {
				found.weak = l.spfWeak(ctx, s.domain)
			}
			done(found, lasts, err)
		})
	}
}

// spfResult is an outcome, and what is doubtful about it.
type spfResult struct {
	spf.Result
	weak string
}

// spfWeak: a record that lets the whole world pass proves nothing (BLK-025).
func (l *lookups) spfWeak(ctx context.Context, domain string) string {
	r, err := l.dns.TXT(ctx, domain)
	if err != nil {
		return ""
	}
	for _, record := range r.Values {
		terms := strings.Fields(strings.ToLower(record))
		if len(terms) > 0 && terms[0] == "v=spf1" && (slices.Contains(terms, "all") || slices.Contains(terms, "+all")) {
			return "its +all lets every address in the world pass: write -all or ~all"
		}
	}
	return ""
}

// spfDNS is the DNS in the terms of package net, as the library wants it.
type spfDNS struct{ *lookups }

func (d spfDNS) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return list(d.dns.TXT(ctx, absolute(name)))
}

func (d spfDNS) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	found, err := list(d.dns.MX(ctx, absolute(name)))
	all := make([]*net.MX, 0, len(found))
	for _, x := range found {
		all = append(all, &net.MX{Host: x.Host, Pref: x.Preference})
	}
	return all, err
}

func (d spfDNS) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	found, err := list(d.dns.Addresses(ctx, absolute(name)))
	all := make([]net.IPAddr, 0, len(found))
	for _, a := range found {
		all = append(all, net.IPAddr{IP: net.IP(a.AsSlice())})
	}
	return all, err
}

func (d spfDNS) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	return list(d.dns.PTR(ctx, a))
}

// list gives the records, or the error that package net has for their absence.
// Where nobody answered, that is never "the record is not there".
func list[T any](r Records[T], err error) ([]T, error) {
	switch {
	case err != nil:
		return nil, &net.DNSError{Err: err.Error(), IsTemporary: true}
	case len(r.Values) == 0:
		return nil, &net.DNSError{Err: "no such record", IsNotFound: true}
	}
	return r.Values, nil
}

// absolute takes off the trailing dot; our names have none.
func absolute(name string) string { return strings.TrimSuffix(name, ".") }
