package dkim

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"
)

// The limits. Beyond one of them a signature is TooLarge, or was not considered
// (Verification.Skipped); nothing is cut.
const (
	defaultSignatures = 10    // verified of one message; OpenDKIM's MaximumSignaturesToVerify is 3
	maxConsidered     = 1000  // of which d= is read, to choose those
	maxSignature      = 65536 // octets of one field; OpenDKIM takes that for a whole header (MaximumHeaders)
	largeSignature    = 4096  // and from when on that is worth a note
	maxTags           = 200
	maxNames          = 1000 // in h=
	maxNotes          = 40
	maxQuoted         = 80  // octets of foreign text in a detail
	maxListed         = 400 // and of a list of names

	maxKeyRecord  = 65535 // octets, the most that DNS can carry
	minRSABits    = 1024
	goodRSABits   = 2048
	commonRSABits = 4096
	maxRSABits    = 16384 // OpenSSL's OPENSSL_RSA_MAX_MODULUS_BITS

	maxTimeDigits   = 12 // RFC 6376 §3.5, t= and x=
	maxLengthDigits = 76 // RFC 6376 §3.5, l=

	maxTries  = 25 // of explanations for one failed signature
	maxCopies = 100

	scratchSize = 2048 // for canonical fields on their way to the hash
)

const (
	clockSkew     = 5 * time.Minute    // libopendkim's default for t= ahead of its clock
	queueLifetime = 5 * 24 * time.Hour // Postfix's maximal_queue_lifetime
)

// Lookup returns the TXT records at a name, which is in lower case and A-labels,
// without a dot at the end: of each record the strings joined, as octets without
// escapes. No records, whether the name does not exist or has none, is an empty
// slice and no error: absence is an answer. An error means that nobody answered,
// and makes the result temporary.
type Lookup func(ctx context.Context, name string) ([]string, error)

// Verifier verifies messages. Its fields are not to be changed while it is in
// use; it may be used from many goroutines at once.
type Verifier struct {
	Lookup Lookup

	// MaxSignatures is how many signatures of a message are verified, 10 if not set:
	// the topmost ones, those for which Prefer is true first.
	MaxSignatures int

	// Prefer tells our own domains, given in lower case and A-labels; nil for
	// none. A crowd of foreign signatures on top does not hide ours then.
	Prefer func(domain string) bool
}

// Verification is one message on its way through a Verifier: Begin, Write for
// the body, Finish. It belongs to one goroutine at a time and holds nothing that
// would have to be released.
type Verification struct {
	verifier *Verifier
	header   header
	found    []*signature
	skipped  int
	bodies   map[Canonicalization]body
	octets   int64
}

// Begin reads the signatures of a header, given as the raw fields in wire order:
// name, colon, value and CRLF, folded lines with their CRLF. The fields are used
// until Finish and not kept after it.
func (v *Verifier) Begin(fields [][]byte) *Verification {
	m := &Verification{verifier: v}
	m.choose(fields)
	if len(m.found) == 0 {
		return m
	}
	m.header = newHeader(fields)
	m.bodies = make(map[Canonicalization]body, 2)
	for _, s := range m.found {
		s.pick(&m.header)
		if len(s.res.Names) > 0 {
			s.noteCoverage(&m.header)
		}
		s.noteSyntax()
		if s.res.Status == 0 {
			m.expect(s)
		}
	}
	return m
}

// choose parses the signatures and keeps those to be verified.
func (m *Verification) choose(fields [][]byte) {
	var preferred, others []*signature
	total := 0
	international := sync.OnceValue(func() bool { return isInternational(fields) })
	for i, field := range fields {
		if !hasName(field, "dkim-signature") {
			continue
		}
		if total++; total > maxConsidered {
			continue
		}
		s := parseSignature(fields, i, international)
		if v := m.verifier; v.Prefer != nil && s.res.Domain != "" && v.Prefer(s.res.Domain) {
			preferred = append(preferred, s)
		} else {
			others = append(others, s)
		}
	}
	limit := m.verifier.MaxSignatures
	if limit <= 0 {
		limit = defaultSignatures
	}
	m.found = append(preferred, others...)
	m.found = m.found[:min(limit, len(m.found))]
	m.skipped = total - len(m.found)
	slices.SortFunc(m.found, func(a, b *signature) int { return a.res.Index - b.res.Index })
}

// expect sees to it that the body is hashed as the signature needs it.
func (m *Verification) expect(s *signature) {
	c := s.res.BodyCanonicalization
	b, ok := m.bodies[c]
	if !ok {
		b = newBody(c)
		m.bodies[c] = b
	}
	if s.limit >= 0 {
		b.digest().limitTo(s.limit)
	}
}

// Skipped is how many DKIM-Signature fields get no Result, because there are
// more than MaxSignatures.
func (m *Verification) Skipped() int { return m.skipped }

// Keys returns the names of the key records that Finish will look up, each once,
// so that a cache can be warmed while the body comes in.
func (m *Verification) Keys() []string {
	var names []string
	for _, s := range m.found {
		if name := s.keyName(); s.res.Status == 0 && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Write takes a piece of the body, cut anywhere, with lines ended by CRLF. A CR
// or LF on its own is text. It never fails, and does not keep the piece.
func (m *Verification) Write(chunk []byte) (int, error) {
	m.octets += int64(len(chunk))
	for _, b := range m.bodies {
		b.write(chunk)
	}
	return len(chunk), nil
}

// Finish looks up the keys, one after the other, and returns one Result for each
// DKIM-Signature field considered, in the order of the header. Signatures expire
// by time.Now. It is to be called once, after the last Write.
func (m *Verification) Finish(ctx context.Context) []Result {
	now := time.Now()
	for _, b := range m.bodies {
		b.finish()
		b.digest().write(nil) // for l=0 of an empty body
	}
	j := judge{Verification: m, scratch: make([]byte, 0, scratchSize)}
	results := make([]Result, len(m.found))
	for i, s := range m.found {
		j.judge(ctx, s, now)
		s.res.BodyOctets = m.octets
		results[i] = s.res
	}
	*m = Verification{skipped: m.skipped}
	return results
}

// judge is a Verification at its end.
type judge struct {
	*Verification
	keys    []*key
	scratch []byte
}

func (j *judge) judge(ctx context.Context, s *signature, now time.Time) {
	s.noteTimes(now)
	if s.res.Status != 0 {
		return
	}
	d := j.bodies[s.res.BodyCanonicalization].digest()
	if s.limit >= 0 {
		s.res.Limit.Uncovered = max(0, d.length-s.limit)
	}
	k := j.key(ctx, s.keyName())
	s.res.Key = k.Key
	s.res.Notes = append(s.res.Notes, k.notes...)
	if !s.res.Expiry.IsZero() && now.After(s.res.Expiry) {
		s.res.fail(PermError, Expired, "x= was %s ago", now.Sub(s.res.Expiry).Round(time.Second))
	}
	k.fits(s)
	if s.res.Status == 0 {
		j.verify(s, k, d)
	}
}

// key looks a key up, once for all signatures with it.
func (j *judge) key(ctx context.Context, name string) *key {
	for _, k := range j.keys {
		if k.Name == name {
			return k
		}
	}
	k := &key{Key: Key{Name: name}}
	records, err := j.verifier.Lookup(ctx, name)
	switch {
	case err != nil:
		k.problem = problem{TempError, KeyUnavailable, "nobody answered for the key at " + name + ": " + err.Error()}
	case len(records) == 0:
		k.problem = problem{PermError, KeyMissing, "there is no key at " + name + ": publish it, or sign with a selector that has one"}
	case len(records) > 1:
		// RFC 6376 §3.6.2.2: what happens then is undefined.
		k.problem = problem{PermError, KeyNotUnique, "there are several TXT records at " + name + ", and verifiers differ in which they take: leave one"}
	default:
		k = parseKey(name, records[0])
	}
	j.keys = append(j.keys, k)
	return k
}

// verify is RFC 6376 §6.1.3.
func (j *judge) verify(s *signature, k *key, d *digest) {
	sum, enough := d.sumAt(s.limit)
	if !enough {
		// RFC 6376 §3.5: l= MUST NOT be larger than the body.
		s.res.fail(Fail, BodyTooShort, "l=%d, and the body has only %d octets: something cut it after signing", s.limit, d.length)
		return
	}
	body := bytes.Equal(sum, s.bodyHash)
	sum = s.headerSum(&j.header, s.res.HeaderCanonicalization, s.picks, j.scratch)
	header := k.verifies(sum, s.signed)
	if body && header {
		s.res.Status = Pass
		return
	}
	j.explain(s, k, d, body, header)
}

// explain sets why body or header do not fit.
func (j *judge) explain(s *signature, k *key, d *digest, body, header bool) {
	want, ours, known := k.made(s.signed)
	var why string
	if !body {
		var other *digest
		if b, ok := j.bodies[otherThan(s.res.BodyCanonicalization)]; ok {
			other = b.digest()
		}
		why = explainBody(s, d, other)
	}
	switch {
	case header:
		s.res.fail(Fail, BodyChanged, "the body changed after signing, the header did not: %s", why)
	case known && !ours && body:
		s.res.fail(Fail, AnotherKey, "the body is the one signed, but the key at %s is not the one that signed (%d bits, the signature has %d): publish the signer's key there", k.Name, k.Bits, len(s.signed)*8)
	case known && !ours:
		s.res.fail(Fail, BodyAnotherKey, "the key at %s is not the one that signed, and the body changed after signing: %s", k.Name, why)
	case !body:
		s.res.fail(Fail, BodyAndHeader, "body and header changed after signing: %s", why)
	default:
		s.res.fail(Fail, HeaderChanged, "the header does not fit the signature, the body does: %s", explainHeader(s, k, &j.header, j.scratch, want))
	}
}
