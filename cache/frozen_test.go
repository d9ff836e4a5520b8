package cache_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/cachetest"
)

// TestFrozen: a file that cannot be written is still read.
func TestFrozen(t *testing.T) {
	below := cache.NewVolatile(nil)
	for _, key := range []string{"a", "b", "c"} {
		if err := below.Put(t.Context(), cache.Record{Kind: "k", Key: key, Value: []byte("old")}); err != nil {
			t.Fatal(err)
		}
	}
	reason := errors.New("read-only")
	s := cache.NewFrozen(reason, below)
	if err := s.Put(t.Context(), cache.Record{Kind: "k", Key: "b", Value: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "k", "c"); err != nil {
		t.Fatal(err)
	}
	var all []string
	for r, err := range s.All(t.Context(), "k") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Key+" "+string(r.Value))
	}
	slices.Sort(all)
	if want := []string{"a old", "b new"}; !slices.Equal(all, want) {
		t.Errorf("got %q, want %q", all, want)
	}
	if _, err := s.Get(t.Context(), "k", "c"); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	if r, err := s.Get(t.Context(), "k", "a"); err != nil || string(r.Value) != "old" {
		t.Errorf("kept: %q, %v", r.Value, err)
	}
	if err := s.Err(); !errors.Is(err, reason) {
		t.Errorf("Err: %v", err)
	}
	if _, err := below.Get(t.Context(), "k", "c"); err != nil {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestFrozenIsAStore(t *testing.T) {
	cachetest.Run(t, func(t *testing.T) cache.Store {
		s := cache.NewFrozen(nil, cache.NewVolatile(nil))
		t.Cleanup(func() { _ = s.Close() }) // closed already by some tests
		return s
	})
}
