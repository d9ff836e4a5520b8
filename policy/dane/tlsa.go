package dane

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"fmt"

	"github.com/postseal/postseal/internal/resolver"
)

// The numbers of a TLSA record by their names of RFC 7218 §2.
const (
	pkixTA, pkixEE, daneTA, daneEE = 0, 1, 2, 3
	cert, spki                     = 0, 1
	full, sha2256, sha2512         = 0, 1, 2
)

// Judge says why a TLSA record cannot be used for SMTP, empty when it can
// (DANE-030). It answers as Postfix with OpenSSL would (SSL_dane_tlsa_add):
// RFC 7672 §3.1 for the usage, RFC 6698 §2.1 for the other numbers and the data.
//
// Of a certificate or key in full only the frame is read, not the content:
// crypto/x509 refuses certificates that OpenSSL takes (negative serial numbers,
// odd extensions, curves that Go does not know), and a record wrongly held
// unusable would let a policy other than DANE answer for the host. A frame with
// nonsense inside is thus held usable here and not by Postfix, which then
// uses TLS without authentication, or makes the mail wait where DANE is mandatory.
func Judge(t resolver.TLSA) (reason string) {
	switch t.Usage {
	case daneTA, daneEE:
	case pkixTA, pkixEE:
		return fmt.Sprintf("certificate usage %d is not for SMTP", t.Usage) // RFC 7672 §3.1.3
	default:
		return fmt.Sprintf("unknown certificate usage %d", t.Usage)
	}
	if t.Selector != cert && t.Selector != spki {
		return fmt.Sprintf("unknown selector %d", t.Selector)
	}
	switch t.MatchingType {
	case full:
		return judgeFull(t)
	case sha2256:
		return judgeDigest(t, sha256.Size)
	case sha2512:
		return judgeDigest(t, sha512.Size)
	default:
		return fmt.Sprintf("unknown matching type %d", t.MatchingType)
	}
}

func judgeDigest(t resolver.TLSA, size int) string {
	if len(t.Data) != size {
		return fmt.Sprintf("matching type %d wants %d octets, not %d", t.MatchingType, size, len(t.Data))
	}
	return ""
}

func judgeFull(t resolver.TLSA) string {
	switch {
	case t.Selector == cert && !isCertificate(t.Data):
		return "the data is no X.509 certificate"
	case t.Selector == spki && !isPublicKey(t.Data):
		return "the data is no public key (SubjectPublicKeyInfo)"
	default:
		return ""
	}
}

// isCertificate recognises the frame of RFC 5280 §4.1: the three parts of a
// Certificate, and in the first, at their places, the parts up to the key.
func isCertificate(der []byte) bool {
	parts, ok := sequence(der)
	if !ok || len(parts) != 3 || !universal(parts[1], asn1.TagSequence) || !universal(parts[2], asn1.TagBitString) {
		return false
	}
	tbs, ok := sequence(parts[0].FullBytes)
	if !ok {
		return false
	}
	if len(tbs) > 0 && tbs[0].Class == asn1.ClassContextSpecific && tbs[0].Tag == 0 {
		tbs = tbs[1:] // version, absent in version 1
	}
	// serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo;
	// then unique identifiers and extensions, if any.
	if len(tbs) < 6 || !universal(tbs[0], asn1.TagInteger) {
		return false
	}
	for _, part := range tbs[1:5] {
		if !universal(part, asn1.TagSequence) {
			return false
		}
	}
	for _, part := range tbs[6:] {
		if part.Class != asn1.ClassContextSpecific {
			return false
		}
	}
	return isPublicKey(tbs[5].FullBytes)
}

// isPublicKey recognises the frame of a SubjectPublicKeyInfo, RFC 5280 §4.1.2.7:
// an algorithm that begins with its identifier, and a key that is not empty.
func isPublicKey(der []byte) bool {
	parts, ok := sequence(der)
	if !ok || len(parts) != 2 || !universal(parts[1], asn1.TagBitString) {
		return false
	}
	algorithm, ok := sequence(parts[0].FullBytes)
	// The first octet of a bit string counts its unused bits.
	return ok && len(algorithm) > 0 && universal(algorithm[0], asn1.TagOID) && len(parts[1].Bytes) > 1
}

// sequence takes a SEQUENCE apart; false if der is none, or not exactly one.
func sequence(der []byte) ([]asn1.RawValue, bool) {
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(der, &outer)
	if err != nil || len(rest) > 0 || !universal(outer, asn1.TagSequence) {
		return nil, false
	}
	var parts []asn1.RawValue
	for rest = outer.Bytes; len(rest) > 0; {
		var part asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &part); err != nil {
			return nil, false
		}
		parts = append(parts, part)
	}
	return parts, true
}

func universal(v asn1.RawValue, tag int) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == tag && v.IsCompound == (tag == asn1.TagSequence)
}
