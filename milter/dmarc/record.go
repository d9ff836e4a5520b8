package dmarc

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

const (
	maxTags   = 100 // of one record; a record with more is none
	maxQuoted = 80  // octets of foreign text in a note
	maxNotes  = 10  // of one record
)

const wsp = " \t" // RFC 5234 appendix B.1

// ErrNotDMARC: the text is no DMARC record, and as good as absent.
var ErrNotDMARC = errors.New("not a DMARC record")

// Policy is what the domain's owner wants done with mail that does not pass.
type Policy uint8

// The policies. Absent is a tag that is missing or has no valid value.
const (
	Absent Policy = iota
	None
	Quarantine
	Reject
)

var policies = [...]string{"", "none", "quarantine", "reject"}

// String returns the value in a record; empty for Absent.
func (p Policy) String() string {
	if int(p) < len(policies) {
		return policies[p]
	}
	return "?"
}

// PSD is the value of psd=, RFC 9989 §4.7.
type PSD byte

// The values. Unspecified is the default.
const (
	Unspecified    PSD = 'u'
	PublicSuffix   PSD = 'y' // the domain is a public suffix
	Organizational PSD = 'n' // the domain is the organizational one for all below
)

// Record is a DMARC policy record, RFC 9989 §4.7. The zero value is no record.
type Record struct {
	// Text is the record as published.
	Text string
	// P, SP and NP are the policies for the domain, for subdomains, and for
	// subdomains that do not exist. InvalidP and so on tell a value that is not
	// valid from a missing tag.
	P, SP, NP                      Policy
	InvalidP, InvalidSP, InvalidNP bool
	// StrictDKIM is adkim=s, StrictSPF is aspf=s.
	StrictDKIM, StrictSPF bool
	PSD                   PSD
	// Testing is t=y: the policy is to be applied one level lower.
	Testing bool
	// Reports: rua= has at least one valid URI.
	Reports bool
	// Strict7489 says what makes the record invalid by the letter of RFC 7489
	// §6.4, empty when nothing does.
	Strict7489 string
	// Notes are sentences about what was ignored.
	Notes []string
}

// IsRecord tells whether a TXT record counts as DMARC: it begins with the tag v
// of value DMARC1, RFC 9989 §4.7. The value's case counts, that of the tag's name
// does not (RFC 7405), and white space may stand around the equals sign.
func IsRecord(txt string) bool {
	_, ok := afterVersion(txt)
	return ok
}

// afterVersion returns what follows the version and its delimiter.
func afterVersion(txt string) (rest string, ok bool) {
	first, rest, _ := strings.Cut(txt, ";")
	tag, value, found := strings.Cut(first, "=")
	// The tag begins the record: no white space before it.
	ok = found && strings.EqualFold(strings.TrimRight(tag, wsp), "v") && strings.Trim(value, wsp) == "DMARC1"
	return rest, ok
}

// ParseRecord reads a record: its character-strings joined, bytes as on the wire.
// What is wrong behind the version is ignored or takes its default (RFC 9989
// §4.7), with a note. The error wraps ErrNotDMARC.
func ParseRecord(txt string) (Record, error) {
	rest, ok := afterVersion(txt)
	if !ok {
		return Record{}, fmt.Errorf("%w: %s does not begin with v=DMARC1", ErrNotDMARC, quote(txt))
	}
	if strings.Count(rest, ";") >= maxTags {
		return Record{}, fmt.Errorf("%w: more than %d tags", ErrNotDMARC, maxTags)
	}
	r := Record{Text: txt, PSD: Unspecified}
	seen := map[string]bool{"v": true}
	for part, i := rest, 0; part != ""; i++ {
		var tag string
		tag, part, _ = strings.Cut(part, ";")
		if tag = strings.Trim(tag, wsp); tag == "" {
			if part != "" {
				r.note("empty tag ignored")
			}
			continue
		}
		key, value, found := strings.Cut(tag, "=")
		// RFC 9989 §4.8: names are ABNF strings, which have no case (RFC 5234 §2.3).
		key = strings.ToLower(strings.TrimRight(key, wsp))
		switch {
		case !found || !isAlpha(key):
			r.note("%s is no tag and ignored", quote(tag))
		case seen[key]:
			// RFC 6376 §3.2, whose syntax this is, calls the list invalid; nobody
			// is protected by that. The first counts.
			r.note("another %s= ignored", key)
			r.strict7489("the tag %s= is repeated", key)
		default:
			seen[key] = true
			// RFC 7489 §6.4: p= follows the version.
			if key == "p" && i > 0 {
				r.strict7489("p= does not follow v=DMARC1 directly")
			}
			r.set(key, strings.Trim(value, wsp))
		}
	}
	switch {
	case r.InvalidP:
		r.strict7489("p= has no valid value")
	case r.P == Absent:
		r.strict7489("there is no p=")
	case r.InvalidSP:
		r.strict7489("sp= has no valid value, so that it counts as p=none")
	}
	return r, nil
}

func (r *Record) set(key, value string) {
	switch key {
	case "p":
		r.P, r.InvalidP = r.policy(key, value)
	case "sp":
		r.SP, r.InvalidSP = r.policy(key, value)
	case "np":
		r.NP, r.InvalidNP = r.policy(key, value)
	case "adkim":
		r.StrictDKIM = r.one(key, value, "rs") == 's'
	case "aspf":
		r.StrictSPF = r.one(key, value, "rs") == 's'
	case "t":
		r.Testing = r.one(key, value, "ny") == 'y'
	case "psd":
		r.PSD = PSD(r.one(key, value, "uyn"))
	case "rua":
		if r.Reports = hasURI(value); !r.Reports {
			r.note("rua= has no valid address")
		}
	}
	// Unknown tags are ignored; pct, rf and ri are of RFC 7489 only.
}

// policy: dmarc-request = "none" / "quarantine" / "reject", without case.
func (r *Record) policy(key, value string) (p Policy, invalid bool) {
	for p := None; p <= Reject; p++ {
		if strings.EqualFold(value, p.String()) {
			if value != p.String() {
				r.note("%s=%s is not in lower case, which some receivers want", key, value)
			}
			return p, false
		}
	}
	r.note("%s=%s is no policy", key, quote(value))
	return Absent, true
}

// one reads a value of a single letter, of which the first is the default.
func (r *Record) one(key, value, letters string) byte {
	if value = strings.ToLower(value); len(value) == 1 && strings.Contains(letters, value) {
		return value[0]
	}
	r.note("%s=%s is ignored", key, quote(value))
	return letters[0]
}

func (r *Record) note(format string, args ...any) {
	if len(r.Notes) < maxNotes {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

func (r *Record) strict7489(format string, args ...any) {
	if r.Strict7489 == "" {
		r.Strict7489 = fmt.Sprintf(format, args...)
	}
}

// hasURI: RFC 9989 §4.10.1, at least one syntactically valid reporting URI. A
// size limit of RFC 7489 ("!10m") may follow it.
func hasURI(list string) bool {
	for item := range strings.SplitSeq(list, ",") {
		item, _, _ = strings.Cut(strings.Trim(item, wsp), "!")
		u, err := url.Parse(item)
		if err != nil || u.Scheme == "" {
			continue
		}
		if !strings.EqualFold(u.Scheme, "mailto") {
			if u.Host != "" || u.Opaque != "" {
				return true
			}
			continue
		}
		if local, domain, ok := strings.Cut(u.Opaque, "@"); ok && local != "" && domain != "" {
			return true
		}
	}
	return false
}

func isAlpha(s string) bool {
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return s != ""
}

// quote makes foreign text fit for a log line.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
