package align

import "strings"

// Kinds of token besides the specials, which stand for themselves; '[' is a
// whole domain literal.
const (
	tokenAtom   = 'a'
	tokenQuoted = 'q'
)

// token is a piece of a structured field, RFC 5322 §3.2.
type token struct {
	kind   byte
	text   string // unquoted
	spaced bool   // white space or a comment stands before it
}

// tokenizer keeps what is no token.
type tokenizer struct {
	rest string
	// A quote, parenthesis or bracket that is never closed counts as a character
	// like others, and so do all later ones of its kind: whoever looks for each
	// one's end needs quadratic time.
	noQuotes, noComments, noLiterals bool
	// odd says what is not by the grammar, empty when all is.
	odd string
	// commentHasAt: a comment has an "@".
	commentHasAt bool
}

// tokenize splits an unfolded value. Comments are dropped.
func tokenize(value string) ([]token, *tokenizer) {
	t := &tokenizer{rest: value}
	var all []token
	for spaced := false; t.rest != ""; {
		c := t.rest[0]
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			t.rest, spaced = t.rest[1:], true
			continue
		case c == '(' && t.comment():
			spaced = true
			continue
		}
		next := t.next(c)
		next.spaced = spaced
		all, spaced = append(all, next), false
	}
	return all, t
}

func (t *tokenizer) next(c byte) token {
	if c == '"' && !t.noQuotes {
		if text, ok := t.enclosed('"'); ok {
			return token{kind: tokenQuoted, text: text}
		}
		t.noQuotes, t.odd = true, "a quote is not closed"
	}
	if c == '[' && !t.noLiterals {
		if text, ok := t.enclosed(']'); ok {
			return token{kind: '[', text: "[" + text + "]"}
		}
		t.noLiterals, t.odd = true, "a bracket is not closed"
	}
	if isSpecial(c) {
		t.rest = t.rest[1:]
		return token{kind: c, text: string(rune(c))}
	}
	n := 1
	for n < len(t.rest) && !isSpecial(t.rest[n]) && t.rest[n] > ' ' && t.rest[n] != '"' && t.rest[n] != '(' && t.rest[n] != '[' {
		n++
	}
	text := t.rest[:n]
	t.rest = t.rest[n:]
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7F || strings.ContainsRune(`()[]\"`, r) }); i >= 0 && t.odd == "" {
		t.odd = "it has the character " + quote(text[i:i+1])
	}
	return token{kind: tokenAtom, text: text}
}

// isSpecial: RFC 5322 §3.2.3, without those that begin something longer.
func isSpecial(c byte) bool { return strings.IndexByte("<>@,:;.", c) >= 0 }

// enclosed takes a quoted string or a domain literal and returns what is inside,
// quoted pairs resolved (RFC 5322 §3.2.1).
func (t *tokenizer) enclosed(end byte) (text string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(t.rest); i++ {
		switch c := t.rest[i]; {
		case c == end:
			t.rest = t.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(t.rest):
			i++
			b.WriteByte(t.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// comment drops a comment with those inside it, RFC 5322 §3.2.2.
func (t *tokenizer) comment() bool {
	if t.noComments {
		return false
	}
	depth, at := 0, false
	for i := 0; i < len(t.rest); i++ {
		switch t.rest[i] {
		case '\\':
			i++
		case '@':
			at = true
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				t.rest = t.rest[i+1:]
				t.commentHasAt = t.commentHasAt || at
				return true
			}
		}
	}
	t.noComments, t.odd = true, "a parenthesis is not closed"
	return false
}
