package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// patternKind tells which destinations a pattern can match.
type patternKind uint8

const (
	matchName    patternKind = iota // example.com: with or without a port, never brackets
	matchPort                       // example.com:587: with that port, never brackets
	matchParent                     // .example.com: the subdomains, with or without a port
	matchHost                       // [host]:587: brackets, with that port
	matchMX                         // mx:host.name: that mail host
	matchMXBelow                    // mx:*.example.com: a mail host below, at any depth
)

// pattern is one element of a rule's match.
type pattern struct {
	kind patternKind
	name string // canonical, without dot, brackets and prefix
	port uint16 // of matchPort and matchHost; 25 where none is written
	text string // normalised
}

func (p pattern) String() string { return p.text }

// parsePattern reads one element of match. The error lacks Source and Field.
func parsePattern(text string) (pattern, *RuleError) {
	if e := notAPattern(text); e != nil {
		return pattern{}, e
	}
	switch {
	case len(text) > 3 && strings.EqualFold(text[:3], "mx:"):
		return parseMXPattern(text[3:])
	case strings.HasPrefix(text, "."):
		return parseParent(text)
	}
	k, err := ParseKey(text)
	if _, ok := literal(k.Name); ok {
		k.Literal = true // "192.0.2.1." too
	}
	switch {
	case err != nil:
		return pattern{}, &RuleError{What: fmt.Sprintf("%.100q: %v", text, err), Fix: "write example.com, .example.com, [host]:port or mx:*.example.com", Err: err}
	case k.Literal && !k.Brackets:
		// Postfix asks for an address in brackets only.
		k.Brackets = true
		return pattern{}, &RuleError{What: fmt.Sprintf("%.100q: an address without brackets never matches", text), Fix: "write " + strconv.Quote(k.String())}
	case k.Brackets:
		return pattern{kind: matchHost, name: k.Name, port: k.Port, text: k.String()}, nil
	case k.HasPort:
		return pattern{kind: matchPort, name: k.Name, port: k.Port, text: k.String()}, nil
	}
	return pattern{kind: matchName, name: k.Name, text: k.Name}, nil
}

// notAPattern knows what people write instead of a pattern.
func notAPattern(text string) *RuleError {
	never := func(what, fix string) *RuleError {
		return &RuleError{What: fmt.Sprintf("%.100q: %s", text, what), Fix: fix}
	}
	switch {
	case text == "":
		return never("empty", "leave it out, or write a domain")
	case strings.TrimSpace(text) != text:
		return never("space around it", "write "+strconv.Quote(strings.TrimSpace(text)))
	case strings.Contains(text, "://"):
		return never("a URL never matches", "write the domain alone")
	case strings.Contains(text, "@"):
		return never("an e-mail address never matches", "write the domain after the @: "+strconv.Quote(text[strings.LastIndexByte(text, '@')+1:]))
	case strings.HasPrefix(text, "/"):
		return never("a path never matches: smtp(8) is held to no policy on a UNIX-domain socket", "leave it out")
	case strings.HasPrefix(text, "*."):
		return never("no wildcards here", "write "+strconv.Quote(text[1:])+" for the subdomains")
	case text == "*":
		return never("no rule for everything", `use [tls_policy] floor`)
	case strings.HasPrefix(strings.ToLower(text), "smtp:") && strings.Contains(text[5:], "["):
		return never("Postfix does not ask with the transport's name", "write "+strconv.Quote(text[5:]))
	case strings.Contains(text, "*") && !strings.HasPrefix(strings.ToLower(text), "mx:"):
		return never("no wildcards here", `write ".example.com" for the subdomains of example.com`)
	}
	return nil
}

func parseParent(text string) (pattern, *RuleError) {
	if strings.ContainsRune(text, ':') {
		return pattern{}, &RuleError{What: fmt.Sprintf("%.100q: subdomains are matched with any port", text), Fix: "write it without the port"}
	}
	name, err := canonicalName(text[1:])
	if err != nil {
		return pattern{}, &RuleError{What: fmt.Sprintf("%.100q: %v", text, err), Fix: `write ".example.com" for the subdomains of example.com`, Err: err}
	}
	return pattern{kind: matchParent, name: name, text: "." + name}, nil
}

// parseMXPattern reads what follows "mx:".
func parseMXPattern(text string) (pattern, *RuleError) {
	full := "mx:" + text
	if _, ok := literal(strings.TrimSuffix(strings.Trim(text, "[]"), ".")); ok {
		return pattern{}, &RuleError{What: fmt.Sprintf("%.100q: a mail exchanger is a name, an address never matches", full), Fix: "write its host name"}
	}
	name, below := strings.CutPrefix(text, "*.")
	if strings.HasPrefix(text, ".") {
		return pattern{}, &RuleError{What: fmt.Sprintf("%.100q: a leading dot", full), Fix: "write " + strconv.Quote("mx:*"+text)}
	}
	if strings.ContainsAny(name, "*:[]") {
		return pattern{}, &RuleError{What: fmt.Sprintf("%.100q: neither brackets nor a port nor a second wildcard", full), Fix: "write mx:host.example.com or mx:*.example.com"}
	}
	name, err := canonicalName(name)
	if err != nil {
		return pattern{}, &RuleError{What: fmt.Sprintf("%.100q: %v", full, err), Fix: "write mx:host.example.com or mx:*.example.com", Err: err}
	}
	if below {
		return pattern{kind: matchMXBelow, name: name, text: "mx:*." + name}, nil
	}
	return pattern{kind: matchMX, name: name, text: "mx:" + name}, nil
}
