package align

import (
	"bytes"
	"strconv"
	"strings"
)

// maxQuoted is how many octets of foreign text one detail quotes.
const maxQuoted = 80

// quote makes foreign text fit for one line of a log.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

// field is one header field.
type field struct {
	name  string // lower case, without white space before the colon
	value []byte // raw: folds inside, line end behind
}

// header is the fields of a message, in order, and where those of a name stand.
type header struct {
	fields []field
	byName map[string][]int
	// malformed counts the fields that are none: no colon, or a name with other
	// characters than RFC 5322 §2.2 allows. bad is the first of them.
	malformed int
	bad       string
}

// parseHeader splits fields. It is linear, and copies names only.
func parseHeader(raw [][]byte) *header {
	h := &header{byName: make(map[string][]int)}
	for _, b := range raw {
		f, ok := splitField(b)
		if !ok {
			if h.malformed++; h.malformed == 1 {
				h.bad = string(b[:min(len(b), maxQuoted)])
			}
			continue
		}
		h.byName[f.name] = append(h.byName[f.name], len(h.fields))
		h.fields = append(h.fields, f)
	}
	return h
}

// splitField: RFC 5322 §2.2, and §4.5 where white space may stand before the
// colon.
func splitField(b []byte) (field, bool) {
	name, value, ok := bytes.Cut(b, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	if !ok || len(name) == 0 {
		return field{}, false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7F {
			return field{}, false
		}
	}
	return field{strings.ToLower(string(name)), value}, true
}

// count tells how many fields of a name there are.
func (h *header) count(name string) int { return len(h.byName[name]) }

// first returns the unfolded value of the topmost field of the name.
func (h *header) first(name string) (value string, ok bool) {
	at := h.byName[name]
	if len(at) == 0 {
		return "", false
	}
	return unfold(h.fields[at[0]].value), true
}

// unfold: RFC 5322 §2.2.3, a line break before white space is removed. Line
// breaks elsewhere end the field; there are none within a field that a milter
// sees, and what stands behind one must not be read as part of the value.
func unfold(value []byte) string {
	if bytes.IndexByte(value, '\r') < 0 && bytes.IndexByte(value, '\n') < 0 {
		return strings.Trim(string(value), " \t")
	}
	var b strings.Builder
	b.Grow(len(value))
	for len(value) > 0 {
		i := bytes.IndexByte(value, '\n')
		if i < 0 {
			b.Write(value)
			break
		}
		b.Write(bytes.TrimSuffix(value[:i], []byte("\r")))
		if value = value[i+1:]; len(value) > 0 && value[0] != ' ' && value[0] != '\t' {
			break
		}
	}
	return strings.Trim(b.String(), " \t")
}

// hasStray tells whether a raw field has a NUL, or a CR or LF that is no part of
// a fold or of the end: RFC 5322 §2.2 and §2.3.
func hasStray(b []byte) bool {
	b = bytes.TrimSuffix(b, []byte("\n"))
	b = bytes.TrimSuffix(b, []byte("\r"))
	for i := 0; ; i++ {
		j := bytes.IndexAny(b[i:], "\x00\r\n")
		if j < 0 {
			return false
		}
		i += j
		if b[i] != '\r' || i+2 >= len(b) || b[i+1] != '\n' || b[i+2] != ' ' && b[i+2] != '\t' {
			return true
		}
		i++
	}
}
