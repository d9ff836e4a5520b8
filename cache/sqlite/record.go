package sqlite

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/postseal/postseal/cache"
)

// row is a record as the table has it.
type row struct {
	id        int64 // of All and of salvage only; not under the checksum
	kind, key []byte
	expires   int64 // seconds since 1970, 0: never
	sum       int64 // crc32c over the rest
	value     []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newRow turns a record into a row. BLOB columns want empty slices, not nil.
func newRow(r cache.Record) row {
	w := row{kind: append([]byte{}, r.Kind...), key: append([]byte{}, r.Key...), value: append([]byte{}, r.Value...)}
	if !r.Expires.IsZero() {
		// 0 stands for never: what expired before 1970 is as gone as what did in its first second.
		w.expires = max(r.Expires.Unix(), 1)
	}
	w.sum = w.checksum()
	return w
}

// checksum covers all columns and the borders between them.
func (w row) checksum() int64 {
	var head [24]byte
	binary.BigEndian.PutUint64(head[0:], uint64(len(w.kind)))
	binary.BigEndian.PutUint64(head[8:], uint64(len(w.key)))
	binary.BigEndian.PutUint64(head[16:], uint64(w.expires))
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, w.kind)
	sum = crc32.Update(sum, castagnoli, w.key)
	return int64(crc32.Update(sum, castagnoli, w.value))
}

func (w row) intact() bool { return w.sum == w.checksum() }

func (w row) expired(now time.Time) bool { return w.expires != 0 && now.Unix() >= w.expires }

// record turns a row back. The value is handed over, not copied.
func (w row) record() cache.Record {
	r := cache.Record{Kind: cache.Kind(w.kind), Key: string(w.key), Value: w.value}
	if w.expires != 0 {
		r.Expires = time.Unix(w.expires, 0)
	}
	return r
}

// scan reads the columns id, key, expires, sum and value. In a damaged page they
// can have other types; such a row does not match its checksum.
func (w *row) scan(scan func(...any) error) error {
	var key, expires, sum, value any
	if err := scan(&w.id, &key, &expires, &sum, &value); err != nil {
		return err
	}
	var ok [4]bool
	w.key, ok[0] = key.([]byte)
	w.expires, ok[1] = expires.(int64)
	w.sum, ok[2] = sum.(int64)
	w.value, ok[3] = value.([]byte)
	if ok != [4]bool{true, true, true, true} {
		w.sum = ^w.checksum()
	}
	return nil
}
