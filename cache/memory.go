package cache

import (
	"hash/maphash"
	"sync"
)

// Bounds of a Memory.
const (
	// DefaultLimit is the number of names of a Memory whose Options say nothing.
	DefaultLimit = 1_000_000

	maxShards = 64   // power of two
	minShare  = 1024 // names a shard has room for; fewer names get fewer shards, so that the limit stays sharp
	samples   = 5    // candidates for one eviction: as near to true LRU as Redis gets with its default
)

// Options of a Memory of *V.
type Options[V any] struct {
	// Limit is the number of names kept in all, protected ones not counted.
	// 0 or less: DefaultLimit.
	Limit int
	// Protected tells that a value must not be evicted now. It is asked when
	// room is needed, so it may change over a value's life. nil: none is.
	Protected func(*V) bool
	// Used tells when a value was last used, in any unit that grows with time.
	// The least is evicted. nil: an arbitrary value is evicted.
	Used func(*V) int64
}

// Memory is a bounded map from names to values, made for very many look-ups and
// for floods of new names. It promises:
//
//   - Get does not allocate, and waits for a writer of the same shard at most,
//     which never does more than look at a handful of entries.
//   - At most Limit values that are not protected are held. Over it, each new
//     name evicts an old one: of a few taken at random, the one longest not used.
//   - A protected value is never evicted, and a new one never refused.
//
// Names are spread over shards by a secret hash, and each shard has its share of
// the limit: a Memory may start to evict when it holds a few percent less.
//
// Protected and Used run under the lock of a shard: they must be quick and must
// not call the Memory. All methods may be called at once from many goroutines.
type Memory[V any] struct {
	seed      maphash.Seed
	share     int // evictable names per shard
	protected func(*V) bool
	used      func(*V) int64
	shards    []shard[V] // a power of two of them
}

// shard is a part of a Memory. A name is in one of its two tables. Values that were
// found protected when room was needed are set aside, so that looking for room
// does not find them again and again.
type shard[V any] struct {
	mu    sync.RWMutex
	names table[V] // evictable, as far as known
	aside table[V] // protected when last asked

	_ [192 - 136]byte // keeps the locks of two shards out of one cache line
}

// NewMemory makes an empty Memory.
func NewMemory[V any](o Options[V]) *Memory[V] {
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	if o.Protected == nil {
		o.Protected = func(*V) bool { return false }
	}
	if o.Used == nil {
		o.Used = func(*V) int64 { return 0 }
	}
	n := 1
	for n < maxShards && o.Limit/(2*n) >= minShare {
		n *= 2
	}
	return &Memory[V]{
		seed: maphash.MakeSeed(), share: o.Limit / n,
		protected: o.Protected, used: o.Used, shards: make([]shard[V], n),
	}
}

// Get returns the value of key, nil when there is none. It does not allocate and
// does not keep key.
func (m *Memory[V]) Get(key []byte) *V {
	hash := maphash.Bytes(m.seed, key)
	s := m.shard(hash)
	s.mu.RLock()
	v := s.names.get(tag(hash), key)
	if v == nil {
		v = s.aside.get(tag(hash), key)
	}
	s.mu.RUnlock()
	return v
}

// GetString is Get for a key that is a string.
func (m *Memory[V]) GetString(key string) *V {
	hash := maphash.String(m.seed, key)
	s := m.shard(hash)
	s.mu.RLock()
	v := s.find(hash, key)
	s.mu.RUnlock()
	return v
}

// LoadOrStore returns the value of key and true, or stores what fresh makes and
// returns that and false. All who ask for one key at once get the same value.
//
// fresh runs without a lock; of several that run at once for one key, one result
// is kept. It must not return nil, and its value should count as used just now,
// or it is the first to be evicted. The Memory keeps key: a value that needs its
// name should hold the same string, so that the bytes are stored once.
func (m *Memory[V]) LoadOrStore(key string, fresh func() *V) (v *V, loaded bool) {
	hash := maphash.String(m.seed, key)
	s := m.shard(hash)
	s.mu.RLock()
	v = s.find(hash, key)
	s.mu.RUnlock()
	if v != nil {
		return v, true
	}

	made := fresh()
	s.mu.Lock()
	defer s.mu.Unlock()
	if v = s.find(hash, key); v != nil {
		return v, true
	}
	m.makeRoom(s)
	s.names.insert(tag(hash), slot[V]{key, made}, m.share)
	return made, false
}

// Delete removes key and tells whether it was there.
func (m *Memory[V]) Delete(key string) bool {
	hash := maphash.String(m.seed, key)
	s := m.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range []*table[V]{&s.names, &s.aside} {
		if i := t.find(tag(hash), key); i >= 0 {
			t.remove(i)
			return true
		}
	}
	return false
}

// Range calls f for every value until it returns false, in no order. No lock is
// held meanwhile: f may call the Memory and may take its time. A value that is
// there all the while is seen once; one that comes or goes may be seen or not.
func (m *Memory[V]) Range(f func(key string, v *V) bool) {
	var copied []slot[V] // of one shard at a time: a copy of everything would double the memory
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		copied = append(append(copied[:0], s.names.slots...), s.aside.slots...)
		s.mu.RUnlock()
		for _, e := range copied {
			if e.v != nil && !f(e.key, e.v) {
				return
			}
		}
		clear(copied) // or evicted values stay alive as long as the iteration
	}
}

// Len returns how many names are held.
func (m *Memory[V]) Len() int {
	names, _ := m.Counts()
	return names
}

// Counts returns how many names are held, and how many of these were found
// protected when room was needed: 0 as long as the limit was never reached. It
// asks no value, so it is cheap enough for every scrape of the metrics.
func (m *Memory[V]) Counts() (names, protected int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		names += s.names.n + s.aside.n
		protected += s.aside.n
		s.mu.RUnlock()
	}
	return names, protected
}

func (m *Memory[V]) shard(hash uint64) *shard[V] {
	return &m.shards[hash>>32&uint64(len(m.shards)-1)]
}

func (s *shard[V]) find(hash uint64, key string) *V {
	if i := s.names.find(tag(hash), key); i >= 0 {
		return s.names.slots[i].v
	}
	if i := s.aside.find(tag(hash), key); i >= 0 {
		return s.aside.slots[i].v
	}
	return nil
}

// makeRoom lets one more name in, evicting when the shard has its share. Each
// round makes room, be it by setting values aside, and rounds are no more than
// names over the share: one, and what takeBack added.
func (m *Memory[V]) makeRoom(s *shard[V]) {
	if s.names.n < m.share {
		return
	}
	m.takeBack(s)
	for s.names.n >= m.share {
		m.evict(s)
	}
}

// evict drops, of a few values taken at random, the one longest not used. Values
// found protected are set aside, and when these made room, that will do.
func (m *Memory[V]) evict(s *shard[V]) {
	victim, oldest := -1, int64(0)
	for range samples {
		i := s.names.random()
		v := s.names.slots[i].v
		if m.protected(v) {
			move(&s.names, &s.aside, i, 0)
			return // slots have moved: the other samples count no more
		}
		if used := m.used(v); victim < 0 || used < oldest {
			victim, oldest = i, used
		}
	}
	s.names.remove(victim)
}

// takeBack looks whether values that were set aside have lost their protection:
// at more of them than a name can add, so that they cannot outgrow the look.
func (m *Memory[V]) takeBack(s *shard[V]) {
	for range 2 {
		if s.aside.n == 0 {
			return
		}
		if i := s.aside.random(); !m.protected(s.aside.slots[i].v) {
			move(&s.aside, &s.names, i, m.share)
		}
	}
}

func move[V any](from, to *table[V], i, atMost int) {
	tag, s := from.hashes[i], from.slots[i]
	from.remove(i)
	to.insert(tag, s, atMost)
}
