package dkim

import (
	"fmt"
	"slices"
	"time"
)

// Status is a result of RFC 8601 §2.7.1.
type Status uint8

const (
	// Pass: the signature verified.
	Pass Status = iota + 1
	// Fail: the message is not the one that was signed, or not by this key.
	Fail
	// TempError: nobody answered for the key; another time may tell.
	TempError
	// PermError: the signature or its key cannot be used, whatever the message.
	PermError
)

// String returns the word of RFC 8601 §2.7.1.
func (s Status) String() string {
	switch s {
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	case TempError:
		return "temperror"
	case PermError:
		return "permerror"
	default:
		return fmt.Sprintf("Status(%d)", uint8(s))
	}
}

// Cause is why a signature did not pass. The words are stable.
type Cause string

// With PermError: the signature cannot be used (RFC 6376 §6.1.1).
const (
	Malformed                   Cause = "malformed"                    // syntax, a missing tag, a bad name
	TooLarge                    Cause = "too-large"                    // beyond a limit of this package
	WrongVersion                Cause = "wrong-version"                // v= is not 1
	UnsupportedAlgorithm        Cause = "unsupported-algorithm"        // of a=, SHA-1 included
	UnsupportedCanonicalization Cause = "unsupported-canonicalization" // of c=
	UnsupportedQueryMethod      Cause = "unsupported-query-method"     // of q=
	FromNotSigned               Cause = "from-not-signed"
	DomainMismatch              Cause = "domain-mismatch"    // i= is not d= nor below it
	ExpiryBeforeTime            Cause = "expiry-before-time" // x= is not after t=
	Expired                     Cause = "expired"            // x= is past
)

// With PermError: the key cannot be used (RFC 6376 §6.1.2). KeyUnavailable comes
// with TempError.
const (
	KeyUnavailable Cause = "key-unavailable"
	KeyMissing     Cause = "key-missing"
	KeyNotUnique   Cause = "key-not-unique" // several records at its name
	KeyMalformed   Cause = "key-malformed"
	KeyRevoked     Cause = "key-revoked"          // p= is empty
	KeyWrongType   Cause = "key-wrong-type"       // k= is unknown, or not what a= needs
	KeyWrongHash   Cause = "key-wrong-hash"       // h= of the key lacks sha256
	KeyWrongUse    Cause = "key-wrong-service"    // s= of the key lacks email
	KeyStrict      Cause = "key-forbids-identity" // t=s, and i= is below d=
	KeyWeak        Cause = "key-weak"             // RSA under 1024 bits
	KeyOversized   Cause = "key-oversized"        // RSA over 16384 bits
)

// With Fail (RFC 6376 §6.1.3).
const (
	BodyChanged    Cause = "body-hash"
	BodyTooShort   Cause = "body-too-short" // l= is more than the body has
	HeaderChanged  Cause = "signature"      // the signature does not fit the header
	AnotherKey     Cause = "key-mismatch"   // the signature was made with another key
	BodyAndHeader  Cause = "body-hash-and-signature"
	BodyAnotherKey Cause = "body-hash-and-key-mismatch"
)

// Canonicalization is a way to prepare header or body for hashing, RFC 6376
// §3.4.
type Canonicalization string

// The canonicalizations that exist.
const (
	Simple  Canonicalization = "simple"
	Relaxed Canonicalization = "relaxed"
)

// Result is what is known about one DKIM-Signature field. Of a field that cannot
// be read only the first members are filled, as far as it could be.
type Result struct {
	Index int // of the field among the fields given to Begin, from 0

	Status Status
	Cause  Cause  // empty with Pass
	Detail string // for people: what is wrong and the one thing to mend; empty with Pass

	Domain    string // d=, lower case, A-labels
	RawDomain string // d= as it was written
	Selector  string // s=, lower case, A-labels
	Identity  string // i= decoded, or "@" and d=; foreign text, unlike Domain
	Algorithm string // a= in lower case: "rsa-sha256"

	HeaderCanonicalization, BodyCanonicalization Canonicalization

	Names []string // h= in its order, lower case, repetitions included

	Time   time.Time // t=, zero without
	Expiry time.Time // x=, zero without
	Limit  Limit     // l=

	Key   Key
	Notes []Note // what some verifiers take exception to

	BodyOctets int64 // of the body as it came, before canonicalization

	coverage []coverage
}

// Limit is l=, the number of octets of the canonicalized body that are signed.
type Limit struct {
	Present   bool
	Octets    int64 // math.MaxInt64 if l= is larger
	Uncovered int64 // octets behind it, which anyone may have written
}

// Covers tells how many instances of a field the signature covers, counted from
// the bottom of the header, and whether it is over-signed: named in h= more often
// than it is there, so that one added later breaks the signature (RFC 6376
// §8.15). The letter case of name does not matter.
func (r *Result) Covers(name string) (instances int, oversigned bool) {
	c := r.covered(lowered(name))
	return min(c.named, c.present), c.named > c.present
}

func (r *Result) covered(lower string) coverage {
	for _, c := range r.coverage {
		if c.name == lower {
			return c
		}
	}
	return coverage{name: lower}
}

// coverage tells how often h= names a field, and how often it is there.
type coverage struct {
	name           string // in lower case
	named, present int
}

// fail sets the first thing found wrong; what is found after it is not told.
func (r *Result) fail(status Status, cause Cause, format string, args ...any) {
	if r.Status == 0 {
		r.Status, r.Cause, r.Detail = status, cause, fmt.Sprintf(format, args...)
	}
}

func (r *Result) note(name string, class Class, format string, args ...any) {
	n := Note{name, class, fmt.Sprintf(format, args...)}
	if len(r.Notes) < maxNotes && !slices.Contains(r.Notes, n) {
		r.Notes = append(r.Notes, n)
	}
}
