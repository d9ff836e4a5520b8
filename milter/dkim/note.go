package dkim

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// Class is how much a note weighs.
type Class uint8

const (
	// Info: nobody refuses it, it is good to know.
	Info Class = iota + 1
	// Weak: some verifiers or receivers refuse it.
	Weak
	// Grave: the signature passes and protects nothing.
	Grave
)

// String returns the class in lower case.
func (c Class) String() string {
	switch c {
	case Info:
		return "info"
	case Weak:
		return "weak"
	case Grave:
		return "grave"
	default:
		return fmt.Sprintf("Class(%d)", uint8(c))
	}
}

// Note is something that the signature's author could do better. The names are
// stable.
type Note struct {
	Name   string
	Class  Class
	Detail string
}

// The names of notes, and their classes.
const (
	NoteExpiresSoon   = "signature-expires"    // Weak: x= is before a queue gives up
	NoteFuture        = "time-in-future"       // Weak: t= is ahead of the clock
	NoteSimpleHeader  = "simple-header"        // Info: c=simple for the header
	NoteBodyLimit     = "body-length-limit"    // Weak: l=
	NoteBodyLimitType = "body-length-type"     // Grave: l=, and Content-Type is not signed
	NoteUnsigned      = "headers-unsigned"     // Weak: fields that should be signed
	NoteOversign      = "from-not-oversigned"  // Weak: another From could be added
	NoteFragile       = "headers-fragile"      // Weak: fields signed that change on the way
	NoteLarge         = "signature-large"      // Info: a field of more than 4 kB
	NoteKeyShort      = "key-short"            // Weak: RSA under 2048 bits
	NoteKeyLong       = "key-long"             // Weak: RSA over 4096 bits
	NoteKeyTesting    = "key-testing"          // Weak: t=y
	NoteKeyForm       = "key-form"             // Weak: p= written otherwise than others read it
	NoteEd25519       = "ed25519"              // Info: few receivers verify it
	NoteLetterCase    = "letter-case"          // Weak: a=, c=, q=, i=, or h= of the key
	NoteWhiteSpace    = "white-space"          // Weak: within a value that may have none
	NoteDigits        = "timestamp-digits"     // Weak: more than 12 digits
	NoteULabel        = "domain-u-label"       // Weak: d=, i= or s= as U-labels
	NoteEightBit      = "signature-8bit"       // Weak: octets of 8 bits elsewhere
	NoteEmptyName     = "empty-name"           // Weak: h= has an empty name
	NoteLooksLikeB    = "looks-like-signature" // Weak: the name of another tag ends in b; Info: one holds "b="
	NoteOneLabel      = "domain-single-label"  // Weak: d= is no domain that anybody can own
)

// Fields that should be signed where they are present: RFC 6376 §5.4.1, and
// those that say how the body is to be read. Fields that begin with "list-" are
// judged alike.
var shouldSign = []string{
	"from", "subject", "date", "to", "cc", "reply-to", "message-id", "mime-version", "content-type",
	"content-transfer-encoding", "in-reply-to", "references",
}

// shouldNotSign tells the fields that RFC 6376 §5.4 warns of, or that Postfix
// and the hops behind it add, remove or change.
func shouldNotSign(name string) bool {
	switch name {
	case "return-path", "received", "comments", "keywords", "bcc", "dkim-signature", "authentication-results":
		return true
	}
	return strings.HasPrefix(name, "resent-") || strings.HasPrefix(name, "arc-")
}

// noteCoverage judges which fields are signed.
func (s *signature) noteCoverage(h *header) {
	var missing []string
	for _, name := range shouldSign {
		missing = s.uncovered(missing, name, h)
	}
	for i, name := range h.names {
		if strings.HasPrefix(name, "list-") && h.lowest[name] == int32(i) { // each name once
			missing = s.uncovered(missing, name, h)
		}
	}
	if len(missing) > 0 {
		s.res.note(NoteUnsigned, Weak, "h= leaves out what is in the header: %s", join(missing...))
	}
	if _, oversigned := s.res.Covers("from"); !oversigned {
		s.res.note(NoteOversign, Weak, "another From can be added on top without breaking the signature; name From once more in h=")
	}
	var fragile []string
	for _, c := range s.res.coverage {
		if shouldNotSign(c.name) {
			fragile = append(fragile, c.name)
		}
	}
	if len(fragile) > 0 {
		s.res.note(NoteFragile, Weak, "h= names fields that are added or changed on the way: %s", join(fragile...))
	}
}

// uncovered adds the name if an instance of the field is not signed.
func (s *signature) uncovered(missing []string, name string, h *header) []string {
	c := s.res.covered(name)
	if c.named == 0 {
		c.present = h.count(name, int32(s.res.Index))
	}
	switch {
	case c.present <= c.named:
		return missing
	case c.named == 0:
		return append(missing, name)
	default:
		return append(missing, fmt.Sprintf("%s (%d of %d)", name, c.present-c.named, c.present))
	}
}

// noteSyntax tells what other verifiers may trip over in a signature that could
// be read.
func (s *signature) noteSyntax() {
	r := &s.res
	if len(s.raw) > largeSignature {
		r.note(NoteLarge, Info, "the signature has %d octets, more than %d", len(s.raw), largeSignature)
	}
	if r.HeaderCanonicalization == Simple {
		r.note(NoteSimpleHeader, Info, "c=simple for the header breaks when anything is folded anew on the way; relaxed does not")
	}
	if r.Limit.Present {
		reason := "l= lets anybody append to the body; verifiers refuse or ignore such signatures"
		if r.Limit.Octets == 0 {
			reason = "l=0 signs nothing of the body"
		}
		r.note(NoteBodyLimit, Weak, "%s", reason)
		if n, _ := r.Covers("content-type"); n == 0 {
			// RFC 6376 §8.2: what is appended could become all that is shown.
			r.note(NoteBodyLimitType, Grave, "l= and an unsigned Content-Type let anybody replace what the reader sees")
		}
	}
	if strings.HasPrefix(r.Algorithm, "ed25519-") {
		r.note(NoteEd25519, Info, "many receivers do not verify Ed25519; it wants an RSA signature beside it")
	}
	for _, t := range s.tags {
		switch {
		case t.name != "b" && strings.HasSuffix(t.name, "b"):
			// libopendkim and go-msgauth cut its value out, too.
			r.note(NoteLooksLikeB, Weak, "some verifiers take the tag %s= for b=: name it otherwise", join(t.name))
			return
		case looksLikeB(t.value):
			// go-msgauth does, for instance in the z= of OpenDKIM's "Diagnostics yes".
			r.note(NoteLooksLikeB, Info, "the tag %s= holds \"b=\", which some verifiers take for the signature", join(t.name))
			return
		}
	}
}

// looksLikeB tells whether there is "b=" in a value, white space between aside.
func looksLikeB(value []byte) bool {
	for {
		before, after, found := bytes.Cut(value, []byte("="))
		if !found {
			return false
		}
		if before = trim(before); len(before) > 0 && before[len(before)-1] == 'b' {
			return true
		}
		value = after
	}
}

// noteTimes compares t= and x= with the clock.
func (s *signature) noteTimes(now time.Time) {
	r := &s.res
	if ahead := r.Time.Sub(now); !r.Time.IsZero() && ahead > clockSkew {
		r.note(NoteFuture, Weak, "t= is %s ahead of the clock; verifiers refuse more than %s", ahead.Round(time.Second), clockSkew)
	}
	if left := r.Expiry.Sub(now); !r.Expiry.IsZero() && left >= 0 && left < queueLifetime {
		r.note(NoteExpiresSoon, Weak, "x= is %s away; a queue keeps mail for %s", left.Round(time.Second), queueLifetime)
	}
}
