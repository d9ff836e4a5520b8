package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Limits of an address.
const (
	// maxLocal bounds a local part, in octets without quotes. RFC 5321 §4.5.3.1.1
	// says 64, which Postfix does not hold anybody to.
	maxLocal = 255
	// maxAddress is a local part, the @ and a domain with a trailing dot.
	maxAddress = maxLocal + 1 + maxName + 1
)

// senderAddress is an address in the form that is compared: lower case, without
// quotes, the domain in A-labels. A pattern for a whole domain has no local part.
type senderAddress struct {
	local  string
	domain string
	below  bool // the subdomains of domain, not itself
}

// key is the address in the index of Rules.
func (a senderAddress) key() string {
	if a.below {
		return "@." + a.domain
	}
	return a.local + "@" + a.domain
}

// String writes the address so that parseSender of it gives the same.
func (a senderAddress) String() string {
	if strings.ContainsFunc(a.local, special) {
		a.local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.local) + `"`
	}
	return a.key()
}

// special: RFC 5321 §4.1.2, a Local-part with one of these stands in quotes.
func special(c rune) bool { return c <= ' ' || c == 0x7f || strings.ContainsRune(`"(),:;<>@[\]`, c) }

// setSender reads the patterns of a class of mail.
func (r *Rule) setSender(t RuleText, refuse func(*RuleError)) {
	if len(t.Sender) > 0 && len(t.Match) > 0 {
		refuse(&RuleError{Field: "sender", What: "beside match: Postfix chooses the transport by the sender alone, and the level by the destination alone",
			Fix: "write two rules, one with sender and one with match"})
	}
	for i, text := range t.Sender {
		a, err := parseSender(text)
		if err != nil {
			err.Field = fmt.Sprintf("sender[%d]", i)
			refuse(err)
			continue
		}
		r.Sender = append(r.Sender, a.String())
	}
}

// setSenderLevel: what can be demanded of a class is what its transport does.
func (r *Rule) setSenderLevel() *RuleError {
	written := r.text
	r.text, r.Line = tlspolicy.Encrypt.String(), level(tlspolicy.Encrypt)
	if written == "" || strings.EqualFold(written, r.text) {
		return nil
	}
	return &RuleError{Field: "level", What: fmt.Sprintf("%.200q: all senders of such rules share the transport \"enforced\", where every destination is held to encrypt, or to what its own rule and policies demand beyond that", written),
		Fix: `write level = "encrypt", or leave it out; a stronger level, and attributes, belong in a rule with match`}
}

// parseSender reads one element of sender. The error lacks Source and Field.
func parseSender(text string) (senderAddress, *RuleError) {
	if e := notASender(text); e != nil {
		return senderAddress{}, e
	}
	at := strings.LastIndexByte(text, '@')
	var a senderAddress
	domain, err := text[at+1:], error(nil)
	if domain, a.below = strings.CutPrefix(domain, "."); a.below && at > 0 {
		return a, &RuleError{What: fmt.Sprintf("%.100q: an address has one domain", text), Fix: "write " + strconv.Quote("@."+domain) + " for all senders of the subdomains"}
	}
	if a.domain, err = canonicalName(domain); err != nil {
		return a, &RuleError{What: fmt.Sprintf("%.100q: %v", text, err), Fix: senderForms, Err: err}
	}
	if _, ok := literal(a.domain); ok {
		return a, &RuleError{What: fmt.Sprintf("%.100q: an address in place of a domain", text), Fix: senderForms}
	}
	local, ok := unquote(nil, []byte(text[:at]))
	if !ok || at > 0 && len(local) == 0 || at > 0 && text[0] != '"' && strings.ContainsFunc(text[:at], special) {
		return a, &RuleError{What: fmt.Sprintf("%.100q is not one address", text), Fix: "write it alone, for example \"boss@example.com\""}
	}
	if a.local = strings.ToLower(string(local)); len(a.local) > maxLocal {
		return a, &RuleError{What: fmt.Sprintf("%.100q: a local part of %d octets, at most %d", text, len(a.local), maxLocal), Fix: senderForms}
	}
	return a, nil
}

const senderForms = `write "boss@example.com", "@example.com" or, for the subdomains, "@.example.com"`

// notASender knows what people write instead of a sender.
func notASender(text string) *RuleError {
	never := func(what, fix string) *RuleError {
		return &RuleError{What: fmt.Sprintf("%.100q: %s", text, what), Fix: fix}
	}
	_, domain, hasAt := strings.Cut(text, "@")
	switch {
	case text == "" || text == "<>":
		return never("the null sender, of bounces, is of no class", "leave it out")
	case strings.TrimSpace(text) != text:
		return never("space around it", "write "+strconv.Quote(strings.TrimSpace(text)))
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return never("not printable text", senderForms)
	case !hasAt && strings.HasPrefix(text, "*."):
		return never("no wildcards here", "write "+strconv.Quote("@"+text[1:])+" for the subdomains")
	case !hasAt:
		return never("no address without an @", "write "+strconv.Quote("@"+text)+" for all senders of that domain")
	case strings.HasPrefix(text, "*@"):
		return never("no wildcards here", "write "+strconv.Quote(text[1:]))
	case strings.HasPrefix(domain, "*."):
		return never("no wildcards here", "write "+strconv.Quote("@"+domain[1:])+" for all senders of the subdomains")
	}
	return nil
}

// unquote appends a local part without its quotes, and reports whether it has a
// begin and an end of them, or neither.
func unquote(dst, local []byte) ([]byte, bool) {
	if len(local) == 0 || local[0] != '"' {
		return append(dst, local...), true
	}
	for i := 1; i < len(local); i++ {
		switch c := local[i]; {
		case c == '"':
			return dst, i == len(local)-1
		case c == '\\' && i+1 < len(local):
			i++
			dst = append(dst, local[i])
		default:
			dst = append(dst, c)
		}
	}
	return dst, false
}

// addSender enters the patterns of rule n into the index.
func (rs *Rules) addSender(n int32) error {
	r := &rs.rules[n]
	for i, text := range r.Sender {
		a, err := parseSender(text)
		if err != nil {
			err.Source, err.Field = r.Source, fmt.Sprintf("sender[%d]", i)
			return err
		}
		r.Sender[i] = a.String()
		if shadow := rs.senderShadow(a, r); shadow != none {
			rs.warnings = append(rs.warnings, RuleWarning{r.Source,
				fmt.Sprintf("sender %q is never reached: %s matches it before", a, rs.rules[shadow].place())})
		}
		enter(rs.sender, a.key(), n)
	}
	return nil
}

// senderShadow finds an earlier rule that leaves nothing for the pattern a of r, or none.
func (rs *Rules) senderShadow(a senderAddress, r *Rule) int32 {
	first := int32(none)
	look := func(key string) {
		for _, n := range rs.sender[key] {
			if s := &rs.rules[n]; s != r && s.permanent() {
				first = min(first, n)
				return
			}
		}
	}
	look(a.key())
	if a.local != "" {
		if i := strings.IndexByte(a.local, extension); i > 0 {
			look(a.local[:i] + "@" + a.domain)
		}
		look("@" + a.domain)
	}
	for parent := range parents(a.domain) {
		look("@." + parent)
	}
	return first
}

// sameSenders finds the rule for the same senders as one of other Rules, nil without one.
func (rs *Rules) sameSenders(r *Rule) *Rule {
	a, err := parseSender(r.Sender[0])
	if err != nil {
		return nil
	}
	for _, n := range rs.sender[a.key()] {
		if slices.Equal(rs.rules[n].Sender, r.Sender) {
			return &rs.rules[n]
		}
	}
	return nil
}

// extension separates a user's name from what he adds to it. The delimiter is
// Postfix's to choose (recipient_delimiter), and this one the custom everywhere;
// where it is none, "boss+x" is held to what holds for "boss", which is no weaker.
const extension = '+'

// EnforcesSenders tells whether Postfix is going to be told a transport for some
// senders: a rule for them holds, and is not only monitored.
func (rs *Rules) EnforcesSenders(now time.Time) bool {
	return len(rs.where(func(r *Rule) bool { return len(r.Sender) > 0 && !r.Monitor && !r.Expired(now) })) > 0
}

// FindSender looks for the rules for mail of an envelope sender, as in MAIL FROM
// without the angle brackets, in quotes or not. Rule and Monitored are as by Find.
// Addresses are compared without case; "user+anything@domain" is also
// user@domain. It allocates nothing, unless the address is beyond ASCII.
//
// Postfix asks a socketmap for the full address alone (resolve.c: mail_addr_find;
// dict_sockmap.c: DICT_FLAG_PATTERN, so no partial keys), in either case.
func (rs *Rules) FindSender(sender []byte, now time.Time) Finding {
	at := bytes.LastIndexByte(sender, '@')
	if rs == nil || len(rs.sender) == 0 || at < 0 {
		return Finding{}
	}
	var space [maxAddress]byte
	address, at, ok := foldAddress(space[:0], sender[:at], sender[at+1:])
	if !ok {
		return Finding{}
	}
	w := search{Rules: rs, now: now, first: none, monitored: none}
	w.bySender(address, at)
	var f Finding
	if w.first != none {
		f.Rule = &rs.rules[w.first]
	}
	if w.monitored < w.first {
		f.Monitored = &rs.rules[w.monitored]
	}
	return f
}

// bySender takes in the rules for an address, whose @ is at a place. It destroys
// the address: every other key is made of it where it stands.
func (w *search) bySender(address []byte, at int) {
	w.consider(w.sender[string(address)])
	if i := bytes.IndexByte(address[:at], extension); i > 0 {
		copy(address[at-i:at], address[:i])
		w.consider(w.sender[string(address[at-i:])])
	}
	w.consider(w.sender[string(address[at:])])
	for i := at + 1; i < len(address); i++ {
		if address[i] == '.' {
			address[i-1] = '@'
			w.consider(w.sender[string(address[i-1:])])
		}
	}
}

// foldAddress appends an address in the form that is compared, and tells where its
// @ is. A local part that is longer than any pattern is left out: what holds for
// its domain holds for it.
func foldAddress(dst, local, domain []byte) (address []byte, at int, ok bool) {
	if len(local) <= 2*maxLocal {
		if dst, _ = unquote(dst, local); len(dst) > maxLocal {
			dst = dst[:0]
		}
	}
	if !lowerASCII(dst) {
		dst = bytes.ToLower(dst)
	}
	at = len(dst)
	dst = append(dst, '@')
	domain = bytes.TrimSuffix(domain, []byte("."))
	if len(domain) > maxName {
		return nil, 0, false
	}
	if dst = append(dst, domain...); lowerASCII(dst[at:]) {
		return dst, at, true
	}
	name, err := canonicalName(string(domain))
	return append(dst[:at+1], name...), at, err == nil
}

// lowerASCII makes letters lower case, and reports whether all of b is ASCII.
func lowerASCII(b []byte) bool {
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z':
			b[i] += 'a' - 'A'
		case c >= utf8.RuneSelf:
			return false
		}
	}
	return true
}
