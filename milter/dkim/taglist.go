package dkim

import (
	"bytes"
	"errors"
	"fmt"
)

var semicolon = []byte(";")

// tag is one tag-spec of a tag-list.
type tag struct {
	name  string
	value []byte // without the white space around it

	// What stands between "=" and ";" (or the end), white space included, as
	// offsets in the text that was read.
	start, end int
}

// tagList holds the tags in their order, each name once.
type tagList []tag

// parseTags reads a tag-list, RFC 6376 §3.2. Folding white space is allowed
// around names and values, one semicolon at the end. Names are case-sensitive.
// The error says which tag is wrong and how; it makes the whole list invalid.
// Octets of 8 bits pass: whether a value may have them is for its reader to say.
func parseTags(text []byte) (tagList, error) {
	list := make(tagList, 0, min(bytes.Count(text, semicolon)+1, maxTags))
	for at := 0; at < len(text); {
		end := at
		for end < len(text) && text[end] != ';' {
			end++
		}
		if len(trim(text[at:end])) == 0 {
			if end == len(text) && len(list) > 0 {
				break // RFC 6376 §3.2: the list may end in a semicolon
			}
			return list, fmt.Errorf("an empty tag after %d others", len(list))
		}
		t, err := parseTag(text, at, end)
		if err != nil {
			return list, err
		}
		// RFC 6376 §3.2: a name twice makes the entire tag-list invalid.
		if _, twice := list.find(t.name); twice {
			return list, fmt.Errorf("the tag %s= is there twice", join(t.name))
		}
		if len(list) == maxTags {
			return list, fmt.Errorf("more than %d tags", maxTags)
		}
		list = append(list, t)
		at = end + 1
	}
	if len(list) == 0 {
		return list, errors.New("no tags at all")
	}
	return list, nil
}

// parseTag reads the tag-spec text[at:end], which is not blank.
func parseTag(text []byte, at, end int) (tag, error) {
	equals := at
	for equals < end && text[equals] != '=' {
		equals++
	}
	name := trim(text[at:equals])
	if equals == end {
		return tag{}, fmt.Errorf("%s has no \"=\"", quote(name))
	}
	if !isTagName(name) {
		return tag{}, fmt.Errorf("%s is not the name of a tag", quote(name))
	}
	t := tag{name: string(name), value: trim(text[equals+1 : end]), start: equals + 1, end: end}
	for _, c := range t.value {
		if c < ' ' && !isSpace(c) || c == 0x7F {
			return tag{}, fmt.Errorf("the tag %s= holds the control character %#02x", join(t.name), c)
		}
	}
	return t, nil
}

// find returns the tag of the name.
func (l tagList) find(name string) (tag, bool) {
	for _, t := range l {
		if t.name == name {
			return t, true
		}
	}
	return tag{}, false
}

// RFC 6376 §3.2: tag-name = ALPHA *ALNUMPUNC.
func isTagName(name []byte) bool {
	for i, c := range name {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return len(name) > 0
}

// isSpace tells the octets of folding white space. A field is folded by CRLF
// before white space only; a CR or LF elsewhere counts as white space too, as
// libopendkim and go-msgauth have it.
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// trim cuts the white space at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// strip returns the text without any white space, and whether there was some.
func strip(b []byte) (string, bool) {
	out := dense(b)
	return string(out), len(out) != len(b)
}

// dense is the text without any white space: itself where it has none.
func dense(b []byte) []byte {
	if !bytes.ContainsAny(b, " \t\r\n") {
		return b
	}
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if !isSpace(c) {
			out = append(out, c)
		}
	}
	return out
}

// items splits a colon-separated list and trims each of its items.
func items(b []byte) [][]byte {
	var list [][]byte
	at := 0
	for i := 0; i <= len(b); i++ {
		if i == len(b) || b[i] == ':' {
			list = append(list, trim(b[at:i]))
			at = i + 1
		}
	}
	return list
}
