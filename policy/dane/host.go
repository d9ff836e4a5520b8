package dane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/postseal/postseal/internal/resolver"
)

// Limits of a TLSA record set. Postfix has none of its own beyond the 64 kB of
// a DNS message; a set beyond these makes the host failed (DANE-042).
const (
	maxRecords = 100
	maxData    = 64 << 10 // octets of certificate association data
)

// LookupHost asks for the addresses of a mail host (lower case, A-labels, no
// trailing dot), then for its TLSA records at the port. It always returns a
// Host; when a look-up failed, one with Status Failed, Err, and what was
// learned until then. An address in place of the name has no DANE (DANE-015)
// and costs no question.
func LookupHost(ctx context.Context, r Resolver, name string, port uint16) *Host {
	h := &Host{Name: name, Port: port, TTL: MaxTTL}
	if addr, err := netip.ParseAddr(strings.TrimPrefix(name, "ipv6:")); err == nil {
		h.Status, h.Addresses = None, []netip.Addr{addr}
		return h
	}
	if name == "" || name == "." {
		return h.fail("the name of the host is empty")
	}
	a, err := h.lookupAddresses(ctx, r)
	if err != nil {
		return h.fail(err.Error())
	}
	if len(a.Records) == 0 {
		h.Status = Unreachable // DANE-021
		return h
	}
	h.Authentic = a.Authentic
	bases, err := h.bases(ctx, r, a)
	if err != nil {
		return h.fail(err.Error())
	}
	h.Status = None
	for _, base := range bases {
		found, err := h.lookupTLSA(ctx, r, base)
		if err != nil {
			// RFC 7672 §2.1.2: the host must not be used; the next candidate is
			// not asked, its records might be the weaker ones.
			return h.fail(err.Error())
		}
		if found {
			break
		}
	}
	return h
}

func (h *Host) fail(why string) *Host {
	h.Status, h.Err, h.TTL = Failed, why, FailureTTL
	return h
}

// lookupAddresses asks for A and AAAA side by side, collects the addresses, and
// returns the answer that counts: one with addresses, a secure one before an
// insecure one (DANE-023), A before AAAA. Without any address it is the denial
// of both.
func (h *Host) lookupAddresses(ctx context.Context, r Resolver) (resolver.Answer[netip.Addr], error) {
	var a4, a6 resolver.Answer[netip.Addr]
	var err4, err6 error
	var both sync.WaitGroup
	both.Go(func() { a4, err4 = proven(r.A(ctx, h.Name)) })
	both.Go(func() { a6, err6 = proven(r.AAAA(ctx, h.Name)) })
	both.Wait()

	if err4 == nil {
		h.TTL = min(h.TTL, a4.TTL)
	}
	if err6 == nil {
		h.TTL = min(h.TTL, a6.TTL)
	}
	h.Addresses = append(append(h.Addresses, a4.Records...), a6.Records...)
	if len(h.Addresses) == 0 {
		// Denied by both it has no addresses. Denied by one only, the other
		// may have some: unknown.
		return a4, joined("A", err4, "AAAA", err6)
	}
	h.Incomplete = err4 != nil || err6 != nil
	best := a4
	if len(a4.Records) == 0 || !a4.Authentic && a6.Authentic && len(a6.Records) > 0 {
		best = a6
	}
	if !best.Authentic && h.Incomplete {
		// The family that failed might have been the secure one: ask again soon.
		h.TTL = min(h.TTL, FailureTTL)
	}
	return best, nil
}

// bases returns the candidates for the TLSA base domain, RFC 7672 §2.2.2, best first.
func (h *Host) bases(ctx context.Context, r Resolver, a resolver.Answer[netip.Addr]) ([]string, error) {
	alias := a.Canonical != a.Name
	switch {
	case a.Authentic && alias:
		return []string{a.Canonical, h.Name}, nil // the links between them never
	case a.Authentic:
		return []string{h.Name}, nil
	case !alias:
		// RFC 7672 §2.2.2: the name servers of unsigned zones often fail on TLSA
		// questions; an insecure host is not asked about.
		return nil, nil
	}
	// RFC 7672 §2.1.3: the AD bit is for the whole answer. Whether the alias
	// itself is secure, only its own record tells.
	c, err := proven(r.CNAME(ctx, h.Name))
	if err != nil {
		return nil, fmt.Errorf("CNAME %s: %w", h.Name, err)
	}
	h.TTL = min(h.TTL, c.TTL)
	switch {
	case !c.Authentic:
		return nil, nil
	case len(c.Records) == 0:
		// Changed in between. Postfix (tls/tls_dane.c, qname_secure) fails as well.
		return nil, fmt.Errorf("%s is no longer an alias", h.Name)
	default:
		return []string{h.Name}, nil
	}
}

// lookupTLSA asks one candidate. Secure records there, usable or not, decide
// the host's Status and end the search (found).
func (h *Host) lookupTLSA(ctx context.Context, r Resolver, base string) (found bool, err error) {
	c := Candidate{Owner: fmt.Sprintf("_%d._tcp.%s", h.Port, base)} // RFC 6698 §3
	defer func() {
		if err != nil {
			c.Err = err.Error()
			err = fmt.Errorf("TLSA %s: %w", c.Owner, err)
		}
		h.Tried = append(h.Tried, c)
	}()
	a, err := proven(r.TLSA(ctx, c.Owner))
	if err != nil {
		return false, err
	}
	h.TTL = min(h.TTL, a.TTL)
	c.Authentic, c.Records = a.Authentic, len(a.Records)
	if a.Canonical != c.Owner {
		c.Canonical = a.Canonical // RFC 7671 §7: followed; the base domain stays
	}
	if !a.Authentic || len(a.Records) == 0 {
		return false, nil
	}
	if err := bounded(a.Records); err != nil {
		return false, err
	}
	h.Base, h.Status = base, Unusable
	for _, t := range a.Records {
		rec := Record{Usage: t.Usage, Selector: t.Selector, MatchingType: t.MatchingType, Data: t.Data, Unusable: Judge(t)}
		if rec.Unusable == "" {
			h.Status = Usable
		}
		h.Records = append(h.Records, rec)
	}
	return true, nil
}

// bounded refuses a set over the limits: never the first N of it (DANE-042).
func bounded(records []resolver.TLSA) error {
	if len(records) > maxRecords {
		return fmt.Errorf("%d records, more than %d", len(records), maxRecords)
	}
	octets := 0
	for _, t := range records {
		octets += len(t.Data)
	}
	if octets > maxData {
		return fmt.Errorf("%d octets of data, more than %d", octets, maxData)
	}
	return nil
}

// errUnproven is the error of an answer whose missing AD bit means nothing.
var errUnproven = errors.New(unproven)

// proven turns the answer of a server that has not shown that it validates into
// an error: it must never pass for an insecure one (DANE-004).
func proven[T any](a resolver.Answer[T], err error) (resolver.Answer[T], error) {
	if err == nil && !a.Proven {
		err = errUnproven
	}
	if err != nil {
		return resolver.Answer[T]{}, err
	}
	return a, nil
}

// joined makes one error of those of two questions, nil when both were answered.
func joined(what1 string, err1 error, what2 string, err2 error) error {
	switch {
	case err1 != nil && err2 != nil:
		return fmt.Errorf("%s: %w; %s: %w", what1, err1, what2, err2)
	case err1 != nil:
		return fmt.Errorf("%s: %w", what1, err1)
	case err2 != nil:
		return fmt.Errorf("%s: %w", what2, err2)
	default:
		return nil
	}
}
