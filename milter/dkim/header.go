package dkim

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// header is the message's header with an index by name. Fields of one name are
// chained from the bottom up, the order in which signatures take them.
type header struct {
	fields [][]byte
	names  []string         // in lower case
	above  []int32          // the next field of the same name further up, or none
	lowest map[string]int32 // of each name
}

const none = -1

func newHeader(fields [][]byte) header {
	h := header{
		fields: fields,
		names:  make([]string, len(fields)),
		above:  make([]int32, len(fields)),
		lowest: make(map[string]int32, len(fields)),
	}
	for i, field := range fields {
		name := lowered(nameOf(field))
		h.names[i] = name
		h.above[i] = none
		if below, ok := h.lowest[name]; ok {
			h.above[i] = below
		}
		h.lowest[name] = int32(i)
	}
	return h
}

// first is the lowest field of the name, or none. That of the signature itself,
// own, is never taken: RFC 6376 §3.7 adds it at the end.
func (h *header) first(name string, own int32) int32 {
	i, ok := h.lowest[name]
	if !ok {
		return none
	}
	return h.skip(i, own)
}

// next is the field of the same name above i, or none.
func (h *header) next(i, own int32) int32 { return h.skip(h.above[i], own) }

func (h *header) skip(i, own int32) int32 {
	if i != none && i == own {
		return h.above[i]
	}
	return i
}

// nameOf returns what stands before the colon. RFC 5322 §4.5 allows white space
// there, and RFC 6376 §3.4.2 deletes it.
func nameOf(field []byte) []byte {
	if colon := bytes.IndexByte(field, ':'); colon >= 0 {
		field = field[:colon]
	}
	return trim(field)
}

// hasName tells whether the field has the name, which is in lower case.
func hasName(field []byte, lower string) bool {
	name := nameOf(field)
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// headerHash is the SHA-256 of canonicalized fields.
type headerHash struct {
	hash hash.Hash
	buf  []byte
}

func newHeaderHash(buf []byte) headerHash { return headerHash{sha256.New(), buf[:0]} }

// add takes one whole field in.
func (h *headerHash) add(c Canonicalization, field []byte) {
	h.field(c, bytes.TrimSuffix(field, crlf), nil)
	h.buf = append(h.buf, crlf...)
	if len(h.buf) > cap(h.buf)/2 {
		h.flush()
	}
}

// field takes one field in two pieces, without the CRLF at its end.
func (h *headerHash) field(c Canonicalization, start, rest []byte) {
	if c == Simple {
		// RFC 6376 §3.4.1: nothing is changed.
		h.raw(start)
		h.raw(rest)
		return
	}
	h.buf = append(h.buf, lowered(nameOf(start))...)
	h.buf = append(h.buf, ':')
	h.value(start[min(bytes.IndexByte(start, ':')+1, len(start)):], rest)
}

func (h *headerHash) raw(b []byte) {
	if len(b) > cap(h.buf)-len(h.buf) {
		h.flush()
		h.hash.Write(b)
		return
	}
	h.buf = append(h.buf, b...)
}

// value is RFC 6376 §3.4.2: unfolded, white space made one space, and none at
// the beginning and end.
func (h *headerHash) value(pieces ...[]byte) {
	blank, any := false, false
	for _, b := range pieces {
		for len(b) > 0 {
			if isSpace(b[0]) {
				blank = any
				b = b[1:]
				continue
			}
			end := 1
			for end < len(b) && !isSpace(b[end]) {
				end++
			}
			if blank {
				h.buf = append(h.buf, ' ')
			}
			if len(h.buf)+end+len(crlf)+1 > cap(h.buf) {
				h.flush()
			}
			h.raw(b[:end])
			blank, any = false, true
			b = b[end:]
		}
	}
}

func (h *headerHash) flush() {
	h.hash.Write(h.buf)
	h.buf = h.buf[:0]
}

func (h *headerHash) sum() []byte {
	h.flush()
	return h.hash.Sum(nil)
}

// count is how many fields of the name there are besides own.
func (h *header) count(name string, own int32) int {
	n := 0
	for i := h.first(name, own); i != none; i = h.next(i, own) {
		n++
	}
	return n
}
