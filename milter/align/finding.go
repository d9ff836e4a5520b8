package align

import (
	"cmp"
	"slices"
)

// Class says how bad a finding is for the message's way into the world.
type Class uint8

// Ordered: the greater the worse.
const (
	Info Class = iota // worth knowing, nobody refuses for it
	Weak              // some receivers will refuse, or may in some weather
	Fail              // receivers that follow the rules will refuse
)

var classes = [...]string{"info", "weak", "fail"}

// String returns "info", "weak" or "fail".
func (c Class) String() string {
	if int(c) < len(classes) {
		return classes[c]
	}
	return "?"
}

// Finding is one thing that is wrong, or worth knowing, about a message. A
// message has at most one finding of a name: when two signatures have the same
// trouble, the worse one is told.
type Finding struct {
	// Name is stable: configuration, metrics and documentation use it.
	Name  string
	Class Class
	// Detail is one sentence that names the one thing to fix first. What it
	// quotes of the message is escaped and shortened; it never holds a line break.
	Detail string
	// Code is what a receiver answers to such a message, "550 5.7.26", or empty.
	// Refusals knows them all.
	Code string
}

// Names of findings. The package comment has the table of their classes.
const (
	Unsigned         = "unsigned"
	SignatureInvalid = "signature-invalid"
	KeyMissing       = "key-missing"
	KeyMismatch      = "key-mismatch"
	KeyRevoked       = "key-revoked"
	KeyInvalid       = "key-invalid"
	KeyWeak          = "key-weak"
	KeyTesting       = "key-testing"
	Ed25519Only      = "ed25519-only"
	SignatureExpires = "signature-expires"
	SignatureFragile = "signature-fragile"
	BodyLengthLimit  = "body-length-limit"
	HeadersUnsigned  = "headers-unsigned"

	Unaligned        = "unaligned"
	AlignmentDiffers = "alignment-differs"
	DMARCMissing     = "dmarc-missing"
	DMARCInvalid     = "dmarc-invalid"
	SPFEgress        = "spf-egress"

	FromMissing      = "from-missing"
	FromMultiple     = "from-multiple"
	FromInvalid      = "from-invalid"
	FromForeign      = "from-foreign"
	FromAmbiguous    = "from-ambiguous"
	FromSpoofLike    = "from-spoof-like"
	FromUnresolvable = "from-unresolvable"
	FromAuthors      = "from-authors"
	SenderMissing    = "sender-missing"
	SenderNotAllowed = "sender-not-allowed"

	DateMissing      = "date-missing"
	DateInvalid      = "date-invalid"
	DateSkewed       = "date-skewed"
	MessageIDMissing = "message-id-missing"
	MessageIDInvalid = "message-id-invalid"
	HeaderDuplicate  = "header-duplicate"
	HeaderInvalid    = "header-invalid"
	Header8Bit       = "header-8bit"
	BodyInvalid      = "body-invalid"
	OneClickMissing  = "oneclick-missing"
	OneClickUnsigned = "oneclick-unsigned"

	Fragile8Bit     = "fragile-8bit"
	FragileLongLine = "fragile-longline"
	SizeLimit       = "size-limit"
	TLSRequiredNo   = "tls-required-no"
	DNSTrouble      = "dns-trouble"
)

// order is that of findings of one class: what to mend first stands first.
var order = []string{
	SenderNotAllowed, FromMissing, FromMultiple, FromInvalid, FromForeign,
	Unsigned, SignatureInvalid, KeyMissing, KeyRevoked, KeyMismatch, KeyInvalid, KeyWeak, SignatureExpires,
	Unaligned, DMARCMissing, HeaderInvalid, Header8Bit, DateMissing, HeaderDuplicate, OneClickMissing, OneClickUnsigned,
	AlignmentDiffers, DMARCInvalid, SPFEgress, Ed25519Only, KeyTesting, BodyLengthLimit, HeadersUnsigned, SignatureFragile,
	FragileLongLine, Fragile8Bit, FromAmbiguous, FromUnresolvable, SenderMissing, MessageIDMissing, MessageIDInvalid,
	DateInvalid, DateSkewed, BodyInvalid, SizeLimit, FromAuthors, FromSpoofLike, TLSRequiredNo, DNSTrouble,
}

// rank is the place of a name in order.
var rank = func() map[string]int {
	m := make(map[string]int, len(order))
	for i, name := range order {
		m[name] = i
	}
	return m
}()

// Names returns the name of every finding that Check can return, sorted.
func Names() []string { return slices.Sorted(slices.Values(order)) }

// Worst returns the worst class of the findings; Info when there is none.
func Worst(findings []Finding) Class {
	worst := Info
	for _, f := range findings {
		worst = max(worst, f.Class)
	}
	return worst
}

// findings collects them, one for each name.
type findings struct {
	list []Finding
}

// add keeps the worse of two findings of one name, the first of equals.
func (f *findings) add(name string, class Class, detail string) {
	i := slices.IndexFunc(f.list, func(have Finding) bool { return have.Name == name })
	switch {
	case i < 0:
		f.list = append(f.list, Finding{Name: name, Class: class, Detail: detail, Code: code(name)})
	case class > f.list[i].Class:
		f.list[i].Class, f.list[i].Detail = class, detail
	}
}

// sorted returns them, worst class first, then in the fixed order of names.
func (f *findings) sorted() []Finding {
	slices.SortFunc(f.list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Class, a.Class), cmp.Compare(rank[a.Name], rank[b.Name]))
	})
	return f.list
}
