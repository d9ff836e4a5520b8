package milter

import (
	"math"
	"sync"
)

// maxBreakerDomains bounds the From domains that are watched. When there are more,
// the one goes that has had no message for longest, but none with an open circuit.
const maxBreakerDomains = 4096

// breaker returns a finding to monitoring, for one From domain, when too large a
// share of that domain's messages would be held or refused because of it: then
// the configuration, the DNS or this program is at fault rather than the mail. It
// judges full windows only. What it has opened stays open until Settings change.
//
// Some findings never trip it (see neverTrips): a signer that is down must keep
// its mail waiting, and one abused login must not disarm the rest.
type breaker struct {
	window int
	share  float64

	mu      sync.Mutex
	domains map[string]*circuit
	clock   uint64 // messages so far
}

// circuit is what is known of one From domain.
type circuit struct {
	ring   []uint64 // of the last messages: which findings would have acted, as bits
	next   int      // where the next message goes
	full   bool
	counts [64]int // messages of the ring by finding
	open   uint64  // findings that no longer act
	used   uint64  // the clock at the last message
}

// tripped is a finding that was returned to monitoring.
type tripped struct {
	finding  string
	refused  int
	messages int
}

// judge takes the findings that would act on a message of a From domain, as bits
// of findingBit. It returns those that may, and what has just been tripped.
func (b *breaker) judge(domain string, acting uint64) (may uint64, now []tripped) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.circuit(domain)
	if c == nil {
		return acting, nil
	}
	c.push(acting &^ neverTrips)
	if c.full {
		for i, name := range findingNames {
			bit := uint64(1) << i
			if c.open&bit == 0 && float64(c.counts[i]) > b.share*float64(len(c.ring)) {
				c.open |= bit
				now = append(now, tripped{finding: name, refused: c.counts[i], messages: len(c.ring)})
			}
		}
	}
	return acting &^ c.open, now
}

// circuit finds or makes what is kept of a domain; nil: nothing is.
func (b *breaker) circuit(domain string) *circuit {
	if b.window <= 0 {
		return nil
	}
	b.clock++
	c := b.domains[domain]
	if c == nil {
		if b.domains == nil {
			b.domains = map[string]*circuit{}
		}
		if len(b.domains) >= maxBreakerDomains && !b.evict() {
			return nil
		}
		c = &circuit{ring: make([]uint64, b.window)}
		b.domains[domain] = c
	}
	c.used = b.clock
	return c
}

// evict makes room, if not every circuit is open.
func (b *breaker) evict() bool {
	oldest, name := uint64(math.MaxUint64), ""
	for domain, c := range b.domains {
		if c.open == 0 && c.used < oldest {
			oldest, name = c.used, domain
		}
	}
	delete(b.domains, name)
	return oldest != math.MaxUint64
}

func (c *circuit) push(bits uint64) {
	old := c.ring[c.next]
	c.ring[c.next] = bits
	if c.next++; c.next == len(c.ring) {
		c.next, c.full = 0, true
	}
	if old == bits {
		return
	}
	for i := range c.counts {
		c.counts[i] += int(bits>>i&1) - int(old>>i&1)
	}
}

// openCircuits counts the pairs of finding and domain that are back to monitoring.
func (b *breaker) openCircuits() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, c := range b.domains {
		for bits := c.open; bits != 0; bits &= bits - 1 {
			n++
		}
	}
	return n
}
