package resolver

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/miekg/dns"
)

// chain is the CNAME chain so far, over all the replies of one look-up.
type chain struct {
	names [maxChain + 1]string
	links int
}

func (c *chain) extend(target string) error {
	for _, name := range c.names[:c.links+1] {
		if name == target {
			return fmt.Errorf("%w: it comes back to %s", ErrChain, target)
		}
	}
	if c.links == maxChain {
		return fmt.Errorf("%w: more than %d links", ErrChain, maxChain)
	}
	c.links++
	c.names[c.links] = target
	return nil
}

// reader reads names of one message. Most owners are pointers to few names, so
// the last one is remembered.
type reader struct {
	msg  []byte
	q    *question
	memo int
	last string
}

// name is readName for what is often a pointer to the question.
func (r *reader) name(off int) (string, error) {
	if off+2 <= len(r.msg) && r.msg[off] >= 0xc0 {
		pointer := int(binary.BigEndian.Uint16(r.msg[off:]) & 0x3fff)
		if pointer == headerSize {
			return r.q.name, nil
		}
		if pointer == r.memo {
			return r.last, nil
		}
		name, _, err := readName(r.msg, off)
		if err == nil {
			r.memo, r.last = pointer, name
		}
		return name, err
	}
	name, _, err := readName(r.msg, off)
	return name, err
}

// follow walks from the question's name along CNAMEs to the records asked for,
// in whatever order the server put them (RFC 1034 §4.3.2).
func (r *reader) follow(answers []rr, c *chain, p *part, into records) (found bool, err error) {
	p.canonical, p.ttl = r.q.name, math.MaxUint32
	for {
		var target string
		found, target, err = r.at(p.canonical, answers, p, into)
		if err != nil || found || target == "" {
			return found, err
		}
		if err := c.extend(target); err != nil {
			return false, err
		}
		p.canonical = target
	}
}

// at hands the records at one name on; where there are none it gives the target
// of the CNAME there. Of several CNAMEs, which no zone may have, the first counts.
func (r *reader) at(name string, answers []rr, p *part, into records) (found bool, target string, err error) {
	ttl, linkTTL := p.ttl, p.ttl
	for _, rr := range answers {
		link := rr.rtype == dns.TypeCNAME && r.q.qtype != dns.TypeCNAME
		if rr.class != dns.ClassINET || !link && rr.rtype != r.q.qtype || link && target != "" {
			continue
		}
		owner, err := r.name(rr.owner)
		if err != nil {
			return false, "", err
		}
		if owner != name {
			continue
		}
		if !link {
			if err := into.add(r.msg, rr.data, rr.end); err != nil {
				return false, "", err
			}
			found, ttl = true, min(ttl, rr.ttl)
			continue
		}
		if target, err = nameData(r.msg, rr.data, rr.end); err != nil {
			return false, "", err
		}
		linkTTL = min(linkTTL, rr.ttl)
	}
	if p.ttl = linkTTL; found {
		p.ttl, target = ttl, ""
	}
	return found, target, nil
}

// deny completes a reply without records: how long that may be believed, and
// whether it says anything at all about the end of the chain.
func (r *reader) deny(authority []rr, p *part, moved bool) error {
	for _, rr := range authority {
		if rr.rtype != dns.TypeSOA || rr.class != dns.ClassINET {
			continue
		}
		zone, err := r.name(rr.owner)
		if err != nil {
			return err
		}
		if !within(p.canonical, zone) {
			continue
		}
		minimum, err := soaMinimum(r.msg, rr.data, rr.end)
		if err != nil {
			return err
		}
		// RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM.
		p.ttl = min(p.ttl, rr.ttl, minimum)
		return nil
	}
	// RFC 2308 §2.2 type 3 has no SOA: such a denial may not be kept. But after
	// a CNAME it may also be that the server did not follow.
	if p.open = moved && !p.nx; !p.open {
		p.ttl = 0
	}
	return nil
}
