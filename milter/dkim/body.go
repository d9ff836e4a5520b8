package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/bits"
	"slices"
)

// tailSize is how many of the last canonical octets are kept besides being
// counted: enough for the footer that something appended after signing.
const tailSize = 2048

// digest is the SHA-256 of a canonical body while it comes in. Limits of l= take
// no hash of their own: where one is reached, the running hash is asked for its
// sum.
type digest struct {
	hash   hash.Hash // of all but tail
	tail   []byte
	length int64 // octets so far, tail included

	limits []limit // ascending, each once
	passed int     // of limits
}

// limit is a length of l= and the hash of as much of the body.
type limit struct {
	at  int64
	sum []byte
}

func newDigest() *digest {
	return &digest{hash: sha256.New(), tail: make([]byte, 0, 2*tailSize)}
}

// limitTo makes the digest remember the sum of the first at octets. To be called
// before the first write.
func (d *digest) limitTo(at int64) {
	i, found := slices.BinarySearchFunc(d.limits, at, func(l limit, at int64) int { return int(min(max(l.at-at, -1), 1)) })
	if !found {
		d.limits = slices.Insert(d.limits, i, limit{at: at})
	}
}

// write takes canonical octets in. Long pieces go to the hash as they are; of
// each only the end is copied.
func (d *digest) write(p []byte) {
	for d.passed < len(d.limits) && d.limits[d.passed].at <= d.length+int64(len(p)) {
		d.limits[d.passed].sum = d.sum(p[:d.limits[d.passed].at-d.length])
		d.passed++
	}
	d.length += int64(len(p))
	switch {
	case len(p) >= tailSize:
		d.hash.Write(d.tail)
		d.hash.Write(p[:len(p)-tailSize])
		d.tail = append(d.tail[:0], p[len(p)-tailSize:]...)
		return
	case len(d.tail)+len(p) > cap(d.tail):
		old := len(d.tail) - tailSize
		d.hash.Write(d.tail[:old])
		d.tail = d.tail[:copy(d.tail, d.tail[old:])]
	}
	d.tail = append(d.tail, p...)
}

// sum is the hash of all that came so far and then more; nothing is taken in.
func (d *digest) sum(more []byte) []byte {
	h := d.clone()
	h.Write(d.tail)
	h.Write(more)
	return h.Sum(nil)
}

func (d *digest) clone() hash.Hash {
	c, err := d.hash.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // crypto/sha256 promises that it can be cloned
	}
	return c
}

// sumAt is the hash of the first at octets; false if there are fewer. Only for
// lengths that limitTo was told of, or -1 for all.
func (d *digest) sumAt(at int64) ([]byte, bool) {
	if at < 0 {
		return d.sum(nil), true
	}
	for _, l := range d.limits[:d.passed] {
		if l.at == at {
			return l.sum, true
		}
	}
	return nil, false
}

// surplus looks for an end of the body without which it has the wanted hash: at
// most tailSize octets, from the beginning or the end of a line on.
func (d *digest) surplus(want []byte) (octets int, found bool) {
	h := d.clone()
	var sum [sha256.Size]byte
	rest := d.tail
	for {
		if bytes.Equal(h.Sum(sum[:0]), want) {
			return len(rest), true
		}
		if len(rest) == 0 {
			return 0, false
		}
		n := bytes.Index(rest, crlf)
		switch {
		case n < 0:
			n = len(rest)
		case n == 0:
			n = len(crlf)
		}
		h.Write(rest[:n])
		rest = rest[n:]
	}
}

var (
	crlf  = []byte("\r\n")
	space = []byte(" ")
	cr    = []byte("\r")

	lineEnds = bytes.Repeat(crlf, 256)
)

// body canonicalizes a body while it comes in, into its digest.
type body interface {
	write(chunk []byte)
	finish()
	digest() *digest
}

func newBody(c Canonicalization) body {
	h := held{out: newDigest()}
	if c == Relaxed {
		return &relaxedBody{held: h}
	}
	return &simpleBody{h}
}

// held are line ends that may turn out to be the last ones of the body, which
// both canonicalizations cut.
type held struct {
	out  *digest
	ends int
	cr   bool // the last chunk ended in a CR: a line end if LF follows
}

func (h *held) digest() *digest { return h.out }

func (h *held) release() {
	for h.ends > 0 {
		n := min(h.ends, len(lineEnds)/len(crlf))
		h.out.write(lineEnds[:n*len(crlf)])
		h.ends -= n
	}
}

// simpleBody is RFC 6376 §3.4.3: line ends at the end become one, and one is
// added where there is none.
type simpleBody struct{ held }

func (s *simpleBody) write(b []byte) {
	if len(b) == 0 {
		return
	}
	if s.cr {
		s.cr = false
		if b[0] == '\n' {
			s.ends++
			b = b[1:]
		} else {
			s.release()
			s.out.write(cr)
		}
	}
	if bytes.HasSuffix(b, cr) {
		s.cr = true
		b = b[:len(b)-1]
	}
	end := len(b)
	for end >= 2 && b[end-2] == '\r' && b[end-1] == '\n' {
		end -= 2
	}
	if end > 0 {
		s.release()
		s.out.write(b[:end])
	}
	s.ends += (len(b) - end) / 2
}

// RFC 6376 §3.4.3: the empty body is a single CRLF.
func (s *simpleBody) finish() {
	if s.cr {
		s.release()
		s.out.write(cr)
	}
	s.out.write(crlf)
}

// relaxedBody is RFC 6376 §3.4.4: white space within a line becomes one space,
// at its end none; empty lines at the end are cut.
type relaxedBody struct {
	held
	blank bool // white space is held back, after the line ends
	any   bool // there was text
}

func (r *relaxedBody) write(b []byte) {
	if len(b) == 0 {
		return
	}
	if r.cr {
		r.cr = false
		if b[0] == '\n' {
			r.ends, r.blank = r.ends+1, false
			b = b[1:]
		} else {
			r.text(cr)
		}
	}
	last := len(b) // after the last octet that is certainly text
	for last > 0 && isSpace(b[last-1]) {
		last--
	}
	for i := r.hold(b); i < len(b); i += r.hold(b[i:]) {
		end := max(i+1, last) // beyond last there are only CR and LF on their own
		r.text(b[i:end])
		i = end
	}
}

// hold keeps back the white space and line ends that b begins with, and returns
// how much that is.
func (r *relaxedBody) hold(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == ' ' || b[i] == '\t':
			r.blank = true
		case b[i] != '\r':
			return i
		case i+1 == len(b):
			r.cr = true
		case b[i+1] == '\n':
			r.ends, r.blank = r.ends+1, false
			i++
		default:
			return i
		}
	}
	return len(b)
}

// text writes what begins and ends with text, or is a CR or LF on its own.
func (r *relaxedBody) text(b []byte) {
	r.release()
	if r.blank {
		r.out.write(space)
	}
	r.blank, r.any = false, true
	for {
		i := nextBlank(b)
		if i == len(b) {
			r.out.write(b)
			return
		}
		end := i
		for b[end] == ' ' || b[end] == '\t' {
			end++ // not beyond b: text is its last octet
		}
		switch {
		case b[end] == '\r' && b[end+1] == '\n':
			r.out.write(b[:i])
		case b[i] == ' ':
			r.out.write(b[:i+1])
		default:
			r.out.write(b[:i])
			r.out.write(space)
		}
		b = b[end:]
	}
}

func (r *relaxedBody) finish() {
	if r.cr {
		r.text(cr)
	}
	// RFC 6376 §3.4.4: a CRLF is added where there is none, but not to the
	// empty body.
	if r.any {
		r.out.write(crlf)
	}
}

// nextBlank finds the next white space that cannot stay as it is, or might not:
// a tab, or a space before a space, tab or CR. Eight octets are looked at
// together: in most mail most lines stay as they are, and go to the hash whole.
func nextBlank(b []byte) int {
	i := 0
	for ; i+9 <= len(b); i += 8 {
		here := binary.LittleEndian.Uint64(b[i:])
		spaces, tabs := equal(here, ' '), equal(here, '\t')
		if spaces|tabs == 0 {
			continue
		}
		next := binary.LittleEndian.Uint64(b[i+1:])
		if hits := tabs | spaces&(equal(next, ' ')|equal(next, '\t')|equal(next, '\r')); hits != 0 {
			return i + bits.TrailingZeros64(hits)/8
		}
	}
	for ; i < len(b); i++ {
		if b[i] == '\t' || b[i] == ' ' && i+1 < len(b) && isSpace(b[i+1]) {
			return i
		}
	}
	return len(b)
}

// equal sets the highest bit of each octet of word that is c.
func equal(word uint64, c byte) uint64 {
	const ones, low = 0x0101010101010101, 0x7f7f7f7f7f7f7f7f
	x := word ^ ones*uint64(c)
	return ^((x&low + low) | x | low)
}
