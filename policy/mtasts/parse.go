package mtasts

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxPolicySize is the largest policy read, in bytes. RFC 8461 §3.3 suggests 64
// kilobytes. A larger one is an error, never cut: what was cut off may be a
// host that mail needs.
const MaxPolicySize = 65536

const (
	policyVersion = "STSv1"
	maxAgeDigits  = 10 // RFC 8461 §3.2, sts-policy-max-age
	maxSuspects   = 3  // lines named when a required field is missing

	byteOrderMark = "\ufeff"
	utf16Little   = "\xff\xfe"
	utf16Big      = "\xfe\xff"
)

// ErrInvalidPolicy: the policy is not valid, and so there is none. A cached one
// that has not expired stays in force (RFC 8461 §3.3).
var ErrInvalidPolicy = errors.New("invalid MTA-STS policy")

// ParsePolicy reads a policy file, RFC 8461 §3.2: lines ended by LF or CRLF, in
// any order, unknown fields ignored, of duplicates (other than mx) the first.
// See the package's text for what is tolerated; each such slip makes a Note.
//
// The error wraps ErrInvalidPolicy and names the line and what was wrong with
// it; the notes made so far come back with it. Time is linear in the size, and
// more than MaxPolicySize bytes are an error.
func ParsePolicy(body []byte) (Policy, []Note, error) {
	if len(body) > MaxPolicySize {
		return Policy{}, nil, fmt.Errorf("%w: %d bytes, more than %d", ErrInvalidPolicy, len(body), MaxPolicySize)
	}
	text := string(body)
	if strings.HasPrefix(text, utf16Little) || strings.HasPrefix(text, utf16Big) {
		return Policy{}, nil, fmt.Errorf("%w: UTF-16 instead of plain ASCII text", ErrInvalidPolicy)
	}
	p := policyParser{known: map[string]bool{}}
	if rest, ok := strings.CutPrefix(text, byteOrderMark); ok {
		p.notes.add("byte order mark in front ignored")
		text = rest
	}
	for line := range strings.Lines(text) {
		p.number++
		if err := p.line(line); err != nil {
			return Policy{}, p.notes.all(), err
		}
	}
	if err := p.finish(); err != nil {
		return Policy{}, p.notes.all(), err
	}
	return p.policy, p.notes.all(), nil
}

// policyParser holds what the lines read so far have said.
type policyParser struct {
	policy   Policy
	notes    notes
	number   int             // of the current line, from 1
	blank    int             // number of the last blank line, 0 for none
	seen     []string        // the required fields met
	known    map[string]bool // the mx patterns met
	suspects []string        // what may have been meant for a required field
}

// line reads one line with its terminator. The error is for what makes the
// whole policy invalid.
func (p *policyParser) line(line string) error {
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r") // RFC 8461 §3.2: LF or CRLF, not CR alone
	trimmed := strings.Trim(line, wsp)
	if trimmed == "" {
		p.blank = p.number
		return nil
	}
	if p.blank != 0 {
		p.notes.add("line %d: blank line ignored", p.blank)
		p.blank = 0
	}
	if isPlain(trimmed) {
		p.policy.Lines = append(p.policy.Lines, trimmed)
	}
	name, value, why := split(trimmed)
	if why != "" {
		p.suspect("is malformed (%s)", why)
		p.notes.add("line %d: ignored: %s", p.number, why)
		return nil
	}
	if line[0] == ' ' || line[0] == '\t' || strings.TrimRight(name, wsp) != name {
		p.notes.add("line %d: white space around the field name", p.number)
		name = strings.TrimRight(name, wsp)
	}
	return p.field(name, strings.Trim(value, wsp))
}

// split cuts a line at its colon. Lines with bytes that no field may hold are
// refused: RFC 8461 §3.2, sts-policy-vchar.
func split(line string) (name, value, why string) {
	if !utf8.ValidString(line) {
		return "", "", "not UTF-8"
	}
	for i := range len(line) {
		if c := line[i]; c < ' ' && c != '\t' || c == 0x7F {
			return "", "", "control character " + strconv.QuoteRune(rune(c))
		}
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return "", "", "no colon in " + quote(line)
	}
	return name, value, ""
}

// field takes one field in. RFC 8461 §3.2: names are case-sensitive.
func (p *policyParser) field(name, value string) error {
	var err error
	switch name {
	case "mx":
		p.mx(value)
		return nil
	case "version", "mode", "max_age":
		// RFC 8461 §3.2: of duplicate fields the first counts; a later one is
		// ignored whatever it says.
		if slices.Contains(p.seen, name) {
			p.notes.add("line %d: another %s ignored", p.number, name)
			return nil
		}
		p.seen = append(p.seen, name)
	default:
		p.extension(name, value)
		return nil
	}
	switch name {
	case "version":
		if value != policyVersion {
			err = p.invalid("version %s is not %s", quote(value), policyVersion)
		}
	case "mode":
		p.policy.Mode, err = p.mode(value)
	case "max_age":
		p.policy.MaxAge, err = p.maxAge(value)
	}
	return err
}

func (p *policyParser) mode(value string) (Mode, error) {
	for _, m := range []Mode{ModeNone, ModeTesting, ModeEnforce} {
		if value == m.String() {
			return m, nil
		}
	}
	return 0, p.invalid("mode %s is none of enforce, testing and none", quote(value))
}

func (p *policyParser) maxAge(value string) (time.Duration, error) {
	// RFC 8461 §3.2: 1*10(DIGIT). ParseUint takes no sign.
	seconds, err := strconv.ParseUint(value, 10, 64)
	if err != nil || len(value) > maxAgeDigits {
		return 0, p.invalid("max_age %s is not a number of 1 to %d digits", quote(value), maxAgeDigits)
	}
	// RFC 8461 §3.2: at most 31557600. To refuse the policy would protect less
	// than to remember it for the longest time allowed.
	if limit := uint64(MaxAge / time.Second); seconds > limit {
		p.notes.add("line %d: max_age %d lowered to %d", p.number, seconds, limit)
		seconds = limit
	}
	return time.Duration(seconds) * time.Second, nil
}

// mx keeps a good pattern and drops a bad one. By the RFC a bad one makes the
// whole policy invalid, and the mail would leave unprotected; without it the
// policy only gets stricter. finish sees to it that one is left.
func (p *policyParser) mx(value string) {
	pattern, note, err := parsePattern(value)
	if err != nil {
		p.suspect("has the bad mx %s", quote(value))
		p.notes.add("line %d: bad mx %s dropped: %v", p.number, quote(value), err)
		return
	}
	if note != "" {
		p.notes.add("line %d: mx %s: %s", p.number, quote(value), note)
	}
	if !p.known[pattern] {
		p.known[pattern] = true
		p.policy.MX = append(p.policy.MX, pattern)
	}
}

// extension ignores a field that is not known, RFC 8461 §3.2.
func (p *policyParser) extension(name, value string) {
	p.suspect("has the unknown field %s", quote(name))
	if !isExtName(name) || value == "" || strings.ContainsRune(value, '\t') {
		p.notes.add("line %d: malformed extension %s ignored", p.number, quote(name+":"+value))
	}
}

// finish checks what only the whole policy can tell.
func (p *policyParser) finish() error {
	for _, name := range []string{"version", "mode", "max_age"} {
		if !slices.Contains(p.seen, name) {
			return p.missing("no " + name + " field")
		}
	}
	// RFC 8461 §3.2: at least one mx unless the mode is none. A policy of mode
	// none stays valid with only bad ones: its owner wants to be let go.
	if len(p.policy.MX) == 0 && p.policy.Mode != ModeNone {
		return p.missing("no usable mx field in mode " + p.policy.Mode.String())
	}
	return nil
}

func (p *policyParser) invalid(format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s", ErrInvalidPolicy, p.number, fmt.Sprintf(format, args...))
}

func (p *policyParser) missing(what string) error {
	if len(p.suspects) == 0 {
		return fmt.Errorf("%w: %s", ErrInvalidPolicy, what)
	}
	return fmt.Errorf("%w: %s (%s)", ErrInvalidPolicy, what, strings.Join(p.suspects, ", "))
}

func (p *policyParser) suspect(format string, args ...any) {
	if len(p.suspects) < maxSuspects {
		p.suspects = append(p.suspects, fmt.Sprintf("line %d ", p.number)+fmt.Sprintf(format, args...))
	}
}

// isPlain tells whether a line may stand in { policy_string = … }. Postfix takes
// braces for the end of the attribute (util/extpar.c, util/mystrtok.c).
func isPlain(line string) bool {
	for i := range len(line) {
		if c := line[i]; c < ' ' || c > '~' || c == '{' || c == '}' {
			return false
		}
	}
	return true
}
