package reach

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
)

// The numbers of a TLSA record by their names of RFC 7218 §2.
const (
	daneTA, daneEE         = 2, 3
	cert, spki             = 0, 1
	full, sha2256, sha2512 = 0, 1, 2
)

// usable returns the records that Postfix would hand to OpenSSL and OpenSSL
// would take: RFC 7672 §3.1 for the usage, RFC 6698 §2.1 for the rest.
func usable(records []TLSA) []TLSA {
	var all []TLSA
	for _, r := range records {
		if (r.Usage == daneTA || r.Usage == daneEE) && (r.Selector == cert || r.Selector == spki) && wellFormed(r) {
			all = append(all, r)
		}
	}
	return all
}

func wellFormed(r TLSA) bool {
	switch r.MatchingType {
	case sha2256:
		return len(r.Data) == sha256.Size
	case sha2512:
		return len(r.Data) == sha512.Size
	case full:
		// Only the frame is read: crypto/x509 refuses what OpenSSL takes. What Go
		// cannot read is never the reason of a Negative, see judgeDANE.
		var outer asn1.RawValue
		rest, err := asn1.Unmarshal(r.Data, &outer)
		return err == nil && len(rest) == 0 && outer.Tag == asn1.TagSequence && outer.IsCompound &&
			outer.Class == asn1.ClassUniversal && framed(outer.Bytes, r.Selector)
	default:
		return false
	}
}

// framed counts the parts: RFC 5280 §4.1 has three in a certificate, §4.1.2.7
// two in a key, and both begin with a SEQUENCE and end with a BIT STRING.
func framed(inner []byte, selector uint8) bool {
	var tags []int
	for len(inner) > 0 && len(tags) < 4 {
		var part asn1.RawValue
		rest, err := asn1.Unmarshal(inner, &part)
		if err != nil {
			return false
		}
		tags, inner = append(tags, part.Tag), rest
	}
	want := 3
	if selector == spki {
		want = 2
	}
	return len(tags) == want && tags[0] == asn1.TagSequence && tags[want-1] == asn1.TagBitString
}

// agile drops the digests of a usage and selector for which a stronger one is
// there (RFC 7671 §9); data in full stays.
func agile(records []TLSA) []TLSA {
	type pair struct{ usage, selector uint8 }
	strongest := map[pair]uint8{}
	for _, r := range records {
		p := pair{r.Usage, r.Selector}
		strongest[p] = max(strongest[p], r.MatchingType)
	}
	var all []TLSA
	for _, r := range records {
		if r.MatchingType == full || r.MatchingType == strongest[pair{r.Usage, r.Selector}] {
			all = append(all, r)
		}
	}
	return all
}

// matches compares a record with a certificate (RFC 6698 §2.1.4).
func (r TLSA) matches(c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == spki {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.MatchingType {
	case sha2256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case sha2512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, r.Data)
}
