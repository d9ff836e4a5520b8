package policy

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
)

// badStore is a store that fails in the ways that a test sets.
type badStore struct {
	cache.Store
	hang    atomic.Bool   // Put and Delete wait for their context
	full    atomic.Bool   // Put fails
	cut     atomic.Bool   // All ends with an error before the first record
	slow    atomic.Int64  // Put of a batch takes so long, in nanoseconds
	delayed atomic.Int64  // All waits so long after it looked, in nanoseconds
	putting chan struct{} // gets a value when a slow Put begins
}

func (s *badStore) Put(ctx context.Context, r ...cache.Record) error {
	if s.hang.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.full.Load() {
		return errors.New("disk full")
	}
	if d := s.slow.Load(); d > 0 && slices.ContainsFunc(r, func(r cache.Record) bool { return r.Kind == kindClass }) {
		s.putting <- struct{}{}
		time.Sleep(time.Duration(d))
	}
	return s.Store.Put(ctx, r...)
}

func (s *badStore) All(ctx context.Context, kind cache.Kind) iter.Seq2[cache.Record, error] {
	return func(yield func(cache.Record, error) bool) {
		if s.cut.Load() {
			yield(cache.Record{}, errors.New("input/output error"))
			return
		}
		var seen []cache.Record
		for r := range s.Store.All(ctx, kind) {
			seen = append(seen, r)
		}
		time.Sleep(time.Duration(s.delayed.Load()))
		for _, r := range seen {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func onBadStore(w *world) *badStore {
	s := &badStore{Store: w.store, putting: make(chan struct{}, 100)}
	w.store = s
	return s
}

// TestHangingDiskStopsNothingElse: the resolver's standing is noticed meanwhile,
// and policies go into force.
func TestHangingDiskStopsNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 "+strings.Repeat("ab", 32)), nil)
		w.stop()
		s := onBadStore(w)
		w.boot(nil)
		w.hosts.set("ex.test", enforceBody)
		s.hang.Store(true)
		w.want("ex.test", "OK dane") // the policy is not on disk yet
		time.Sleep(2 * time.Second)
		w.want("ex.test", "OK dane-only")
		time.Sleep(3 * time.Second) // a batch is being written
		w.dns.suspend("127.0.0.1 does not validate")
		time.Sleep(2 * time.Second)
		w.want("ex.test", secureReply)
		s.hang.Store(false)
		time.Sleep(20 * time.Second)
		w.stop()
		w.boot(nil)
		if n := len(w.engine.Held()); n != 1 {
			t.Errorf("%d policies on disk in the end", n)
		}
		w.stop()
	})
}

// TestFullDisk: answers from memory, and everything is written once there is room.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.stop()
		s := onBadStore(w)
		s.full.Store(true)
		w.boot(nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		synctest.Wait()
		s.full.Store(false)
		time.Sleep(5 * time.Second)
		w.stop()
		w.boot(func(c *Config) { c.Postfix.NoRoots = true })
		w.want("ex.test", secureReply) // first-run safety ended, although that could not be written at once
		w.stop()
	})
}

// TestSTS095_UnreadableStore: a policy that the loading did not reach is read when it is asked for.
func TestSTS095_UnreadableStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.stop()
		onBadStore(w).cut.Store(true)
		w.hosts.set("ex.test", "")
		w.dns.Set("servfail _mta-sts.ex.test TXT")
		w.boot(nil)
		defer w.stop()
		time.Sleep(time.Minute)
		w.want("ex.test", secureReply)
	})
}

// TestFirstRunSafetyEndsForGood: once secure was answered, missing roots no longer relax.
func TestFirstRunSafetyEndsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		noRoots := func(c *Config) { c.Postfix.NoRoots = true }
		w := start(t, signedZone, noRoots)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "NOTFOUND ")
		w.engine.SetPostfix(Postfix{})
		w.want("ex.test", secureReply)
		w.engine.SetPostfix(Postfix{NoRoots: true})
		w.want("ex.test", secureReply)
		w.stop()
		w.boot(noRoots)
		w.want("ex.test", secureReply)
		w.stop()
	})
}

// TestSTS095_HintIsStoredWithTheAnswer: a kill -9 right after the answer does not
// lose what row D4.A needs, nor the end of first-run safety.
func TestSTS095_HintIsStoredWithTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 "+strings.Repeat("ab", 32)), nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		if _, err := w.store.Get(context.Background(), kindClass, "ex.test"); err != nil {
			t.Errorf("hint: %v", err)
		}
		if _, err := w.store.Get(context.Background(), kindState, stateDaneOnly); err != nil {
			t.Errorf("state: %v", err)
		}
	})
}

// queueStore writes one call after the other, as cache/sqlite does; each takes a while.
type queueStore struct {
	cache.Store
	turn chan struct{}
	took time.Duration
}

func (s *queueStore) Put(ctx context.Context, r ...cache.Record) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	time.Sleep(s.took)
	return s.Store.Put(ctx, r...)
}

// TestSTS095_BatchBesideANewPolicy: a batch of book-keeping that looks at memory
// while a new policy is on its way to the disk, at whatever moment, does not put
// the old one over it.
func TestSTS095_BatchBesideANewPolicy(t *testing.T) {
	for _, flushAt := range []time.Duration{0, 50 * time.Millisecond, 99 * time.Millisecond, 101 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, signedZone, nil)
			w.stop()
			w.store = &queueStore{Store: w.store, turn: make(chan struct{}, 1), took: 100 * time.Millisecond}
			w.boot(nil)
			defer func() { w.stop() }()
			w.hosts.set("ex.test", enforceBody)
			w.want("ex.test", secureReply)
			w.hosts.set("ex.test", otherBody)
			w.dns.Set(`ad _mta-sts.ex.test 300 TXT "v=STSv1; id=2"`)
			time.Sleep(301 * time.Second)
			w.hosts.delay = 10 * time.Millisecond
			d := w.engine.domains.GetString("ex.test")
			go func() {
				time.Sleep(flushAt)
				w.engine.writer.dirty(d)
				w.engine.writer.flush()
			}()
			w.want("ex.test", otherReply)
			for range 20 { // a kill -9 can come at any moment after the answer
				held, err := ReadHeld(context.Background(), w.store)
				if err != nil || len(held) != 1 || held[0].ID != "2" {
					t.Fatalf("flushed after %v: on disk %+v, %v", flushAt, held, err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}

// TestSTS095_BatchOfAnEvictedDomain: what waits to be written about a domain that
// was evicted does not replace the policy of the one that has its name now.
func TestSTS095_BatchOfAnEvictedDomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "enforce", "none"))
		w.want("ex.test", "NOTFOUND ")
		old := w.engine.domains.GetString("ex.test")
		w.engine.domains.Delete("ex.test")
		w.engine.due(old, time.Now()) // the scan lets it go: it demands nothing
		w.hosts.set("ex.test", enforceBody)
		w.dns.Set(`ad _mta-sts.ex.test 300 TXT "v=STSv1; id=2"`)
		w.want("ex.test", secureReply)
		w.engine.writer.dirty(old)
		w.engine.writer.flush()
		if held, err := ReadHeld(context.Background(), w.store); err != nil || len(held) != 1 || held[0].Mode != "enforce" {
			t.Errorf("on disk: %+v, %v", held, err)
		}
	})
}

// TestSTS095_HintWhileLoading: once the policies are read, but not the hints yet, a
// question still reads its own through.
func TestSTS095_HintWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, tlsaZone, nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		w.stop()
		onBadStore(w).delayed.Store(int64(3 * time.Second))
		w.dns.Set("servfail ex.test MX")
		w.boot(nil)
		defer func() { w.stop() }()
		time.Sleep(4 * time.Second)
		w.want("ex.test", "OK dane-only") // row D4.A
	})
}
