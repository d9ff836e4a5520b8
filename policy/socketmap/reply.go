package socketmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrProtocol says that a peer's bytes are no reply. The connection cannot be
// used any more.
var ErrProtocol = errors.New("socketmap: not a reply")

// Status is the first word of a reply.
type Status string

// The statuses of socketmap_table(5).
const (
	OK       Status = "OK"       // found
	NotFound Status = "NOTFOUND" // there is nothing: Postfix asks the next table
	Temp     Status = "TEMP"     // temporary error: Postfix defers the mail
	Timeout  Status = "TIMEOUT"  // as Temp
	Perm     Status = "PERM"     // for a TLS policy as Temp
)

// Reply is a parsed reply.
type Reply struct {
	Status Status
	// Text is the data found, or the reason of an error.
	Text string
}

// String returns the reply as it stands on the wire, without the framing.
func (r Reply) String() string { return string(r.Status) + " " + r.Text }

// AppendOK appends the reply "OK text". Text must not be empty and must be
// printable ASCII; the Server lets nothing else pass.
func AppendOK(dst []byte, text string) []byte {
	dst = append(dst, "OK "...)
	return append(dst, text...)
}

// AppendNotFound appends the reply "NOTFOUND ", with the space that Postfix wants.
func AppendNotFound(dst []byte) []byte {
	return append(dst, "NOTFOUND "...)
}

// AppendTemp appends the reply "TEMP reason". Postfix defers the mail and logs
// the reason, of which MaxReason characters are kept; those that are not printable
// ASCII become "?". The sender of the mail never sees it.
func AppendTemp(dst []byte, reason string) []byte {
	dst = append(dst, "TEMP "...)
	if reason == "" {
		reason = "no reason given"
	}
	kept := 0
	for _, r := range reason {
		if kept++; kept > MaxReason {
			break
		}
		if r < utf8.RuneSelf && printable(byte(r)) {
			dst = append(dst, byte(r))
		} else {
			dst = append(dst, '?')
		}
	}
	return dst
}

// ParseReply reads the payload of a reply. Like Postfix it splits at the first
// space; unlike some of its versions it takes "OK" without a space, or without
// data after it, for the error that it is. Errors wrap ErrProtocol.
func ParseReply(payload []byte) (Reply, error) {
	if err := checkReply(payload); err != nil {
		return Reply{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	status, text, _ := bytes.Cut(payload, []byte{' '})
	return Reply{Status: Status(status), Text: string(text)}, nil
}

// Why a reply must not leave.
var (
	errEmpty     = errors.New("empty")
	errReplySize = fmt.Errorf("longer than %d bytes", MaxReply)
	errReplyByte = errors.New("a byte that is not printable ASCII")
	errStatus    = errors.New("no known status before a space")
	errNoData    = errors.New("OK without data")
)

// checkReply says whether Postfix, of whatever version, understands payload as it
// was meant.
func checkReply(payload []byte) error {
	if len(payload) == 0 {
		return errEmpty
	}
	// PFX-08: at 100001 bytes Postfix stops reading in the middle.
	if len(payload) > MaxReply {
		return errReplySize
	}
	// PFX-07: with smtputf8 a reply must be UTF-8; ASCII always is. A NUL would
	// end the text for Postfix, a line break is a separator to it.
	if !allPrintable(payload) {
		return errReplyByte
	}
	i := bytes.IndexByte(payload, ' ')
	if i < 0 {
		return errStatus
	}
	switch Status(payload[:i]) {
	case OK:
		// Postfix before 3.8.16, 3.9.10, 3.10.9 and 3.11.2 reads "OK" as not
		// found, which can mean plaintext; "OK " is an error to all of them.
		if len(bytes.TrimLeft(payload[i:], " ")) == 0 {
			return errNoData
		}
	case NotFound, Temp, Timeout, Perm:
	default:
		return errStatus
	}
	return nil
}

func printable(c byte) bool { return ' ' <= c && c <= '~' }

// allPrintable looks at eight bytes at a time: it is all that the server does to
// each byte of a reply.
func allPrintable(b []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; len(b) >= 8; b = b[8:] {
		v := binary.LittleEndian.Uint64(b)
		// The top bit of a byte of v-' ' is set where that byte is below ' ' (a
		// borrow from it can only add a refusal beside one that is right), of v+1
		// where it is DEL; of v itself where it is not ASCII.
		if (v|(v-ones*' ')|(v+ones))&tops != 0 {
			return false
		}
	}
	for _, c := range b {
		if !printable(c) {
			return false
		}
	}
	return true
}
