package resolver

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/miekg/dns"
)

// question is one query, packed, and room for its answer. It belongs to one
// look-up at a time and is used again by others.
type question struct {
	name  string // as Answers have it
	qtype uint16
	size  int // of the query
	end   int // of its question section
	query [2 + maxQuery]byte
	reply [udpBuffer]byte
	rrs   []rr
}

// Bits of the header's second pair of octets, RFC 1035 §4.1.1 and RFC 4035 §3.
const (
	bitQR = 1 << 15
	bitTC = 1 << 9
	bitRD = 1 << 8
	bitRA = 1 << 7
	bitAD = 1 << 5
	bitCD = 1 << 4

	maskOpcode = 0xf << 11
	maskRcode  = 0xf
)

// set makes q the query for a name and type. The two octets before the query
// hold its length, for TCP.
func (q *question) set(name string, qtype uint16) error {
	b := append(q.query[:2], 0, 0) // the id comes later
	// RFC 6840 §5.7: AD asks for the AD bit in the reply. DO, below, does too
	// (RFC 4035 §3.2.1); some forwarders look at one, some at the other.
	b = binary.BigEndian.AppendUint16(b, bitRD|bitAD)
	b = append(b, 0, 1, 0, 0, 0, 0, 0, 1)
	b, err := appendName(b, name)
	if err != nil {
		return err
	}
	b = binary.BigEndian.AppendUint16(b, qtype)
	b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
	q.qtype, q.end = qtype, len(b)-2
	// RFC 6891 §6.1.2: root, OPT, size, extended rcode and version, flags (DO), no options.
	b = append(b, 0, 0, byte(dns.TypeOPT))
	b = binary.BigEndian.AppendUint16(b, udpPayload)
	b = append(b, 0, 0, 0x80, 0, 0, 0)
	q.size = len(b) - 2
	binary.BigEndian.PutUint16(q.query[:], uint16(q.size))
	if q.name = name; !plain(name) {
		q.name, _, err = readName(q.message(), headerSize)
	}
	return err
}

func (q *question) message() []byte { return q.query[2 : 2+q.size] }

// stream is the message with its length before it, RFC 1035 §4.2.2.
func (q *question) stream() []byte { return q.query[:2+q.size] }

// answeredBy says that the message is a reply to q: the id, the question and the
// direction are right (RFC 5452 §9.1). A server that could not read or would
// not answer the question may leave it out.
func (q *question) answeredBy(msg []byte) bool {
	if len(msg) < headerSize || msg[0] != q.query[2] || msg[1] != q.query[3] {
		return false
	}
	bits := binary.BigEndian.Uint16(msg[2:])
	if bits&bitQR == 0 || bits&maskOpcode != 0 {
		return false
	}
	switch binary.BigEndian.Uint16(msg[4:]) {
	case 0:
		rcode := bits & maskRcode
		return rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError
	case 1:
		return len(msg) >= q.end && sameFold(msg[headerSize:q.end], q.query[2+headerSize:2+q.end])
	}
	return false
}

// sameFold compares a question section with ours: the name without regard to case
// (RFC 4343), type and class exactly. In b all letters are lower case, and the
// length of a label, at most 63, is below the letters.
func sameFold(a, b []byte) bool {
	last := len(a) - 4
	for i := range last {
		if lower(a[i]) != b[i] {
			return false
		}
	}
	return string(a[last:]) == string(b[last:])
}

// rr is one record of a message: offsets of its owner and its data.
type rr struct {
	owner, data, end int
	rtype, class     uint16
	ttl              uint32
}

// part is what one reply says, but for its records.
type part struct {
	canonical string
	ad        bool
	nx        bool
	// open: the chain ends at a name about which the reply says nothing.
	open bool
	ttl  uint32
}

// records takes the data of the records that were asked for.
type records interface {
	reset()
	add(msg []byte, off, end int) error
}

// read reads a reply that answers q (answeredBy) and is whole. Chain holds the names
// so far; it is not changed when there is an error.
func (q *question) read(msg []byte, c *chain, into records) (part, error) {
	into.reset()
	bits := binary.BigEndian.Uint16(msg[2:])
	counts := [3]int{
		int(binary.BigEndian.Uint16(msg[6:])),
		int(binary.BigEndian.Uint16(msg[8:])),
		int(binary.BigEndian.Uint16(msg[10:])),
	}
	rcode := int(bits & maskRcode)
	if binary.BigEndian.Uint16(msg[4:]) == 0 {
		return part{}, rcodeError(rcode)
	}
	answers, authority, extended, err := q.sections(msg, counts)
	if rcode |= extended << 4; rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError {
		return part{}, rcodeError(rcode) // also with a tail that cannot be read
	}
	if err != nil {
		return part{}, err
	}
	if rcode == dns.RcodeSuccess && len(answers) == 0 && referral(bits, authority) {
		return part{}, fmt.Errorf("%w: it does not resolve for us (recursion not available)", ErrRefused)
	}
	r := reader{msg: msg, q: q, memo: -1}
	// DANE-002: AD means nothing where checking was disabled, though we never ask for that.
	p := part{ad: bits&bitAD != 0 && bits&bitCD == 0, nx: rcode == dns.RcodeNameError}
	next := *c
	found, err := r.follow(answers, &next, &p, into)
	if err != nil {
		return part{}, err
	}
	switch {
	case found && p.nx:
		return part{}, fmt.Errorf("%w: NXDOMAIN with records", ErrMalformed)
	case !found:
		if err := r.deny(authority, &p, next.links > c.links); err != nil {
			return part{}, err
		}
	}
	*c = next
	return p, nil
}

// referral says that the server only points elsewhere, RFC 2308 §2.2: no SOA,
// but NS records, from a server that does not recurse for us.
func referral(bits uint16, authority []rr) bool {
	ns := false
	for _, r := range authority {
		if r.rtype == dns.TypeSOA {
			return false
		}
		ns = ns || r.rtype == dns.TypeNS
	}
	return ns && bits&bitRA == 0
}

// sections finds the records of the answer and the authority section, and the
// upper bits of the rcode in the additional section (RFC 6891 §6.1.3).
func (q *question) sections(msg []byte, counts [3]int) (answers, authority []rr, extended int, err error) {
	off := q.end
	q.rrs = q.rrs[:0]
	for section, count := range counts {
		for range count {
			r, next, ok := readRR(msg, off)
			if !ok {
				return nil, nil, extended, fmt.Errorf("%w: it ends within a record", ErrMalformed)
			}
			off = next
			if section < 2 {
				q.rrs = append(q.rrs, r)
			} else if r.rtype == dns.TypeOPT {
				extended = int(r.ttl >> 24)
			}
		}
	}
	return q.rrs[:counts[0]], q.rrs[counts[0]:], extended, nil
}

func readRR(msg []byte, off int) (r rr, next int, ok bool) {
	r.owner = off
	off, ok = skipName(msg, off)
	if !ok || off+10 > len(msg) {
		return rr{}, 0, false
	}
	r.rtype = binary.BigEndian.Uint16(msg[off:])
	r.class = binary.BigEndian.Uint16(msg[off+2:])
	r.ttl = binary.BigEndian.Uint32(msg[off+4:])
	r.data = off + 10
	r.end = r.data + int(binary.BigEndian.Uint16(msg[off+8:]))
	if r.rtype != dns.TypeOPT && r.ttl > math.MaxInt32 {
		r.ttl = 0 // RFC 2181 §8
	}
	return r, r.end, r.end <= len(msg)
}
