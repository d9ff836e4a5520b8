package policy

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
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

// count tells how often a question was asked since the last Asked.
func (w *world) count(question string) int {
	n := 0
	for _, q := range w.dns.Asked() {
		if q == question {
			n++
		}
	}
	return n
}

const otherBody = "version: STSv1\nmode: enforce\nmx: other.ex.test\nmax_age: 604800\n"

const otherReply = "OK secure match=other.ex.test servername=hostname"

// TestSTS093_AllKeysOfADomain: what changes a domain's policy voids the answers
// of its other keys.
func TestSTS093_AllKeysOfADomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test:25", secureReply)
		w.want("ex.test", secureReply)
		w.hosts.set("ex.test", otherBody)
		if _, err := w.engine.Refresh(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		w.want("ex.test", otherReply)
		w.want("ex.test:25", otherReply)
		w.hosts.set("ex.test", "")
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		w.want("ex.test:25", "NOTFOUND ")
		w.want("ex.test", "NOTFOUND ")
	})
}

// TestSTS098_FlushDuringAFetch: what was on its way when the operator flushed does not come into force.
func TestSTS098_FlushDuringAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.hosts.delay = 30 * time.Second
		w.want("ex.test", "NOTFOUND ")
		w.hosts.set("ex.test", "")
		w.dns.Set("ad nx _mta-sts.ex.test 300 TXT")
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		w.want("ex.test", "NOTFOUND ")
		time.Sleep(time.Minute)
		w.want("ex.test", "NOTFOUND ")
		if _, err := w.store.Get(context.Background(), kindPolicy, "ex.test"); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("the flushed policy is in the store: %v", err)
		}
	})
}

// TestSTS098_FlushDuringAWrite: a batch under way does not bring a record back.
func TestSTS098_FlushDuringAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.stop()
		s := onBadStore(w)
		w.boot(nil)
		defer func() { w.stop() }()
		w.hosts.set("ex.test", enforceBody)
		s.slow.Store(int64(time.Second))
		w.want("ex.test", secureReply) // the hint about its hosts waits for the next batch
		<-s.putting
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		for _, kind := range []cache.Kind{kindPolicy, kindClass} {
			if _, err := w.store.Get(context.Background(), kind, "ex.test"); !errors.Is(err, cache.ErrNotFound) {
				t.Errorf("%s is in the store after a flush: %v", kind, err)
			}
		}
	})
}

// TestCCH11_FlushWhileLoading: what was read before is not restored after.
func TestCCH11_FlushWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.stop()
		s := onBadStore(w)
		s.delayed.Store(int64(3 * time.Second))
		w.hosts.set("ex.test", "")
		w.boot(nil)
		defer func() { w.stop() }()
		w.want("ex.test", secureReply) // read through
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		w.want("ex.test", "NOTFOUND ")
		if n := len(w.engine.Held()); n != 0 {
			t.Errorf("%d policies held", n)
		}
	})
}

// TestCCH07_ExpiredAndFailing: one look, not as many as fit before the deadline.
func TestCCH07_ExpiredAndFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "86400"))
		w.want("ex.test", secureReply)
		w.hosts.set("ex.test", "")
		w.dns.Set(`ad _mta-sts.ex.test 3600 TXT "v=STSv1; id=2"`)
		for range 13 {
			time.Sleep(2 * time.Hour)
			w.dns.Asked()
			w.ask("ex.test")
			if n := w.count("TXT _mta-sts.ex.test"); n > 2 {
				t.Fatalf("%d looks at the record for one question", n)
			}
		}
		w.want("ex.test", "NOTFOUND ")
	})
}

// TestRenewalAsksOnce: a caching resolver answers with what is left of a lifetime.
func TestRenewalAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.dns.Asked()
		w.dns.Set(`ad _mta-sts.ex.test 2 TXT "v=STSv1; id=1"`)
		time.Sleep(297 * time.Second)
		w.want("ex.test", secureReply)
		synctest.Wait()
		if n := w.count("TXT _mta-sts.ex.test"); n != 1 {
			t.Errorf("%d looks at the record ahead of its end", n)
		}
	})
}

// TestSTS029_RefreshNeedsARecord: nothing is fetched for a domain without one.
func TestSTS029_RefreshNeedsARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, "ad nx _mta-sts.ex.test 300 TXT", nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		if _, err := w.engine.Refresh(context.Background(), "ex.test"); !errors.Is(err, ErrNotHeld) {
			t.Errorf("a policy without a record was taken: %v", err)
		}
		if n := w.hosts.gets(); n != 0 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestCCH05_RestartIsNoQuestion: fourteen days count from the last question.
func TestCCH05_RestartIsNoQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "31557600"))
		w.want("ex.test", secureReply)
		for range 4 {
			time.Sleep(5 * 24 * time.Hour)
			w.stop()
			w.boot(nil)
		}
		w.hosts.gets()
		time.Sleep(5 * 24 * time.Hour)
		if n := w.hosts.gets(); n != 0 {
			t.Errorf("%d refreshes 20 days after the last question", n)
		}
		w.want("ex.test", secureReply)
		time.Sleep(5 * time.Minute)
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches after a new question", n)
		}
		w.stop()
	})
}

// TestSTS096_EvictedWhileFetching: a policy is found although a flood evicted
// its domain before it came.
func TestSTS096_EvictedWhileFetching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, again := range map[string]bool{"nobody asked meanwhile": false, "asked meanwhile": true} {
			w := start(t, signedZone, nil)
			w.hosts.set("ex.test", enforceBody)
			w.hosts.delay = 10 * time.Second
			w.want("ex.test", "NOTFOUND ")
			w.engine.domains.Delete("ex.test")
			if again {
				w.want("ex.test", "NOTFOUND ")
			}
			time.Sleep(20 * time.Second)
			w.hosts.gets()
			w.want("ex.test", secureReply)
			if n := w.hosts.gets(); n != 0 {
				t.Errorf("%s: fetched again", name)
			}
			if n := len(w.engine.Held()); n != 1 {
				t.Errorf("%s: %d policies held", name, n)
			}
			if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := len(w.engine.Held()); n != 0 {
				t.Errorf("%s: %d policies held after a flush", name, n)
			}
			w.stop()
		}
	})
}

// TestSTS097_ClockSetBack: two days back, nothing lasts longer for it.
func TestSTS097_ClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		const back = -48 * time.Hour
		d, h := w.engine.domain("ex.test"), w.engine.host("n1.ex.test", 25)
		// As it looks when the clock has been set back: all was two days ahead.
		d.mu.Lock()
		d.sts.until -= int64(back)
		d.mx.until -= int64(back)
		d.policy.fetched, d.policy.attempted = d.policy.fetched.Add(-back), d.policy.attempted.Add(-back)
		d.policy.refreshAt = d.policy.refreshAt.Add(-back)
		d.mu.Unlock()
		h.mu.Lock()
		h.until -= int64(back)
		h.mu.Unlock()
		d.until.Add(-int64(back))
		now := time.Now()
		w.engine.clockSet(now, back)
		if p, _ := w.engine.Show("ex.test"); p.ExpiresAt.After(now.Add(604800 * time.Second)) {
			t.Errorf("expires %v after now", p.ExpiresAt.Sub(now))
		}
		w.hosts.set("ex.test", otherBody)
		w.dns.Set(`ad _mta-sts.ex.test 300 TXT "v=STSv1; id=2"`)
		time.Sleep(301 * time.Second)
		w.want("ex.test", otherReply)
	})
}

// TestSTS097_PersistedClock: a fetch in the future counts as one of now.
func TestSTS097_PersistedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		now := time.Now()
		p, _, err := readPolicyRecord(cache.Record{Key: "ex.test", Value: mustRecord(t, now.Add(48*time.Hour))}, now)
		if err != nil || p.expires().After(now.Add(604800*time.Second)) {
			t.Errorf("%v, %v", p, err)
		}
	})
}

func mustRecord(t *testing.T, fetched time.Time) []byte {
	t.Helper()
	r, err := (&policyState{body: []byte(enforceBody), fetched: fetched}).record("ex.test", fetched)
	if err != nil {
		t.Fatal(err)
	}
	return r.Value
}

// TestClockWatch: only a step counts, not the passing of time.
func TestClockWatch(t *testing.T) {
	c := clockWatch{last: time.Now()}
	if j := c.jumped(time.Now()); j != 0 {
		t.Errorf("jumped by %v", j)
	}
	c.last = time.Now().Round(0).Add(-2 * time.Hour) // without a monotonic reading only the wall is compared
	if j := c.jumped(time.Now()); j != 0 {
		t.Errorf("a long pause is no step: %v", j)
	}
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

// TestAfterTheEnd: questions after Run are answered from what is known, at once.
func TestAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.stop()
		time.Sleep(2 * time.Hour)
		w.dns.Asked()
		begin := time.Now()
		w.want("ex.test", "OK secure match=.ex.test servername=hostname") // row D4
		w.want("new.test", "NOTFOUND ")
		if took := time.Since(begin); took != 0 || len(w.dns.Asked()) > 0 {
			t.Errorf("answered after %v", took)
		}
	})
}

// TestRememberIsNeverMixed: the lifetime of one answer is never that of another.
func TestRememberIsNeverMixed(t *testing.T) {
	d, p := newDomain("ex.test", 0), &plan{}
	short, long := &answer{plan: p}, &answer{plan: p}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for range 20_000 {
				d.remember(short, 0, 0, 100)
				d.remember(long, 0, 0, 1000)
			}
		})
		all.Go(func() {
			for range 40_000 {
				if d.current(500, p) == short {
					t.Error("an answer outlived its evidence")
					return
				}
			}
		})
	}
	all.Wait()
	d.changes.Add(1)
	if _, kept := d.remember(long, 0, 0, 1000); kept || d.current(1, p) != nil {
		t.Error("an answer from before a change was kept")
	}
}
