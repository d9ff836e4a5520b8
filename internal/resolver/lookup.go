package resolver

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// The look-ups take a name in presentation form, absolute whether it ends in a
// dot or not, in A-labels. They return an *Error when nobody answered, within
// the context's deadline, or ten seconds where it has none; at once when the
// context is cancelled.

// TXT looks up TXT records: each with its strings joined, octets as on the wire.
func (r *Resolver) TXT(ctx context.Context, name string) (Answer[string], error) {
	return look(ctx, r, name, dns.TypeTXT, textData)
}

// A looks up IPv4 addresses.
func (r *Resolver) A(ctx context.Context, name string) (Answer[netip.Addr], error) {
	return look(ctx, r, name, dns.TypeA, addressData(4, "A"))
}

// AAAA looks up IPv6 addresses.
func (r *Resolver) AAAA(ctx context.Context, name string) (Answer[netip.Addr], error) {
	return look(ctx, r, name, dns.TypeAAAA, addressData(16, "AAAA"))
}

// MX looks up mail exchangers, in the order of the wire.
func (r *Resolver) MX(ctx context.Context, name string) (Answer[MX], error) {
	return look(ctx, r, name, dns.TypeMX, mxData)
}

// CNAME looks up the CNAME record at the name itself and does not follow it: is
// the alias secure, although its target is not (RFC 7672 §2.1.3, §2.2.2)?
func (r *Resolver) CNAME(ctx context.Context, name string) (Answer[string], error) {
	return look(ctx, r, name, dns.TypeCNAME, nameData)
}

// TLSA looks up TLSA records at their owner name ("_25._tcp.mx.example"). An
// alias at that name is followed (RFC 7672 §2.1.3).
func (r *Resolver) TLSA(ctx context.Context, name string) (Answer[TLSA], error) {
	return look(ctx, r, name, dns.TypeTLSA, tlsaData)
}

// PTR looks up the names of an address, RFC 1035 §3.5, RFC 3596 §2.5.
func (r *Resolver) PTR(ctx context.Context, addr netip.Addr) (Answer[string], error) {
	name, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return Answer[string]{}, &Error{Name: addr.String(), Type: "PTR", Cause: fmt.Errorf("%w: %w", ErrBadName, err)}
	}
	return look(ctx, r, name, dns.TypePTR, nameData)
}

func look[T any](ctx context.Context, r *Resolver, name string, qtype uint16, decode func(msg []byte, off, end int) (T, error)) (Answer[T], error) {
	l := list[T]{decode: decode}
	v, err := r.resolve(ctx, name, qtype, &l)
	if err != nil {
		return Answer[T]{}, err
	}
	return Answer[T]{
		Name: v.name, Canonical: v.canonical, Records: l.all,
		Authentic: v.authentic, Proven: v.proven, NXDomain: v.nx,
		TTL: time.Duration(v.ttl) * time.Second, Server: v.server,
	}, nil
}
