package resolver

import (
	"net/netip"
	"time"
)

// Answer is what one question got. Absence is an answer too: it has no Records,
// but an AD bit, a lifetime and a reason (NXDomain or not). An error beside it
// means that nobody answered; then the Answer is zero.
//
// Names in an Answer are lower case, A-labels, without the trailing dot; the
// root is ".".
type Answer[T any] struct {
	// Name is the name that was asked for.
	Name string
	// Canonical is the owner at the end of the CNAME chain; Name itself where
	// there is no chain. It is set for denials too.
	Canonical string
	// Records holds the records of the type asked for, at Canonical, in the
	// order of the wire.
	Records []T
	// Authentic says that the whole answer, the CNAME chain included, was
	// validated: AD, from a server whose AD bit counts (trust_ad) and that has
	// not been seen answering the probe without it. RFC 4035 §4.9.3.
	Authentic bool
	// Proven says that the server has shown that it validates. Without it a
	// missing AD bit means nothing, and for DANE the answer is an error.
	Proven bool
	// NXDomain: the name itself does not exist (RFC 8020), not only the type.
	NXDomain bool
	// TTL is the least of the records' and the chain's; for a denial that of
	// the SOA (RFC 2308 §5: the lesser of its TTL and its MINIMUM), zero when
	// the denial had no SOA.
	TTL time.Duration
	// Server is the address of the server that answered.
	Server string
}

// MX is one mail exchanger. RFC 5321 §5.1.
type MX struct {
	Preference uint16
	Host       string // "." stands for a null MX, RFC 7505
}

// TLSA is one record as it came, unjudged: any numbers, any length of Data.
// RFC 6698 §2.1.
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// Addr is the record of A and AAAA answers.
type Addr = netip.Addr
