package cache

import (
	"context"
	"errors"
	"iter"
	"sync"
)

// Frozen is a Store above another that can be read but not written: what that
// holds is answered, what is learnt stays in memory. Err says why.
type Frozen struct {
	*Volatile // in front
	below     Store

	mu   sync.Mutex
	gone map[recordName]bool // deleted here, still in the file
}

type recordName struct {
	kind Kind
	key  string
}

// NewFrozen makes a Frozen above a store that can only be read; reason is what
// Err returns.
func NewFrozen(reason error, below Store) *Frozen {
	return &Frozen{Volatile: NewVolatile(reason), below: below, gone: map[recordName]bool{}}
}

// Get implements Store.
func (s *Frozen) Get(ctx context.Context, kind Kind, key string) (Record, error) {
	r, err := s.Volatile.Get(ctx, kind, key)
	if !errors.Is(err, ErrNotFound) || s.deleted(kind, key) {
		return r, err
	}
	return s.below.Get(ctx, kind, key)
}

func (s *Frozen) deleted(kind Kind, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[recordName{kind, key}]
}

// Delete implements Store.
func (s *Frozen) Delete(ctx context.Context, kind Kind, keys ...string) error {
	if err := s.Volatile.Delete(ctx, kind, keys...); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		s.gone[recordName{kind, key}] = true
	}
	return nil
}

// All implements Store.
func (s *Frozen) All(ctx context.Context, kind Kind) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		newer := map[string]bool{}
		for r, err := range s.Volatile.All(ctx, kind) {
			if !yield(r, err) || err != nil {
				return
			}
			newer[r.Key] = true
		}
		for r, err := range s.below.All(ctx, kind) {
			if err == nil && (newer[r.Key] || s.deleted(kind, r.Key)) {
				continue
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Close implements Store.
func (s *Frozen) Close() error {
	return errors.Join(s.Volatile.Close(), s.below.Close())
}
