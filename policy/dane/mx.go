package dane

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/postseal/postseal/internal/resolver"
)

// MaxHosts is how many mail exchangers of a destination are looked at, the most
// preferred ones; the remainder counts as one failed host (DANE-016).
const MaxHosts = 50

// unproven is the error in an answer whose missing AD bit means nothing (DANE-004).
const unproven = "the server that answered has not proved that it validates DNSSEC"

// Resolver is the DNS as this package needs it. The methods return an error
// when nobody answered, bogus answers included, and soon after the context ends.
type Resolver interface {
	MX(ctx context.Context, name string) (resolver.Answer[resolver.MX], error)
	A(ctx context.Context, name string) (resolver.Answer[netip.Addr], error)
	AAAA(ctx context.Context, name string) (resolver.Answer[netip.Addr], error)
	CNAME(ctx context.Context, name string) (resolver.Answer[string], error)
	TLSA(ctx context.Context, name string) (resolver.Answer[resolver.TLSA], error)
}

// LookupMX asks for the mail exchangers of a domain (lower case, A-labels, no
// trailing dot). It always returns a set:
//
//   - nobody answered: Err and TTL, nothing else;
//   - the server has not proved that it validates: Unproven, with the hosts, as
//     they are needed where DANE is suspended (row DX);
//   - no MX records: the domain itself, Implicit;
//   - the domain does not exist: NXDomain and no hosts. RFC 5321 §5.1 wants no
//     implicit MX then; Postfix bounces such mail by itself;
//   - a null MX, or only names that cannot be mail hosts: no hosts.
//
// A name listed twice counts once, with its better preference.
func LookupMX(ctx context.Context, r Resolver, domain string) MXSet {
	a, err := r.MX(ctx, domain)
	if err != nil {
		return MXSet{Err: err.Error(), TTL: FailureTTL}
	}
	m := MXSet{Secure: a.Authentic && a.Proven, Unproven: !a.Proven, NXDomain: a.NXDomain, TTL: a.TTL}
	if m.Unproven {
		m.TTL = min(m.TTL, unprovenTTL)
	}
	if a.Canonical != a.Name {
		m.NextHop = a.Canonical // RFC 7672 §2.2.1: a reference identifier beside the domain
	}
	switch {
	case a.NXDomain:
	case len(a.Records) == 0:
		m.Implicit = true // RFC 5321 §5.1
		m.Hosts = []Exchanger{{Name: domain}}
	case len(a.Records) == 1 && a.Records[0] == resolver.MX{Host: "."}:
		m.Null = true // RFC 7505 §3
	default:
		m.Hosts = exchangers(a.Records)
		if len(m.Hosts) > MaxHosts {
			m.Hosts, m.Truncated = slices.Clone(m.Hosts[:MaxHosts]), true
		}
	}
	return m
}

// Direct is the set of a key "[host]:port": that host alone, which the operator
// named and nobody can forge, so that it counts as secure. The port takes no
// part; it is LookupHost that asks for it.
func Direct(name string) MXSet {
	return MXSet{Hosts: []Exchanger{{Name: name}}, Secure: true, TTL: MaxTTL}
}

// Failure says why the mail exchangers are unknown to DANE (class D4), empty
// when they are known.
func (m MXSet) Failure() string {
	if m.Err == "" && m.Unproven {
		return unproven
	}
	return m.Err
}

// exchangers sorts the records by preference, then name, each name once.
func exchangers(records []resolver.MX) []Exchanger {
	hosts := make([]Exchanger, 0, len(records))
	for _, r := range records {
		// RFC 7505 §3: a "." beside others is no null MX; it is skipped as well.
		if mailHost(r.Host) {
			hosts = append(hosts, Exchanger{Preference: r.Preference, Name: r.Host})
		}
	}
	slices.SortFunc(hosts, func(a, b Exchanger) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Name, b.Name))
	})
	seen := make(map[string]bool, len(hosts))
	return slices.DeleteFunc(hosts, func(x Exchanger) bool {
		dup := seen[x.Name]
		seen[x.Name] = true
		return dup
	})
}

// maxName and maxLabel are the limits of RFC 1035 §2.3.4, in text without the
// trailing dot.
const (
	maxName  = 253
	maxLabel = 63
)

// mailHost says whether an MX record can name a mail host, by the rules of
// Postfix (util/valid_hostname.c), which drops other names too: letters, digits,
// "-" and "_" in labels that no hyphen begins or ends, not digits alone. An
// address in place of a name (DANE-016) fails them. They also keep stray bytes
// out of the names that a policy line lists.
func mailHost(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	numeric := true
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_':
				numeric = false
			default:
				return false
			}
		}
	}
	return !numeric
}
