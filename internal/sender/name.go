package sender

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// lookup converts U-labels: UTS #46 non-transitional, IDNA2008 look-up.
var lookup = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(false))

// canonical gives a domain in lower-case A-labels without the trailing dot. The
// error says what is wrong with the name, but does not repeat it.
func canonical(name string) (string, error) {
	// Bounded before the conversion: Punycode takes quadratic time.
	if len(name) > maxText {
		return "", fmt.Errorf("%d octets, at most %d", len(name), maxText)
	}
	name = strings.TrimSuffix(name, ".")
	if !isASCII(name) {
		if !utf8.ValidString(name) {
			return "", errors.New("not UTF-8")
		}
		a, err := lookup.ToASCII(name)
		if err != nil {
			return "", err
		}
		name = strings.TrimSuffix(a, ".") // an ideographic full stop has become one
	}
	name = strings.ToLower(name)
	switch {
	case name == "":
		return "", errors.New("an empty name")
	case len(name) > maxName:
		return "", fmt.Errorf("a name of %d octets, at most %d", len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	if last := name[len(name)-1]; '0' <= last && last <= '9' { // the others need no try
		if _, err := netip.ParseAddr(name); err == nil {
			return "", errors.New("an address")
		}
	}
	return name, nil
}

// checkLabel lets underscores pass: such names exist, and Postfix takes them
// (util/valid_hostname.c).
func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("an empty label")
	case len(label) > maxLabel:
		return fmt.Errorf("a label of %d octets, at most %d", len(label), maxLabel)
	}
	for i := range len(label) {
		if c := label[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return fmt.Errorf("character %q in a name", c)
		}
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// fold gives the same text for those that strings.EqualFold holds equal. What
// is not UTF-8 is folded in ASCII only: it equals nothing that is.
func fold(s string) string {
	switch {
	case isASCII(s):
		return strings.ToLower(s)
	case !utf8.ValidString(s):
		b := []byte(s)
		for i, c := range b {
			if 'A' <= c && c <= 'Z' {
				b[i] = c + 'a' - 'A'
			}
		}
		return string(b)
	}
	return strings.Map(foldRune, s)
}

// foldRune chooses one of the letters that differ by case alone: that of ASCII
// in lower case, else the last in Unicode's order, which mostly is lower case.
func foldRune(r rune) rune {
	chosen, ascii := r, rune(-1)
	for next := r; ; {
		if next < utf8.RuneSelf {
			ascii = unicode.ToLower(next)
		}
		chosen = max(chosen, next)
		if next = unicode.SimpleFold(next); next == r {
			break
		}
	}
	if ascii >= 0 {
		return ascii
	}
	return chosen
}

// mailbox is an address in the form that is compared.
type mailbox struct{ local, domain string }

// parseMailbox reads an address of a message or an envelope. Its domain is empty
// where there is none that the DNS could hold.
func parseMailbox(address string) mailbox {
	at := strings.LastIndexByte(address, '@') // a quoted local part may hold others
	domain, err := canonical(address[at+1:])
	if at < 0 || err != nil {
		return mailbox{}
	}
	return mailbox{fold(unquote(address[:at])), domain}
}

// unquote takes the quotes off each word of a local part, RFC 5322 §3.4.1 with
// the words between dots of §4.4.
func unquote(local string) string {
	if !strings.ContainsAny(local, `"\`) {
		return local
	}
	b := make([]byte, 0, len(local))
	for i := 0; i < len(local); i++ {
		switch c := local[i]; {
		case c == '\\' && i+1 < len(local):
			i++
			b = append(b, local[i])
		case c != '"':
			b = append(b, c)
		}
	}
	return string(b)
}

// quote writes a local part so that unquote gives it back.
func quote(local string) string {
	if !strings.ContainsFunc(local, special) {
		return local
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
}

// special tells what a local part holds in quotes only: RFC 5322 §3.2.3. "*"
// could stand there without, but is meant as a wildcard.
func special(r rune) bool { return strings.ContainsRune("()<>[]:;@\\,\" *", r) }

// names finds what a domain is called by, the closest first.
type names[T any] struct {
	exact map[string]T // example.com
	below map[string]T // .example.com, without the dot
}

func makeNames[T any]() names[T] { return names[T]{exact: map[string]T{}, below: map[string]T{}} }

func (n names[T]) of(d Domain) map[string]T {
	if d.below {
		return n.below
	}
	return n.exact
}

// find takes a canonical domain.
func (n names[T]) find(domain string) (found T, ok bool) {
	if found, ok = n.exact[domain]; ok {
		return found, true
	}
	return n.above(domain)
}

// above finds the longest ".domain" that a domain lies below.
func (n names[T]) above(domain string) (found T, ok bool) {
	for {
		_, rest, more := strings.Cut(domain, ".")
		if !more {
			return found, false
		}
		if found, ok = n.below[rest]; ok {
			return found, true
		}
		domain = rest
	}
}
