package socketmap

import (
	"errors"
	"fmt"
	"strconv"
)

// Why a connection's bytes are no netstring. They end the connection.
var (
	errLength  = errors.New("length is not a number without leading zeros before a colon")
	errTooLong = errors.New("announces more than the limit")
	errComma   = errors.New("comma missing after the payload")
	errNoSpace = errors.New("no space between map name and key")
)

// cutNetstring returns the payload of the netstring at the beginning of b and
// the number of bytes that the netstring takes. Zero bytes: b holds only the
// beginning of one. The verdict on a stream does not depend on where it is split,
// and a wrong length is told before its payload has arrived.
func cutNetstring(b []byte, limit int) (payload []byte, size int, err error) {
	length, i := 0, 0
	for ; ; i++ {
		if i == len(b) {
			return nil, 0, nil
		}
		c := b[i]
		if c == ':' && i > 0 {
			break
		}
		if c < '0' || c > '9' || i == 1 && b[0] == '0' {
			return nil, 0, errLength
		}
		// Checked with every digit, so that it cannot overflow.
		if length = length*10 + int(c-'0'); length > limit {
			return nil, 0, fmt.Errorf("%w of %d bytes", errTooLong, limit)
		}
	}
	start := i + 1
	end := start + length
	if len(b) <= end {
		return nil, 0, nil
	}
	if b[end] != ',' {
		return nil, 0, errComma
	}
	return b[start:end:end], end + 1, nil
}

// AppendNetstring appends payload as a netstring to dst.
func AppendNetstring[T ~string | ~[]byte](dst []byte, payload T) []byte {
	dst = strconv.AppendInt(dst, int64(len(payload)), 10)
	dst = append(dst, ':')
	dst = append(dst, payload...)
	return append(dst, ',')
}

// frameHead is the room that a frame keeps before its payload for the length.
const frameHead = len("100000:")

// frame is a reply that is built in place: the payload is appended after
// frameHead bytes, then the length is written right before it and the comma
// after it. It is kept and used again.
type frame struct {
	buf []byte
}

// payload returns the empty slice to append the payload to. There is room for
// the comma behind its capacity.
func (f *frame) payload() []byte {
	if cap(f.buf) == 0 {
		f.buf = make([]byte, writeSize)
	}
	return f.buf[frameHead : frameHead : len(f.buf)-1]
}

// netstring frames payload, which is what was appended to f.payload(), or any
// other bytes; at most MaxReply of them. The result is valid until the next call.
func (f *frame) netstring(payload []byte) []byte {
	n := len(payload)
	if n == 0 || &payload[0] != &f.buf[frameHead] {
		// The payload outgrew its place, or never was there.
		if need := frameHead + n + 1; need > len(f.buf) {
			f.buf = make([]byte, need+need/2)
		}
		copy(f.buf[frameHead:], payload)
	}
	f.buf[frameHead+n] = ','
	i := frameHead - 1
	f.buf[i] = ':'
	for v := n; ; v /= 10 {
		i--
		f.buf[i] = byte('0' + v%10)
		if v < 10 {
			break
		}
	}
	return f.buf[i : frameHead+n+1]
}
