package main

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/postseal/postseal/cache"
)

// frozenStore is for a file that can be read but not written: what it holds is
// answered, what is learnt stays in memory. Err says why.
type frozenStore struct {
	*cache.Volatile // in front
	below           cache.Store

	mu   sync.Mutex
	gone map[recordName]bool // deleted here, still in the file
}

type recordName struct {
	kind cache.Kind
	key  string
}

func newFrozenStore(reason error, below cache.Store) *frozenStore {
	return &frozenStore{Volatile: cache.NewVolatile(reason), below: below, gone: map[recordName]bool{}}
}

// Get implements cache.Store.
func (s *frozenStore) Get(ctx context.Context, kind cache.Kind, key string) (cache.Record, error) {
	r, err := s.Volatile.Get(ctx, kind, key)
	if !errors.Is(err, cache.ErrNotFound) || s.deleted(kind, key) {
		return r, err
	}
	return s.below.Get(ctx, kind, key)
}

func (s *frozenStore) deleted(kind cache.Kind, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[recordName{kind, key}]
}

// Delete implements cache.Store.
func (s *frozenStore) Delete(ctx context.Context, kind cache.Kind, keys ...string) error {
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

// All implements cache.Store.
func (s *frozenStore) All(ctx context.Context, kind cache.Kind) iter.Seq2[cache.Record, error] {
	return func(yield func(cache.Record, error) bool) {
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

// Close implements cache.Store.
func (s *frozenStore) Close() error {
	return errors.Join(s.Volatile.Close(), s.below.Close())
}
