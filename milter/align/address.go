package align

import (
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"unicode"
)

// mailbox is one address of a list.
type mailbox struct {
	name   string // display name as written, words joined by spaces
	local  string // unquoted
	domain string // as written, comments and white space removed
	quoted bool   // the local part is a quoted string
}

// addressList is what a field of addresses holds.
type addressList struct {
	mailboxes []mailbox
	// guess says why the reading is one of several, empty when the value is by
	// the grammar.
	guess string
	// commentHasAt: a comment has an "@", which a careless reader takes for an
	// address.
	commentHasAt bool
}

// parseAddresses reads a list of mailboxes and groups, RFC 5322 §3.4 with the
// obsolete forms of §4.4, from an unfolded value. What is not by the grammar is
// read as most receivers do: addresses in angle brackets count, without any
// those with an "@". It takes linear time.
func parseAddresses(value string) addressList {
	tokens, t := tokenize(value)
	list := addressList{commentHasAt: t.commentHasAt}
	p := addressParser{tokens: tokens}
	p.list()
	if !p.failed {
		list.mailboxes, list.guess = p.mailboxes, p.obsolete
	} else {
		list.mailboxes, list.guess = scan(tokens), "it is not by the grammar of RFC 5322"
	}
	if list.guess == "" {
		list.guess = t.odd
	}
	return list
}

// plain writes the mailboxes in the simplest form.
func (l *addressList) plain() string {
	var b strings.Builder
	for i, m := range l.mailboxes {
		if i > 0 {
			b.WriteString(", ")
		}
		local := m.local
		if m.quoted {
			local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
		}
		b.WriteString("x <" + local + "@" + m.domain + ">")
	}
	return b.String()
}

// secondOpinion returns the domains that net/mail finds.
func secondOpinion(value string) ([]string, error) {
	// A charset that it does not know must not cost the whole address: names are
	// of no interest here.
	through := func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: through}}
	list, err := parser.ParseList(value)
	if err != nil {
		return nil, err
	}
	domains := make([]string, len(list))
	for i, a := range list {
		// The local part comes back unquoted, so the last "@" counts.
		domains[i] = a.Address[strings.LastIndexByte(a.Address, '@')+1:]
	}
	return domains, nil
}

// decodeWords decodes the encoded words of a name (RFC 2047) as far as it can.
func decodeWords(name string) string {
	if !strings.Contains(name, "=?") {
		return name
	}
	through := func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	decoded, err := (&mime.WordDecoder{CharsetReader: through}).DecodeHeader(name)
	if err != nil {
		return name
	}
	return decoded
}

// addressParser is a descent over tokens. It stops at the first thing that is
// not by the grammar.
type addressParser struct {
	tokens    []token
	mailboxes []mailbox
	failed    bool
	obsolete  string // an obsolete form that some readers refuse
}

// peek returns the kind of the next token; 0 at the end.
func (p *addressParser) peek() byte {
	if len(p.tokens) == 0 {
		return 0
	}
	return p.tokens[0].kind
}

// take drops the next token if it is of the kind.
func (p *addressParser) take(kind byte) bool {
	if p.peek() != kind || len(p.tokens) == 0 {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

// list: address-list = (address *("," address)) / obs-addr-list
func (p *addressParser) list() {
	for !p.failed && len(p.tokens) > 0 {
		if p.take(',') { // obs-addr-list: elements may be empty
			p.obsolete = "it has an empty element"
			continue
		}
		p.address(true)
		if p.failed || len(p.tokens) == 0 {
			return
		}
		if !p.take(',') {
			p.failed = true
		} else if len(p.tokens) == 0 {
			p.obsolete = "it ends in a comma"
		}
	}
}

// address: mailbox / group
func (p *addressParser) address(groups bool) {
	words := p.words()
	switch {
	case p.take('<'):
		p.angle(phrase(words))
	case p.take('@'):
		m, ok := localPart(words)
		p.failed = p.failed || !ok
		m.domain = p.domain()
		p.mailboxes = append(p.mailboxes, m)
	case groups && len(words) > 0 && p.take(':'):
		p.group()
	default:
		p.failed = true // a phrase that names nobody
	}
}

// group: display-name ":" [group-list] ";"
func (p *addressParser) group() {
	for !p.failed && !p.take(';') {
		if p.take(',') {
			continue
		}
		p.address(false)
		if next := p.peek(); next != ',' && next != ';' {
			p.failed = true
		}
	}
}

// angle: "<" addr-spec ">" / obs-angle-addr, the bracket taken already.
func (p *addressParser) angle(name string) {
	if next := p.peek(); next == '@' || next == ',' {
		// RFC 5322 §4.4: obs-route = obs-domain-list ":"
		p.obsolete = "it has a route"
		for !p.failed && !p.take(':') {
			if !p.take(',') && (!p.take('@') || p.domain() == "") {
				p.failed = true
			}
		}
	}
	m, ok := localPart(p.words())
	m.name = name
	if !ok || !p.take('@') {
		p.failed = true
		return
	}
	m.domain = p.domain()
	if !p.take('>') {
		p.failed = true
		return
	}
	p.mailboxes = append(p.mailboxes, m)
}

// domain: dot-atom / domain-literal / obs-domain
func (p *addressParser) domain() string {
	if p.peek() == '[' {
		literal := p.tokens[0].text
		p.tokens = p.tokens[1:]
		return literal
	}
	var b strings.Builder
	atom := false // whether the last token was one
	for ; ; p.tokens = p.tokens[1:] {
		kind := p.peek()
		if kind == tokenAtom && !atom || kind == '.' && atom {
			if b.Len() > 0 && p.tokens[0].spaced { // obs-domain
				p.obsolete = "there is white space in its domain"
			}
			b.WriteString(p.tokens[0].text)
			atom = kind == tokenAtom
			continue
		}
		if kind == '.' || kind == tokenAtom || b.Len() == 0 {
			p.failed = true
		} else if !atom {
			p.obsolete = "its domain ends in a dot"
		}
		return strings.TrimSuffix(b.String(), ".")
	}
}

// words takes words and dots: a phrase or a local part, the next token decides.
func (p *addressParser) words() []token {
	n := 0
	for n < len(p.tokens) && (p.tokens[n].kind == tokenAtom || p.tokens[n].kind == tokenQuoted || p.tokens[n].kind == '.') {
		n++
	}
	words := p.tokens[:n]
	p.tokens = p.tokens[n:]
	return words
}

// phrase joins the words of a display name.
func phrase(words []token) string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = w.text
	}
	return strings.Join(texts, " ")
}

// localPart: dot-atom / quoted-string / obs-local-part, which is words with dots
// between them.
func localPart(words []token) (m mailbox, ok bool) {
	ok = len(words)%2 == 1
	var b strings.Builder
	for i, w := range words {
		if (w.kind == '.') != (i%2 == 1) {
			ok = false
		}
		m.quoted = m.quoted || w.kind == tokenQuoted
		b.WriteString(w.text)
	}
	m.local = b.String()
	return m, ok
}

// scan finds addresses in what is not by the grammar: those in angle brackets,
// and those that are all there is between two commas, as a parser would take them
// that goes on behind what it cannot read; or else each "@" between words.
func scan(tokens []token) []mailbox {
	var found, bare []mailbox
	for len(tokens) > 0 {
		n := slices.IndexFunc(tokens, func(t token) bool { return t.kind == ',' || t.kind == ';' || t.kind == ':' })
		element := tokens
		if tokens = nil; n >= 0 {
			element, tokens = element[:n], element[n+1:]
		}
		inside, angles := false, slices.ContainsFunc(element, func(t token) bool { return t.kind == '<' })
		for i, t := range element {
			switch {
			case t.kind == '<' || t.kind == '>':
				inside = t.kind == '<'
			case t.kind == '@':
				m, whole := around(element, i)
				switch {
				case m.domain == "":
				case inside || whole && !angles:
					found = append(found, m)
				default:
					bare = append(bare, m)
				}
			}
		}
	}
	if len(found) > 0 {
		return found
	}
	return bare
}

// candidates are all addresses outside of quotes and comments: what one reader or
// another may show as the author. Characters that some readers drop are dropped.
func candidates(value string) []mailbox {
	value = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || unicode.Is(unicode.Cf, r) || r == '\u00a0' {
			return -1
		}
		return r
	}, value)
	tokens, _ := tokenize(value)
	var all []mailbox
	for i, t := range tokens {
		if t.kind == '@' {
			if m, _ := around(tokens, i); m.domain != "" && m.local != "" {
				all = append(all, m)
			}
		}
	}
	return all
}

// around reads the address whose "@" is at i: words without white space between
// them. Whole: nothing else is there.
func around(tokens []token, i int) (m mailbox, whole bool) {
	from := i
	for from > 0 && isWordOrDot(tokens[from-1]) && (from == i || !tokens[from].spaced) {
		from--
	}
	to := i + 1
	for to < len(tokens) && (tokens[to].kind == tokenAtom || tokens[to].kind == '.') && (to == i+1 || !tokens[to].spaced) {
		to++
	}
	m, _ = localPart(tokens[from:i])
	if to == i+1 && to < len(tokens) && tokens[to].kind == '[' {
		m.domain = tokens[to].text
		return m, from == 0 && to+1 == len(tokens)
	}
	var b strings.Builder
	for _, t := range tokens[i+1 : to] {
		b.WriteString(t.text)
	}
	m.domain = strings.Trim(b.String(), ".")
	return m, from == 0 && to == len(tokens)
}

func isWordOrDot(t token) bool {
	return t.kind == tokenAtom || t.kind == tokenQuoted || t.kind == '.'
}
