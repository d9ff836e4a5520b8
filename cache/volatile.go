package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"
)

// Volatile is a Store that forgets at the end of the process: for tests, and for
// when no disk can be had. Records that have expired are dropped in passing.
type Volatile struct {
	reason error

	mu      sync.RWMutex
	closed  bool
	records map[recordID]Record
	sweepAt int // number of records at which expired ones are looked for
}

type recordID struct {
	kind Kind
	key  string
}

const firstSweep = 1024

// NewVolatile makes an empty Volatile. reason says why nothing is kept over a
// restart, and is what Err returns as long as the Volatile is open; nil in tests.
func NewVolatile(reason error) *Volatile {
	return &Volatile{reason: reason, records: map[recordID]Record{}, sweepAt: firstSweep}
}

// Get implements Store.
func (v *Volatile) Get(ctx context.Context, kind Kind, key string) (Record, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.ready(ctx); err != nil {
		return Record{}, err
	}
	r, ok := v.records[recordID{kind, key}]
	if !ok || r.Expired(time.Now()) {
		return Record{}, fmt.Errorf("%w: %s %q", ErrNotFound, kind, key)
	}
	r.Value = bytes.Clone(r.Value)
	return r, nil
}

// Put implements Store.
func (v *Volatile) Put(ctx context.Context, records ...Record) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.ready(ctx); err != nil {
		return err
	}
	for _, r := range records {
		if err := r.Check(); err != nil {
			return err
		}
	}
	for _, r := range records {
		r.Value = bytes.Clone(r.Value)
		v.records[recordID{r.Kind, r.Key}] = r
	}
	v.sweep()
	return nil
}

// Delete implements Store.
func (v *Volatile) Delete(ctx context.Context, kind Kind, keys ...string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.ready(ctx); err != nil {
		return err
	}
	for _, key := range keys {
		delete(v.records, recordID{kind, key})
	}
	return nil
}

// All implements Store.
func (v *Volatile) All(ctx context.Context, kind Kind) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		keys, err := v.keys(ctx, kind)
		if err != nil {
			yield(Record{}, err)
			return
		}
		for _, key := range keys {
			r, err := v.Get(ctx, kind, key)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func (v *Volatile) keys(ctx context.Context, kind Kind) ([]string, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.ready(ctx); err != nil {
		return nil, err
	}
	var keys []string
	for id := range v.records {
		if id.kind == kind {
			keys = append(keys, id.key)
		}
	}
	return slices.Clip(keys), nil
}

// Err implements Store: the reason given to NewVolatile.
func (v *Volatile) Err() error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.closed {
		return ErrClosed
	}
	return v.reason
}

// Close implements Store. The records are forgotten.
func (v *Volatile) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return ErrClosed
	}
	v.closed, v.records = true, nil
	return nil
}

func (v *Volatile) ready(ctx context.Context) error {
	if v.closed {
		return ErrClosed
	}
	return ctx.Err()
}

// sweep drops expired records whenever twice as many are held as after the last
// time, so that it costs each Put a constant.
func (v *Volatile) sweep() {
	if len(v.records) < v.sweepAt {
		return
	}
	now := time.Now()
	for id, r := range v.records {
		if r.Expired(now) {
			delete(v.records, id)
		}
	}
	v.sweepAt = max(firstSweep, 2*len(v.records))
}
