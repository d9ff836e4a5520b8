package dane

import (
	"net/netip"
	"time"
)

// Evidence is what is known about the DANE standing of one destination. It is
// immutable once built: hosts are shared among destinations.
type Evidence struct {
	// Suspended: no resolver that may be believed validates (DANE-001,
	// DANE-004). The rest is then still filled in as far as it was looked up.
	Suspended bool
	MX        MXSet
	// Hosts stand in the order of MX.Hosts. A nil entry was not looked up in
	// time and counts as failed (CMB-17).
	Hosts []*Host
}

// MXSet is the list of mail exchangers of a destination, or why it is unknown.
type MXSet struct {
	// Hosts is sorted by preference, then by name. Without MX records it holds
	// the domain itself (Implicit, RFC 5321 §5.1); after a null MX it is empty
	// (Null, RFC 7505), and so it is where there is no such domain (NXDomain).
	Hosts    []Exchanger
	Secure   bool // the MX answer, its CNAME chain included, was authentic
	Implicit bool
	Null     bool
	NXDomain bool
	// Unproven: the server that answered has not proved that it validates. The
	// hosts are what it said, good enough where DANE is suspended (row DX of the
	// decision table needs them); otherwise the set is unknown (class D4), not
	// insecure (DANE-004). Secure is false.
	Unproven bool
	// Truncated: there were more than MaxHosts; the remainder is unknown and
	// counts as a failed host (DANE-016).
	Truncated bool
	// NextHop is the CNAME-expanded name of the domain where it differs, else
	// empty (RFC 7672 §2.2.1).
	NextHop string
	TTL     time.Duration
	// Err: the look-up failed (class D4); then only TTL is set beside it. It is
	// kept as a value so that evidence can be compared and stored.
	Err string
}

// Exchanger is one line of an MX set.
type Exchanger struct {
	Preference uint16
	Name       string
}

// Status says what a mail host's TLSA records demand.
type Status uint8

// The statuses of a host, RFC 7672 §2.2.
const (
	Failed      Status = iota // an address or TLSA look-up failed: set X
	Unreachable               // no addresses: not in set H
	None                      // answered: no secure TLSA records
	Unusable                  // secure TLSA records, none of them usable
	Usable                    // at least one usable secure TLSA record: set U
)

// Host is one mail host at one port, with all that explains its Status.
type Host struct {
	Name      string
	Port      uint16
	Addresses []netip.Addr
	// Incomplete: nobody answered for one of A and AAAA, so there may be more of them.
	Incomplete bool
	// Authentic: the address answer that counted was validated.
	Authentic bool
	Status    Status
	// Base is the TLSA base domain whose records count; empty without any.
	Base string
	// Tried lists the candidates of RFC 7672 §2.2.2 in the order asked.
	Tried   []Candidate
	Records []Record
	TTL     time.Duration // how long the least lasting of the answers used may be believed
	Err     string        // set when Status is Failed
}

// Candidate is one TLSA owner name that was asked for.
type Candidate struct {
	Owner     string // "_25._tcp.mx.example"
	Canonical string // the end of a CNAME chain at Owner, where it differs
	Authentic bool
	Records   int
	Err       string
}

// Record is one TLSA record of the winning candidate and its judgement.
type Record struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
	// Unusable says why the record cannot be used; empty when it can.
	Unusable string
}

// Class sums up the DANE standing of a destination (the decision table's rows).
type Class uint8

// The classes, in the order in which they are told apart.
const (
	DX  Class = iota // nobody to be believed validates
	D4               // the MX set is unknown
	D5               // MX insecure, a host has secure TLSA records
	D0               // no host has secure TLSA records, or the MX is insecure and none has
	D3               // MX secure, a host's look-up failed
	D1               // MX secure, every reachable host has usable TLSA records
	D2               // MX secure, some have, some have not
	D2u              // MX secure, none usable, at least one host has only unusable ones
)
