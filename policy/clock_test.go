package policy

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
)

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
		d.memo.Load().until -= int64(back)
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

// TestSTS097_ClockGlitch: the clock is a year ahead for a while, and the policies
// are given up; when it is put right they are as before: listed, refreshed and
// protected, whether memory has them still or only the store.
func TestSTS097_ClockGlitch(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, evicted := range map[string]bool{"in memory": false, "evicted meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, signedZone, nil)
				defer w.stop()
				w.hosts.set("ex.test", enforceBody)
				w.want("ex.test", secureReply)
				d := w.engine.domain("ex.test")
				w.engine.due(d, time.Now().Add(year)) // the scan, while the clock is ahead
				if n := len(w.engine.Held()); n != 0 {
					t.Fatalf("%d policies held a year later", n)
				}
				if evicted {
					w.engine.domains.Delete("ex.test")
				}
				w.dns.Set("servfail _mta-sts.ex.test TXT")
				w.engine.clockSet(time.Now(), -year)
				w.want("ex.test", secureReply)
				synctest.Wait()
				if d := w.engine.domain("ex.test"); len(w.engine.Held()) != 1 || !d.protected() {
					t.Errorf("%d policies held, protected %t", len(w.engine.Held()), d.protected())
				}
				w.hosts.gets()
				time.Sleep(26 * time.Hour)
				if n := w.hosts.gets(); n < 1 || n > 2 {
					t.Errorf("%d fetches in 26 hours", n)
				}
			})
		})
	}
}

// TestSTS097_FlushWhileReadingAgain: what the operator deletes does not come back
// with the reading that follows a step of the clock.
func TestSTS097_FlushWhileReadingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.stop()
		s := onBadStore(w)
		w.boot(nil)
		defer func() { w.stop() }()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		s.delayed.Store(int64(3 * time.Second))
		w.engine.clockSet(time.Now(), time.Hour)
		w.hosts.set("ex.test", "")
		w.dns.Set("ad nx _mta-sts.ex.test 300 TXT")
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		w.want("ex.test", "NOTFOUND ")
	})
}

// TestSTS097_BootWithAnOldClock: a machine without a battery boots in the past. The
// policies on its disk are not fetched yet, as it seems; they count from now, and
// what is noted of them on disk stays as it is. Once the clock is right they have the
// rest of their lifetime, no more and no less.
func TestSTS097_BootWithAnOldClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const behind = 8 * 24 * time.Hour
		real := time.Now().Add(behind)
		fetched := real.Add(-time.Hour)
		w := start(t, "servfail _mta-sts.ex.test TXT\nservfail ex.test MX", nil)
		w.stop()
		put := cache.Record{Kind: kindPolicy, Key: "ex.test", Value: mustRecord(t, fetched), Expires: fetched.Add(604800 * time.Second)}
		if err := w.store.Put(context.Background(), put); err != nil {
			t.Fatal(err)
		}
		w.boot(nil)
		w.want("ex.test", d4Reply)
		d := w.engine.domains.GetString("ex.test")
		w.engine.writer.dirty(d)
		for range 2 {
			if h, err := w.engine.Show("ex.test"); err != nil || h.ExpiresAt.After(time.Now().Add(604800*time.Second)) {
				t.Errorf("in the past: %+v, %v", h, err)
			}
			w.stop()
			if r, err := w.store.Get(context.Background(), kindPolicy, "ex.test"); err != nil || !r.Expires.Equal(put.Expires) {
				t.Errorf("on disk: expires %v, %v", r.Expires, err)
			}
			w.boot(nil)
		}
		defer func() { w.stop() }()
		time.Sleep(time.Until(real)) // as if it were set: what counts from the past is expired
		w.want("ex.test", d4Reply)
		w.engine.clockSet(time.Now(), behind)
		synctest.Wait()
		if h, err := w.engine.Show("ex.test"); err != nil || !h.FetchedAt.Equal(fetched) || len(w.engine.Held()) != 1 {
			t.Errorf("once the clock is right: %+v, %v, %d held", h, err, len(w.engine.Held()))
		}
	})
}
