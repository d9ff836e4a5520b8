package dkim

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Why a signature fails is found out by trying what commonly goes wrong on the
// way. All of this runs only for signatures that failed.

// emptyBodies are bh= of a body without anything in it: RFC 6376 §3.4.3, §3.4.4.
var emptyBodies = map[string]bool{
	"frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=": true,
	"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=": true,
}

// explainBody says how the body may have changed.
func explainBody(s *signature, d, other *digest) string {
	if emptyBodies[base64.StdEncoding.EncodeToString(s.bodyHash)] && !(s.res.Limit.Present && s.res.Limit.Octets == 0) {
		return "the signer saw no body at all: it must be called with the whole message"
	}
	if other != nil && s.limit < 0 && bytes.Equal(other.sum(nil), s.bodyHash) {
		return fmt.Sprintf("the signer hashed it otherwise than c= says (%s): correct c= at the signer", s.res.BodyCanonicalization)
	}
	if s.limit < 0 {
		if n, ok := d.surplus(s.bodyHash); ok {
			return fmt.Sprintf("without its last %d octets it is the one signed: something appended them, a footer or disclaimer; let it run before the signer", n)
		}
	}
	return "a content filter or a converter behind the signer changed it; sign last"
}

// explainHeader says how the header may have changed. want is the hash that was
// signed, where the signature tells it (RSA).
func explainHeader(s *signature, k *key, h *header, buf, want []byte) string {
	fits := func(c Canonicalization, picks []int32) bool {
		sum := s.headerSum(h, c, picks, buf)
		if want != nil {
			return bytes.Equal(sum, want)
		}
		return k.verifies(sum, s.signed)
	}
	if c := otherThan(s.res.HeaderCanonicalization); fits(c, s.picks) {
		return fmt.Sprintf("as %s it is the one signed, c= says %s: correct c= at the signer", c, s.res.HeaderCanonicalization)
	}
	if why := s.explainFields(h, fits); why != "" {
		return why
	}
	if name := s.explainCopies(h); name != "" {
		return fmt.Sprintf("%s differs from its copy in z=: something behind the signer changed it; sign last", quote(name))
	}
	if s.res.HeaderCanonicalization == Simple {
		return "something behind the signer changed a signed field, be it only its folding or white space: sign last, or with c=relaxed"
	}
	return "something behind the signer changed, removed or added a signed field: sign last"
}

func otherThan(c Canonicalization) Canonicalization {
	if c == Simple {
		return Relaxed
	}
	return Simple
}

// explainFields looks for a field that was not there when the message was
// signed: without it the signature fits.
func (s *signature) explainFields(h *header, fits func(Canonicalization, []int32) bool) string {
	tries := 0
	for _, c := range s.res.coverage {
		if c.present == 0 {
			continue
		}
		if tries++; tries > maxTries {
			return ""
		}
		// Added on top: h= names it at least as often as it is there.
		if c.present <= c.named {
			if fits(s.res.HeaderCanonicalization, without(s.picks, h, c.name)) {
				return fmt.Sprintf("%s was added after signing (h= names it %d times, %d are there): let what adds it run before the signer", join(c.name), c.named, c.present)
			}
			continue
		}
		// Added at the bottom: the ones further up were signed.
		if fits(s.res.HeaderCanonicalization, s.shifted(h, c.name)) {
			return fmt.Sprintf("%s was added below the one signed (h= names it %d times, %d are there): let what adds it run before the signer", join(c.name), c.named, c.present)
		}
	}
	return ""
}

// without leaves the topmost field of the name out.
func without(picks []int32, h *header, name string) []int32 {
	picks = slices.Clone(picks)
	for i := len(picks) - 1; i >= 0; i-- {
		if picks[i] != none && h.names[picks[i]] == name {
			picks[i] = none
			break
		}
	}
	return picks
}

// shifted takes for each field of the name the one above it.
func (s *signature) shifted(h *header, name string) []int32 {
	picks := slices.Clone(s.picks)
	for i, p := range picks {
		if p != none && h.names[p] == name {
			picks[i] = h.next(p, int32(s.res.Index))
		}
	}
	return picks
}

// explainCopies finds the field that differs from its copy in z=, which exists
// for this (RFC 6376 §3.5) and counts for nothing else.
func (s *signature) explainCopies(h *header) string {
	z, ok := s.tags.find("z")
	if !ok {
		return ""
	}
	left := maxCopies
	for item := range bytes.SplitSeq(z.value, []byte("|")) {
		field, err := unquotePrintable(item)
		if err != nil || !strings.Contains(field, ":") {
			continue
		}
		if left--; left < 0 {
			return ""
		}
		name := lowered(nameOf([]byte(field)))
		if c := s.res.covered(name); c.named > 0 && c.present > 0 && !s.hasCopy(h, name, squeezed(field)) {
			return name
		}
	}
	return ""
}

// hasCopy tells whether one of the signed fields of the name is the copy, white
// space and letter case of the name aside.
func (s *signature) hasCopy(h *header, name, want string) bool {
	for _, p := range s.picks {
		if p != none && h.names[p] == name && squeezed(h.fields[p]) == want {
			return true
		}
	}
	return false
}

// squeezed is a field's value without any white space: how signers put folds
// into z= differs.
func squeezed[T string | []byte](field T) string {
	b := []byte(field)
	value, _ := strip(b[bytes.IndexByte(b, ':')+1:])
	return value
}

// decrypt is the RSA public operation, RFC 8017 §5.2.2, on public data; empty if
// the signature is no number below the modulus of the right length.
func decrypt(k *rsa.PublicKey, signed []byte) []byte {
	c := new(big.Int).SetBytes(signed)
	if len(signed) != k.Size() || c.Cmp(k.N) >= 0 {
		return nil
	}
	return c.Exp(c, big.NewInt(int64(k.E)), k.N).FillBytes(make([]byte, k.Size()))
}

// pad is EMSA-PKCS1-v1_5 of a SHA-256, RFC 8017 §9.2.
func pad(sum []byte, size int) []byte {
	info := []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, sha256.Size}
	fill := size - 3 - len(info) - len(sum)
	if fill < 8 {
		return nil
	}
	out := append([]byte{0x00, 0x01}, bytes.Repeat([]byte{0xff}, fill)...)
	out = append(out, 0x00)
	out = append(out, info...)
	return append(out, sum...)
}
