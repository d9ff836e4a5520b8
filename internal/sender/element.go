package sender

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The words of Origin.
const (
	authenticated = "authenticated"
	local         = "local"
)

// Origin is where outgoing mail comes from: whoever logged in, sendmail(1), or a
// network.
type Origin struct {
	word    string // empty: network
	network netip.Prefix
}

// DefaultOutgoing is who sends outgoing mail where nothing else is said.
func DefaultOutgoing() []Origin { return []Origin{{word: authenticated}, {word: local}} }

// ParseOrigin reads "authenticated", "local" or a network.
func ParseOrigin(text string) (Origin, error) {
	if text == authenticated || text == local {
		return Origin{word: text}, nil
	}
	n, err := ParseNetwork(text)
	var bad *notNetwork
	if errors.As(err, &bad) {
		return Origin{}, fmt.Errorf("%.100q is not allowed; write \"authenticated\", \"local\" or a network such as \"192.0.2.0/24\"", text)
	}
	return Origin{network: n}, err
}

func (o Origin) String() string {
	if o.word != "" {
		return o.word
	}
	return o.network.String()
}

// notNetwork is a text that does not even look like a network.
type notNetwork struct{ text string }

func (e *notNetwork) Error() string {
	return fmt.Sprintf("%.100q is no network; write for example \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.1\"", e.text)
}

// ParseNetwork reads "192.0.2.0/24" or an address, which stands for itself.
// What is an IPv4 network in IPv6 form becomes an IPv4 network. Bits behind the
// mask are refused: one of the two is a slip.
func ParseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		// Postfix's mynetworks has IPv6 addresses in brackets.
		bare := strings.NewReplacer("[", "", "]", "").Replace(text)
		if bare == text {
			return netip.Prefix{}, &notNetwork{text}
		}
		if n, err := ParseNetwork(bare); err == nil {
			return netip.Prefix{}, fmt.Errorf("%.100q: no brackets here; write %q", text, n)
		}
		return netip.Prefix{}, &notNetwork{text}
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%.100q: bits behind the mask; write %q", text, p.Masked())
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p, nil
}

// Login is a name that SMTP AUTH has proved, in the form that is compared.
type Login struct{ name string }

// ParseLogin reads a login. A network is refused: it would never match.
func ParseLogin(text string) (Login, error) {
	if _, err := ParseNetwork(text); err == nil {
		return Login{}, fmt.Errorf("%.100q is no login; a network stands in client", text)
	}
	return parseLogin(text)
}

func parseLogin(text string) (Login, error) {
	name := fold(text)
	switch {
	case text == "":
		return Login{}, errors.New("an empty login; mail without a login is told by its network")
	case len(name) > maxLogin:
		return Login{}, fmt.Errorf("a login of %d octets, at most %d", len(name), maxLogin)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, blank):
		return Login{}, fmt.Errorf("%.100q is no login: blanks and control characters are in none; write each login in quotes of its own", text)
	case strings.Contains(text, "*"):
		return Login{}, fmt.Errorf("%.100q: no wildcards here; write every login", text)
	}
	return Login{name}, nil
}

func (l Login) String() string { return l.name }

func blank(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// Forwarder is a login or a network whose mail may be foreign.
type Forwarder struct {
	login   Login // empty: network
	network netip.Prefix
}

// ParseForwarder reads a login or a network. The words of ParseOrigin and what
// looks like a broken network are refused: as logins they would silently match
// nobody.
func ParseForwarder(text string) (Forwarder, error) {
	n, err := ParseNetwork(text)
	if err == nil {
		return Forwarder{network: n}, nil
	}
	var bad *notNetwork
	switch {
	case !errors.As(err, &bad):
		return Forwarder{}, err
	case fold(text) == authenticated || fold(text) == local:
		return Forwarder{}, fmt.Errorf("%q is a word of outgoing; write logins or networks, \"127.0.0.1\" for sendmail(1)", text)
	case text == "" || strings.Contains(text, "/") || strings.ContainsFunc(text, blank):
		return Forwarder{}, fmt.Errorf("%.100q is neither a login nor a network", text)
	}
	l, err := parseLogin(text)
	return Forwarder{login: l}, err
}

func (f Forwarder) String() string {
	if f.login.name != "" {
		return f.login.name
	}
	return f.network.String()
}

// Domain is a domain, or all that lie below one.
type Domain struct {
	name  string // lower-case A-labels, without a dot at either end
	below bool
}

// ParseDomain reads "example.com", that domain alone, or ".example.com", its
// subdomains alone. U-labels, upper case and a trailing dot are allowed.
func ParseDomain(text string) (Domain, error) {
	name, below := strings.CutPrefix(text, ".")
	if rest, ok := strings.CutPrefix(text, "*."); ok {
		if d, err := ParseDomain("." + rest); err == nil {
			return Domain{}, fmt.Errorf("%.100q: no wildcards here; write %q for the subdomains", text, d)
		}
	}
	n, err := canonical(name)
	if err != nil {
		return Domain{}, fmt.Errorf("%.100q is no domain (%w); write \"example.com\", or \".example.com\" for its subdomains", text, err)
	}
	return Domain{n, below}, nil
}

func (d Domain) String() string {
	if d.below {
		return "." + d.name
	}
	return d.name
}

// From is what an entry reserves: an address or a Domain.
type From struct {
	local string // folded, without quotes; empty: the whole of domain
	Domain
}

// ParseFrom reads "news@example.org" or what ParseDomain reads.
func ParseFrom(text string) (From, error) {
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		d, err := ParseDomain(text)
		if err != nil {
			err = fmt.Errorf("%.100q is neither a domain nor an address; write \"example.com\", \".example.com\" for its subdomains, or \"news@example.com\"", text)
		}
		return From{Domain: d}, err
	}
	d, err := ParseDomain(text[at+1:])
	written := text[:at]
	l, ok := parseLocal(written)
	switch {
	case err != nil || d.below:
		return From{}, fmt.Errorf("%.100q is no address: no domain follows the @", text)
	case written == "" || written == "*":
		return From{}, fmt.Errorf("%.100q: a domain is written without @; write %q", text, d)
	case !ok:
		return From{}, fmt.Errorf("%.100q is no address; write it alone, for example \"news@example.com\"", text)
	case len(l) > maxLocal:
		return From{}, fmt.Errorf("%.100q: a local part of %d octets, at most %d", text, len(l), maxLocal)
	}
	return From{l, d}, nil
}

// parseLocal reads a local part, in quotes or not, into the form that is compared.
func parseLocal(text string) (string, bool) {
	switch {
	case text == "" || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return "", false
	case text[0] == '"':
		l := unquote(text)
		return fold(l), l != "" && closed(text)
	}
	return fold(text), !strings.ContainsFunc(text, special)
}

// closed tells whether a text is one quoted string.
func closed(text string) bool {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i == len(text)-1
		}
	}
	return false
}

func (f From) String() string {
	if f.local == "" {
		return f.Domain.String()
	}
	return quote(f.local) + "@" + f.Domain.name
}
