package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
)

// stubbornStore refuses writes while it is told to.
type stubbornStore struct {
	cache.Store
	refuses atomic.Bool
}

func (s *stubbornStore) Put(ctx context.Context, records ...cache.Record) error {
	if s.refuses.Load() {
		return errors.New("disk full")
	}
	return s.Store.Put(ctx, records...)
}

// TestSignedDomainsAreKept: whose mail is signed is on disk within a second, after
// a write that failed as soon as one succeeds, and known again after a restart.
func TestSignedDomainsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &stubbornStore{Store: cache.NewVolatile(nil)}
		run := func() (*signedDomains, func()) {
			s := newSignedDomains(store, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { s.run(ctx); close(done) }()
			synctest.Wait()
			return s, func() { cancel(); <-done }
		}
		onDisk := func(domain string) bool {
			_, err := store.Get(t.Context(), kindSigned, domain)
			return err == nil
		}

		s, stop := run()
		if s.NoteSigned("one.test"); !s.Signed("one.test") || s.Signed("two.test") {
			t.Error("not known at once, or known unseen")
		}
		if time.Sleep(time.Second); !onDisk("one.test") {
			t.Error("not on disk after a second")
		}
		store.refuses.Store(true)
		s.NoteSigned("two.test")
		if time.Sleep(time.Minute); onDisk("two.test") || !s.Signed("two.test") {
			t.Error("a write that fails must not make it forget")
		}
		store.refuses.Store(false)
		if time.Sleep(signedRetry); !onDisk("two.test") {
			t.Error("not written when writing was possible again")
		}
		s.NoteSigned("three.test")
		stop() // at once: what waits is written at the end

		s, stop = run()
		defer stop()
		for _, domain := range []string{"one.test", "two.test", "three.test"} {
			if !s.Signed(domain) {
				t.Errorf("%s is forgotten after a restart", domain)
			}
		}
	})
}
