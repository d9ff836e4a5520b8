package milter

import (
	"bytes"
	"encoding/binary"
)

// body watches a body go by for what breaks signatures after the milters: 8-bit
// text, which smtp(8) converts for a server without 8BITMIME, and long lines,
// which it folds (K-026); and for octets that SMTP does not allow. The zero value is
// ready.
type body struct {
	size     int64
	eightBit bool
	longest  int // line, in octets without its CRLF
	line     int // octets of the line that has begun
	cr       bool
	stray    bool // a NUL, or a CR or LF that stands alone
}

// invalid is for the end of the body: RFC 5321 §2.3.8.
func (b *body) invalid() bool { return b.stray || b.cr }

func (b *body) write(p []byte) {
	b.size += int64(len(p))
	b.eightBit = b.eightBit || hasEightBit(p)
	b.stray = b.stray || bytes.IndexByte(p, 0) >= 0 || b.cr && len(p) > 0 && p[0] != '\n'
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			b.line += len(p)
			b.stray = b.stray || bytes.IndexByte(p[:len(p)-1], '\r') >= 0
			b.cr = p[len(p)-1] == '\r'
			n := b.line
			if b.cr { // the LF may come with the next chunk
				n--
			}
			b.longest = max(b.longest, n)
			return
		}
		n := b.line + i
		if i > 0 && p[i-1] == '\r' || i == 0 && b.cr {
			n--
		} else {
			b.stray = true
		}
		b.stray = b.stray || bytes.IndexByte(p[:max(0, i-1)], '\r') >= 0
		b.longest = max(b.longest, n)
		b.line, b.cr, p = 0, false, p[i+1:]
	}
}

// hasEightBit looks at eight octets at a time.
func hasEightBit(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&high != 0 {
			return true
		}
		p = p[8:]
	}
	for _, c := range p {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
