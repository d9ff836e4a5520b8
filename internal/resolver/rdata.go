package resolver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
)

// list takes the records of one type. What comes twice is one record, RFC 2181 §5.
type list[T any] struct {
	all    []T
	seen   []span // of the data of all, as long as msg is read
	decode func(msg []byte, off, end int) (T, error)
}

type span struct{ off, end int }

func (l *list[T]) reset() { l.all, l.seen = nil, l.seen[:0] }

func (l *list[T]) add(msg []byte, off, end int) error {
	// At most 64 kB of records: some ten million comparisons of small data in
	// the worst case, which takes milliseconds.
	for _, s := range l.seen {
		if s.end-s.off == end-off && bytes.Equal(msg[s.off:s.end], msg[off:end]) {
			return nil
		}
	}
	v, err := l.decode(msg, off, end)
	if err != nil {
		return err
	}
	l.all, l.seen = append(l.all, v), append(l.seen, span{off, end})
	return nil
}

func badData(rtype string) error {
	return fmt.Errorf("%w: %s record", ErrMalformed, rtype)
}

// addressData reads A and AAAA records. RFC 1035 §3.4.1, RFC 3596 §2.2.
func addressData(size int, rtype string) func(msg []byte, off, end int) (Addr, error) {
	return func(msg []byte, off, end int) (Addr, error) {
		if end-off != size {
			return Addr{}, badData(rtype)
		}
		a, _ := netip.AddrFromSlice(msg[off:end])
		return a, nil
	}
}

// textData joins the strings of a TXT record, octets as they came. RFC 1035
// §3.3.14; RFC 8461 §3.1 and RFC 6376 §3.6.2.2: without anything in between.
func textData(msg []byte, off, end int) (string, error) {
	if off == end {
		return "", badData("TXT")
	}
	if off+1+int(msg[off]) == end {
		return string(msg[off+1 : end]), nil
	}
	text := make([]byte, 0, end-off)
	for off < end {
		next := off + 1 + int(msg[off])
		if next > end {
			return "", badData("TXT")
		}
		text = append(text, msg[off+1:next]...)
		off = next
	}
	return string(text), nil
}

// mxData reads an MX record. RFC 1035 §3.3.9.
func mxData(msg []byte, off, end int) (MX, error) {
	if end-off < 3 {
		return MX{}, badData("MX")
	}
	host, err := nameData(msg, off+2, end)
	if err != nil {
		return MX{}, err
	}
	return MX{Preference: binary.BigEndian.Uint16(msg[off:]), Host: host}, nil
}

// nameData reads data, or its rest, that is a name.
func nameData(msg []byte, off, end int) (string, error) {
	name, next, err := readName(msg, off)
	if err == nil && next != end {
		err = fmt.Errorf("%w: the name in a record has another length than the record", ErrMalformed)
	}
	if err != nil {
		return "", err
	}
	return name, nil
}

// tlsaData reads a TLSA record. RFC 6698 §2.1.
func tlsaData(msg []byte, off, end int) (TLSA, error) {
	if end-off < 3 {
		return TLSA{}, badData("TLSA")
	}
	return TLSA{
		Usage: msg[off], Selector: msg[off+1], MatchingType: msg[off+2],
		Data: bytes.Clone(msg[off+3 : end]),
	}, nil
}

// soaMinimum reads the last field of an SOA record. RFC 1035 §3.3.13.
func soaMinimum(msg []byte, off, end int) (uint32, error) {
	for range 2 {
		var ok bool
		if off, ok = skipName(msg, off); !ok {
			return 0, badData("SOA")
		}
	}
	if off+20 != end {
		return 0, badData("SOA")
	}
	minimum := binary.BigEndian.Uint32(msg[off+16:])
	if minimum > math.MaxInt32 {
		return 0, nil // RFC 2181 §8
	}
	return minimum, nil
}

// anyData takes the records of the probe, unread.
func anyData([]byte, int, int) (struct{}, error) { return struct{}{}, nil }
