//go:build linux

package lab

import (
	"crypto"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// recordTTL is the TTL of every record: what a story changes is seen after a second.
const recordTTL = 1

// zone is one zone, signed on the fly when it has a key.
type zone struct {
	name    string // lower case, with the final dot
	records []dns.RR
	key     *dns.DNSKEY // nil: unsigned
	signer  crypto.Signer
}

// tlsaName stands in a zone for the digest of that name's public key.
var tlsaName = regexp.MustCompile(`spki:([A-Za-z0-9.*_-]+)`)

// parseZone reads a master file. "spki:NAME" stands for the data of a TLSA record 3 1 1 for NAME's key, "dkim:NAME" for
// the record of a DKIM key. SOA and NS are added.
func parseZone(name, text string, signed bool, pki *PKI) (*zone, error) {
	z := &zone{name: dns.CanonicalName(name)}
	var failed error
	text = tlsaName.ReplaceAllStringFunc(text, func(word string) string {
		sum, err := pki.SPKI(strings.TrimPrefix(word, "spki:"))
		if err != nil {
			failed = err
		}
		return sum
	})
	if failed != nil {
		return nil, failed
	}
	text, err := expandKeys(text)
	if err != nil {
		return nil, err
	}
	preamble := "@ SOA ns.lab.invalid. hostmaster.lab.invalid. 1 3600 600 86400 1\n@ NS ns.lab.invalid.\n"
	parser := dns.NewZoneParser(strings.NewReader(preamble+text), z.name, "zone "+name)
	parser.SetDefaultTTL(recordTTL)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		rr.Header().Ttl = recordTTL
		z.records = append(z.records, rr)
	}
	if err := parser.Err(); err != nil {
		return nil, fmt.Errorf("zone %s: %w", name, err)
	}
	if !signed {
		return z, nil
	}
	return z, z.makeKey()
}

func (z *zone) makeKey() error {
	z.key = &dns.DNSKEY{
		Hdr:       dns.RR_Header{Name: z.name, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: recordTTL},
		Flags:     dns.ZONE | dns.SEP,
		Protocol:  3,
		Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := z.key.Generate(256)
	if err != nil {
		return fmt.Errorf("key of zone %s: %w", z.name, err)
	}
	z.signer = private.(crypto.Signer)
	z.records = append(z.records, z.key)
	return nil
}

// anchor is the DS record of a signed zone: there is no signed root, so each zone is its own trust anchor.
func (z *zone) anchor() string { return z.key.ToDS(dns.SHA256).String() }

// answer fills the reply to a question about a name at or below the apex.
func (z *zone) answer(reply *dns.Msg, q question) error {
	if set := z.lookUp(q.name, q.qtype); len(set) > 0 {
		return z.add(&reply.Answer, set)
	}
	if alias := z.lookUp(q.name, dns.TypeCNAME); len(alias) > 0 {
		return z.add(&reply.Answer, alias)
	}
	return z.deny(reply, q.name)
}

func (z *zone) lookUp(name string, qtype uint16) []dns.RR {
	var set []dns.RR
	for _, rr := range z.records {
		if rr.Header().Rrtype == qtype && dns.CanonicalName(rr.Header().Name) == name {
			set = append(set, dns.Copy(rr))
		}
	}
	return set
}

// add appends a record set and its signature.
func (z *zone) add(section *[]dns.RR, set []dns.RR) error {
	*section = append(*section, set...)
	if z.key == nil {
		return nil
	}
	now := time.Now()
	sig := &dns.RRSIG{
		Hdr:       dns.RR_Header{Name: set[0].Header().Name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: recordTTL},
		Algorithm: z.key.Algorithm,
		Inception: uint32(now.Add(-time.Hour).Unix()), Expiration: uint32(now.Add(24 * time.Hour).Unix()),
		KeyTag: z.key.KeyTag(), SignerName: z.name,
	}
	if err := sig.Sign(z.signer, set); err != nil {
		return fmt.Errorf("signing %s: %w", set[0].Header().Name, err)
	}
	*section = append(*section, sig)
	return nil
}

// deny proves that name or type do not exist. RFC 9824 §3.1: a signed zone answers NOERROR with an NSEC that covers
// the one name; an unsigned one tells a missing name by NXDOMAIN.
func (z *zone) deny(reply *dns.Msg, name string) error {
	types, below := z.typesAt(name)
	if z.key == nil && len(types) == 0 && !below {
		reply.Rcode = dns.RcodeNameError
	}
	if err := z.add(&reply.Ns, z.lookUp(z.name, dns.TypeSOA)); err != nil || z.key == nil {
		return err
	}
	types = append(types, dns.TypeRRSIG, dns.TypeNSEC)
	if len(types) == 2 && !below {
		types = append(types, dns.TypeNXNAME)
	}
	slices.Sort(types)
	return z.add(&reply.Ns, []dns.RR{&dns.NSEC{
		Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: recordTTL},
		NextDomain: `\000.` + name,
		TypeBitMap: slices.Compact(types),
	}})
}

// typesAt lists the types of a name and tells whether names exist below it.
func (z *zone) typesAt(name string) (types []uint16, below bool) {
	for _, rr := range z.records {
		switch owner := dns.CanonicalName(rr.Header().Name); {
		case owner == name:
			types = append(types, rr.Header().Rrtype)
		case dns.IsSubDomain(name, owner):
			below = true
		}
	}
	return types, below
}
