package policy

import (
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
