package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// signature is one DKIM-Signature field, and what is known about it so far.
type signature struct {
	res   Result
	raw   []byte // the field without the CRLF at its end
	value int    // where the value begins, behind the colon
	tags  tagList

	// The value of b= with the white space around it, as offsets in raw: what
	// RFC 6376 §3.7 wants deleted for the hash.
	cutFrom, cutTo int

	signed   []byte // b= decoded
	bodyHash []byte // bh= decoded
	limit    int64  // l=, -1 without
	picks    []int32
}

// parseSignature reads the field at the index. What is wrong is in res; the
// facts that could be read are there even then. international tells whether the
// message is; it is asked only where that matters.
func parseSignature(fields [][]byte, index int, international func() bool) *signature {
	raw := bytes.TrimSuffix(fields[index], crlf)
	s := &signature{raw: raw, value: bytes.IndexByte(raw, ':') + 1, limit: -1}
	s.res.Index = index
	if len(raw) > maxSignature {
		s.res.fail(PermError, TooLarge, "the signature has %d octets, more than %d", len(raw), maxSignature)
		return s
	}
	var err error
	if s.tags, err = parseTags(raw[s.value:]); err != nil {
		s.res.fail(PermError, Malformed, "not a list of tags: %v", err)
	}
	s.version()
	s.domain(international)
	s.algorithm()
	s.canonicalization()
	s.method()
	s.names()
	s.identity(international)
	s.times()
	s.length()
	s.hashes()
	s.eightBit()
	return s
}

// required returns the tag, or sets what is wrong: RFC 6376 §6.1.1.
func (s *signature) required(name string) ([]byte, bool) {
	t, ok := s.tags.find(name)
	switch {
	case !ok:
		s.res.fail(PermError, Malformed, "the tag %s= is missing", name)
	case len(t.value) == 0:
		s.res.fail(PermError, Malformed, "the tag %s= is empty", name)
		return nil, false
	}
	return t.value, ok
}

// plain returns a value from which white space is dropped. The grammar has none
// in it, most verifiers drop it.
func (s *signature) plain(name string, value []byte) string {
	text, blank := strip(value)
	if blank {
		s.res.note(NoteWhiteSpace, Weak, "there is white space within the value of %s=", name)
	}
	return text
}

// word is plain for values whose letter case some verifiers heed.
func (s *signature) word(name string, value []byte) string {
	text := s.plain(name, value)
	lower := lowered(text)
	if lower != text {
		s.res.note(NoteLetterCase, Weak, "%s=%s is not in lower case", name, quote(text))
	}
	return lower
}

func (s *signature) version() {
	// RFC 6376 §3.5: v= is "1", and not for instance "1.0".
	if v, ok := s.required("v"); ok && string(v) != "1" {
		s.res.fail(PermError, WrongVersion, "v=%s is not 1", quote(v))
	}
}

func (s *signature) domain(international func() bool) {
	if v, ok := s.required("d"); ok {
		s.res.RawDomain = string(v)
		s.res.Domain = s.hostname("d", s.plain("d", v), international)
		if s.res.Domain != "" && !strings.Contains(s.res.Domain, ".") {
			// RFC 6376 §3.5: domain-name has a dot in it. Most verifiers do not look.
			s.res.note(NoteOneLabel, Weak, "d=%s has no dot", s.res.Domain)
		}
	}
	if v, ok := s.required("s"); ok {
		s.res.Selector = s.hostname("s", s.plain("s", v), international)
	}
	if s.res.Domain != "" && s.res.Selector != "" && len(s.keyName()) > maxName {
		s.res.fail(PermError, Malformed, "s= and d= make a name of more than %d octets", maxName)
	}
}

// keyName is where the key is, RFC 6376 §3.6.2.1.
func (s *signature) keyName() string { return s.res.Selector + "._domainkey." + s.res.Domain }

// hostname returns a name in lower case and A-labels, empty if it is none.
func (s *signature) hostname(tag, name string, international func() bool) string {
	if !isASCII(name) {
		// RFC 8616 §5: U-labels are for internationalized messages.
		if !international() {
			s.res.fail(PermError, Malformed, "%s=%s is not ASCII, and neither is the message internationalized: write it as A-labels", tag, quote(name))
			return ""
		}
		s.res.note(NoteULabel, Weak, "%s=%s is written as U-labels, which few verifiers read: write it as A-labels", tag, quote(name))
	}
	ascii, err := aLabels(name)
	if err != nil {
		s.res.fail(PermError, Malformed, "%s=%s is not a domain name: %v", tag, quote(name), err)
		return ""
	}
	if why := badName(ascii); why != "" {
		s.res.fail(PermError, Malformed, "%s=%s is not a domain name: %s", tag, quote(name), why)
		return ""
	}
	return ascii
}

func (s *signature) algorithm() {
	v, ok := s.required("a")
	if !ok {
		return
	}
	s.res.Algorithm = s.word("a", v)
	switch s.res.Algorithm {
	case "rsa-sha256", "ed25519-sha256": // RFC 6376 §3.3.2, RFC 8463 §3
	case "rsa-sha1":
		// RFC 8301 §3.1: MUST NOT be used for verifying.
		s.res.fail(PermError, UnsupportedAlgorithm, "a=rsa-sha1 is forbidden since RFC 8301: sign with rsa-sha256")
	default:
		s.res.fail(PermError, UnsupportedAlgorithm, "a=%s is neither rsa-sha256 nor ed25519-sha256", quote(s.res.Algorithm))
	}
}

func (s *signature) canonicalization() {
	header, body := string(Simple), string(Simple) // RFC 6376 §3.5: the default is simple/simple
	if t, ok := s.tags.find("c"); ok {
		named := false
		if header, body, named = strings.Cut(s.word("c", t.value), "/"); !named {
			body = string(Simple) // RFC 6376 §3.5: c=relaxed is relaxed/simple
		}
	}
	s.res.HeaderCanonicalization, s.res.BodyCanonicalization = Canonicalization(header), Canonicalization(body)
	for _, c := range []string{header, body} {
		if c != string(Simple) && c != string(Relaxed) {
			s.res.fail(PermError, UnsupportedCanonicalization, "c= names %s, which is neither simple nor relaxed", quote(c))
		}
	}
}

func (s *signature) method() {
	t, ok := s.tags.find("q")
	if !ok {
		return // RFC 6376 §3.5: the default is dns/txt
	}
	for _, m := range items(t.value) {
		if lowered(m) == "dns/txt" {
			s.word("q", m)
			return
		}
	}
	s.res.fail(PermError, UnsupportedQueryMethod, "q=%s does not name dns/txt", quote(t.value))
}

// names reads h=.
func (s *signature) names() {
	v, ok := s.required("h")
	if !ok {
		return
	}
	from := false
	for _, item := range items(v) {
		name := lowered(s.plain("h", item))
		switch {
		case name == "":
			s.res.note(NoteEmptyName, Weak, "h= has an empty name in it")
			continue
		case len(s.res.Names) == maxNames:
			s.res.fail(PermError, TooLarge, "h= has more than %d names", maxNames)
			return
		}
		s.res.Names = append(s.res.Names, name)
		from = from || name == "from"
	}
	if !from { // RFC 6376 §6.1.1
		s.res.fail(PermError, FromNotSigned, "h= does not name From")
	}
}

// identity reads i=, whose domain is d= or below it: RFC 6376 §6.1.1.
func (s *signature) identity(international func() bool) {
	t, ok := s.tags.find("i")
	if !ok {
		if s.res.Domain != "" {
			s.res.Identity = "@" + s.res.Domain
		}
		return
	}
	id, err := unquotePrintable(t.value)
	if err != nil {
		s.res.fail(PermError, Malformed, "i=%s: %v", quote(t.value), err)
		return
	}
	s.res.Identity = id
	at := strings.LastIndexByte(id, '@')
	if at < 0 {
		s.res.fail(PermError, Malformed, "i=%s has no \"@\"", quote(id))
		return
	}
	raw := id[at+1:]
	name := s.hostname("i", raw, international)
	if name == "" || s.res.Domain == "" {
		return
	}
	if !within(name, s.res.Domain) {
		s.res.fail(PermError, DomainMismatch, "the domain of i=%s is neither d=%s nor below it", quote(id), s.res.Domain)
	} else if isASCII(raw) && isASCII(s.res.RawDomain) && !strings.HasSuffix(raw, s.plain("d", []byte(s.res.RawDomain))) {
		s.res.note(NoteLetterCase, Weak, "i=%s and d=%s differ in letter case", quote(id), quote(s.res.RawDomain))
	}
}

// keyType is the type of key that a= needs.
func (s *signature) keyType() string {
	name, _, _ := strings.Cut(s.res.Algorithm, "-")
	return name
}

// below tells whether i= is below d=, which the flag s of a key forbids.
func (s *signature) below() bool {
	name, err := aLabels(s.res.Identity[strings.LastIndexByte(s.res.Identity, '@')+1:])
	return err != nil || name != s.res.Domain
}

func (s *signature) times() {
	s.res.Time = s.time("t")
	s.res.Expiry = s.time("x")
	if !s.res.Time.IsZero() && !s.res.Expiry.IsZero() && !s.res.Expiry.After(s.res.Time) {
		// RFC 6376 §3.5: x= MUST be greater than t=.
		s.res.fail(PermError, ExpiryBeforeTime, "x=%d is not after t=%d", s.res.Expiry.Unix(), s.res.Time.Unix())
	}
}

// time reads a number of seconds since 1970; zero without the tag.
func (s *signature) time(name string) time.Time {
	t, ok := s.tags.find(name)
	if !ok {
		return time.Time{}
	}
	digits := s.plain(name, t.value)
	if !isDigits(digits) {
		s.res.fail(PermError, Malformed, "%s=%s is not a number of seconds", name, quote(digits))
		return time.Time{}
	}
	// RFC 6376 §3.5: longer values MAY be considered infinite.
	if significant := strings.TrimLeft(digits, "0"); len(significant) > maxTimeDigits {
		s.res.note(NoteDigits, Weak, "%s= has more than %d digits", name, maxTimeDigits)
		digits = strings.Repeat("9", maxTimeDigits)
	}
	var seconds int64
	for _, c := range []byte(digits) {
		seconds = seconds*10 + int64(c-'0')
	}
	return time.Unix(seconds, 0)
}

func (s *signature) length() {
	t, ok := s.tags.find("l")
	if !ok {
		return
	}
	digits := s.plain("l", t.value)
	if !isDigits(digits) || len(digits) > maxLengthDigits {
		s.res.fail(PermError, Malformed, "l=%s is not a number of 1 to %d digits", quote(digits), maxLengthDigits)
		return
	}
	octets, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		octets = math.MaxInt64 // out of range: longer than any body
	}
	s.limit = octets
	s.res.Limit = Limit{Present: true, Octets: octets}
}

// hashes reads bh= and b=.
func (s *signature) hashes() {
	if v, ok := s.required("bh"); ok {
		hash, err := decode(v)
		switch {
		case err != nil:
			s.res.fail(PermError, Malformed, "bh= is not base64: %v", err)
		case len(hash) != sha256.Size:
			s.res.fail(PermError, Malformed, "bh= has %d octets, SHA-256 has %d", len(hash), sha256.Size)
		}
		s.bodyHash = hash
	}
	v, ok := s.required("b")
	if !ok {
		return
	}
	signed, err := decode(v)
	if err != nil {
		s.res.fail(PermError, Malformed, "b= is not base64: %v", err)
	}
	t, _ := s.tags.find("b")
	s.signed, s.cutFrom, s.cutTo = signed, s.value+t.start, s.value+t.end
}

// eightBit notes octets of 8 bits where a value is not judged by itself.
func (s *signature) eightBit() {
	for _, t := range s.tags {
		if t.name != "d" && t.name != "s" && t.name != "i" && !isASCII(t.value) {
			s.res.note(NoteEightBit, Weak, "the tag %s= is not ASCII", join(t.name))
			return
		}
	}
}

// pick chooses the fields that h= names: of each name from the bottom up, and
// none where there are no more (RFC 6376 §5.4.2).
func (s *signature) pick(h *header) {
	own := int32(s.res.Index)
	s.picks = make([]int32, len(s.res.Names))
	next := make([]int32, 0, len(s.res.Names))
	for i, name := range s.res.Names {
		k := 0
		for k < len(s.res.coverage) && s.res.coverage[k].name != name {
			k++
		}
		if k == len(s.res.coverage) {
			s.res.coverage = append(s.res.coverage, coverage{name: name, present: h.count(name, own)})
			next = append(next, h.first(name, own))
		}
		s.res.coverage[k].named++
		s.picks[i] = next[k]
		if next[k] != none {
			next[k] = h.next(next[k], own)
		}
	}
}

// headerSum hashes the fields of picks and the signature itself, RFC 6376 §3.7.
func (s *signature) headerSum(h *header, c Canonicalization, picks []int32, buf []byte) []byte {
	sum := newHeaderHash(buf)
	for _, i := range picks {
		if i != none {
			sum.add(c, h.fields[i])
		}
	}
	// RFC 6376 §3.7: b= is empty, and there is no CRLF at the end.
	sum.field(c, s.raw[:s.cutFrom], s.raw[s.cutTo:])
	return sum.sum()
}

// unquotePrintable decodes dkim-quoted-printable, RFC 6376 §2.11: white space is
// dropped. Lower-case hexadecimal digits pass.
func unquotePrintable(b []byte) (string, error) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch {
		case isSpace(b[i]):
		case b[i] != '=':
			out = append(out, b[i])
		case i+2 >= len(b):
			return "", fmt.Errorf("%q at the end is no quoted-printable", "=")
		default:
			c, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8)
			if err != nil {
				return "", fmt.Errorf("%s is no quoted-printable", quote(b[i:i+3]))
			}
			out = append(out, byte(c))
			i += 2
		}
	}
	return string(out), nil
}

// decode reads base64 with white space in it, RFC 6376 §2.10.
func decode(b []byte) ([]byte, error) {
	b = dense(b)
	out := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	n, err := base64.StdEncoding.Decode(out, b)
	return out[:n], err
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
