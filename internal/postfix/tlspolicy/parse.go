package tlspolicy

import (
	"fmt"
	"strings"
)

// MaxLine bounds what Parse reads, in bytes: what a socketmap reply can hold.
const MaxLine = 100_000

// Parse reads the right side of a policy line as smtp(8) of that version does
// and refuses what it would refuse, and what it would take without doing what
// the line says. Names of levels and attributes may be in any case. The error
// is an *Error.
func Parse(text string, v Version) (Line, error) {
	if len(text) > MaxLine {
		return Line{}, refuse("", "a policy line of more than 100000 bytes", "")
	}
	for i := range len(text) {
		if c := text[i]; (c < ' ' || c > '~') && strings.IndexByte(separators, c) < 0 {
			return Line{}, unsafe(clip(text), fmt.Sprintf("has the byte 0x%02x at %d", c, i), "write printable ASCII, names as A-labels (xn--…)")
		}
	}
	word, rest, err := cutToken(text, v)
	if err != nil {
		return Line{}, err
	}
	if word == "" {
		return Line{}, refuse("", "an empty policy", "begin with a level, for example encrypt")
	}
	var line Line
	if line.Level, err = ParseLevel(word); err != nil {
		return Line{}, err
	}
	if rest = strings.TrimLeft(rest, separators); line.Level == None && rest != "" {
		return Line{}, ignoredAtNone(clip(rest))
	}
	for {
		if word, rest, err = cutToken(rest, v); err != nil {
			return Line{}, err
		}
		if word == "" {
			break
		}
		a, err := parseAttr(word, v)
		if err != nil {
			return Line{}, err
		}
		line.Attrs = append(line.Attrs, a)
	}
	if err := line.Validate(v); err != nil {
		return Line{}, err
	}
	return line, nil
}

const separators = ", \t\r\n" // CHARS_COMMA_SP

// cutToken takes the next token off: up to a separator outside of braces (3.10,
// mystrtokq), or up to any separator (mystrtok). Empty at the end.
func cutToken(text string, v Version) (token, rest string, err error) {
	text = strings.TrimLeft(text, separators)
	depth, braces := 0, v.STSAttributes()
	for i := range len(text) {
		switch c := text[i]; {
		case !braces && c == '{' && i == 0:
			return "", "", tooNew(clip(text[i:]), "3.10", v, "write name=value without braces and spaces")
		case braces && c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		case depth == 0 && strings.IndexByte(separators, c) >= 0:
			return text[:i], text[i+1:], nil
		}
	}
	if depth > 0 {
		kind := ErrRefused
		if text[0] != '{' {
			kind = ErrUnsafe // all that follows is taken for the value
		}
		return "", "", &Error{Kind: kind, Token: clip(text), What: `has a "{" without its "}"`, Fix: "close it"}
	}
	return text, "", nil
}

// parseAttr reads name=value or { name = value }.
func parseAttr(token string, v Version) (Attr, error) {
	inner := token
	if token[0] == '{' {
		end := closing(token)
		if end != len(token)-1 {
			return Attr{}, refuse(clip(token), "goes on after its \"}\"", "put a space behind the \"}\"")
		}
		inner = spaces.Replace(token[1:end])
	}
	name, value, found := strings.Cut(inner, "=")
	name = strings.TrimSpace(name)
	if !found || strings.ContainsAny(name, " \t\v\f\r\n") {
		fix := "write name=value, without spaces around the \"=\""
		if v.STSAttributes() {
			fix += ", or { name = value }"
		}
		return Attr{}, refuse(clip(token), "is no name=value", fix)
	}
	if name == "" {
		return Attr{}, refuse(clip(token), "has no name before the \"=\"", "write name=value, without spaces around the \"=\"")
	}
	return Attr{Name: strings.ToLower(name), Value: strings.Trim(value, " \t\v\f\r\n")}, nil
}

// spaces: EXTPAR_FLAG_NORMAL_WS of util/extpar.c.
var spaces = strings.NewReplacer("\t", " ", "\n", " ", "\v", " ", "\f", " ", "\r", " ")

// closing is the index of the brace that closes the first one, -1 without.
func closing(token string) int {
	depth := 0
	for i := range len(token) {
		switch token[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}
