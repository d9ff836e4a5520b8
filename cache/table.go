package cache

import "math/rand/v2"

// table is a hash table from names to *V: open addressing, linear probing, no
// tombstones. It stands in for a Go map where that does badly: a value can be
// taken at random, evenly; an eviction with each insertion leaves its size alone;
// and it takes 28 bytes per slot with slots nearly full.
//
// Hashes are given by the owner and kept, so that neither growth nor deletion
// looks at a key: resizing 20,000 names takes well below a millisecond.
type table[V any] struct {
	hashes []uint32 // 0: the slot is empty
	slots  []slot[V]
	n      int
}

type slot[V any] struct {
	key string
	v   *V
}

// Load of a table, in slots per name: after growth, and when it is full.
const (
	minSlots = 8
	roomyNum = 3 // 3/2 slots per name
	roomyDen = 2
	fullNum  = 5 // 5/4 slots per name: a miss looks at 13 hashes, on one or two cache lines
	fullDen  = 4
	sparse   = 4 // slots per name at which a table shrinks
	spare    = 4 // names over the owner's limit that there is room for
)

// tag is the part of a hash that a table keeps. The shard is chosen by the other half.
func tag(hash uint64) uint32 {
	return max(uint32(hash), 1)
}

// home is the slot where the search for a name begins.
func (t *table[V]) home(tag uint32) int {
	return int(uint64(tag) * uint64(len(t.hashes)) >> 32)
}

func (t *table[V]) next(i int) int {
	if i++; i == len(t.hashes) {
		return 0
	}
	return i
}

// get returns the value of key. The conversion in a comparison does not allocate.
func (t *table[V]) get(tag uint32, key []byte) *V {
	if t.n == 0 {
		return nil
	}
	for i := t.home(tag); t.hashes[i] != 0; i = t.next(i) {
		if t.hashes[i] == tag && t.slots[i].key == string(key) {
			return t.slots[i].v
		}
	}
	return nil
}

// find returns the slot of key, -1 when it is not there.
func (t *table[V]) find(tag uint32, key string) int {
	if t.n == 0 {
		return -1
	}
	for i := t.home(tag); t.hashes[i] != 0; i = t.next(i) {
		if t.hashes[i] == tag && t.slots[i].key == key {
			return i
		}
	}
	return -1
}

// insert adds a key that is not there. atMost is the number of names that the
// owner means to keep; a table does not grow beyond them in advance. 0: unknown.
func (t *table[V]) insert(tag uint32, s slot[V], atMost int) {
	if t.n+1 > len(t.hashes)*fullDen/fullNum {
		size := (t.n + 1) * roomyNum / roomyDen
		if atMost+spare > t.n {
			size = min(size, (atMost+spare)*fullNum/fullDen+1)
		}
		t.resize(max(size, minSlots))
	}
	t.place(tag, s)
	t.n++
}

func (t *table[V]) place(tag uint32, s slot[V]) {
	i := t.home(tag)
	for t.hashes[i] != 0 {
		i = t.next(i)
	}
	t.hashes[i], t.slots[i] = tag, s
}

// remove empties slot i, and moves those names up that were put behind it only
// because it was taken.
func (t *table[V]) remove(i int) {
	size := len(t.hashes)
	for j := t.next(i); t.hashes[j] != 0; j = t.next(j) {
		if away := (j - t.home(t.hashes[j]) + size) % size; away >= (j-i+size)%size {
			t.hashes[i], t.slots[i] = t.hashes[j], t.slots[j]
			i = j
		}
	}
	t.hashes[i], t.slots[i] = 0, slot[V]{}
	t.n--
	if size > minSlots && t.n*sparse < size {
		t.resize(max(t.n*roomyNum/roomyDen, minSlots))
	}
}

func (t *table[V]) resize(size int) {
	old := *t
	t.hashes, t.slots = make([]uint32, size), make([]slot[V], size)
	for i, tag := range old.hashes {
		if tag != 0 {
			t.place(tag, old.slots[i])
		}
	}
}

// random returns a slot that is in use. The table must not be empty. It is never
// sparse, so the walk from an empty slot to the next name is short.
func (t *table[V]) random() int {
	i := rand.IntN(len(t.hashes))
	for t.hashes[i] == 0 {
		i = t.next(i)
	}
	return i
}
