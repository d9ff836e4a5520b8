package delegation

import (
	"bytes"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// memory remembers the last answers, each for RepeatLifetime. A request is its own key:
// whatever the Handler could see is the same when all its bytes are.
type memory struct {
	once sync.Once
	seed maphash.Seed
	ends atomic.Int64 // Unix nanoseconds: nothing is remembered for longer
	sets [memorySets]memorySet
}

// memorySet holds what has the same low bits of the hash.
type memorySet struct {
	mu    sync.Mutex
	slots [memorySlots]remembered
}

type remembered struct {
	hash    uint64
	until   time.Time
	request []byte
	reply   []byte
}

// hash is the same for the same bytes, differs mostly for others, and is not to be
// foreseen by who chooses them. To hash them all would take half as long as to read
// the request; recipients and messages differ in these. Zero: not to be remembered.
// Before RCPT there is no instance, and another client's request may look the same.
func (m *memory) hash(r *Request) uint64 {
	instance := r.Instance()
	if len(instance) == 0 || len(r.raw) > maxRemembered {
		return 0
	}
	m.once.Do(func() { m.seed = maphash.MakeSeed() })
	return maphash.Bytes(m.seed, instance) + 3*maphash.Bytes(m.seed, r.Recipient()) + uint64(len(r.raw))
}

// appendReply appends the answer that the request got, if it is remembered.
func (m *memory) appendReply(dst []byte, r *Request, now time.Time) ([]byte, bool) {
	if now.UnixNano() >= m.ends.Load() {
		return dst, false
	}
	hash := m.hash(r)
	if hash == 0 {
		return dst, false
	}
	set := &m.sets[hash%memorySets]
	set.mu.Lock()
	defer set.mu.Unlock()
	for i := range set.slots {
		s := &set.slots[i]
		if s.hash == hash && bytes.Equal(s.request, r.raw) && now.Before(s.until) {
			return append(dst, s.reply...), true
		}
	}
	return dst, false
}

// keep remembers an answer for RepeatLifetime from now, in the place of an earlier one
// to the same request, or else of the one that ends first.
func (m *memory) keep(r *Request, reply []byte, now time.Time) {
	hash, until := m.hash(r), now.Add(RepeatLifetime)
	if hash == 0 {
		return
	}
	// Another that ends at nearly the same time may win; what is asked again for it
	// would have been forgotten in a moment.
	m.ends.Store(until.UnixNano())
	set := &m.sets[hash%memorySets]
	set.mu.Lock()
	defer set.mu.Unlock()
	to := &set.slots[0]
	for i := range set.slots {
		s := &set.slots[i]
		if s.hash == hash && bytes.Equal(s.request, r.raw) {
			to = s
			break
		}
		if s.until.Before(to.until) {
			to = s
		}
	}
	to.hash, to.until = hash, until
	to.request = append(to.request[:0], r.raw...)
	to.reply = append(to.reply[:0], reply...)
}
