package reach

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeProber is a Prober whose answers are data.
type fakeProber struct {
	mu      sync.Mutex
	verdict map[string]Verdict // by address
	takes   time.Duration
	asked   []string
}

func (f *fakeProber) set(address string, v Verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verdict[address] = v
}

func (f *fakeProber) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fakeProber) Probe(ctx context.Context, t Target) Result {
	a := Attempt{Address: netip.AddrPortFrom(t.Addresses[0], t.port()), When: time.Now()}
	f.mu.Lock()
	f.asked = append(f.asked, t.Host+" "+t.Addresses[0].String())
	f.mu.Unlock()
	select {
	case <-time.After(f.takes):
		f.mu.Lock()
		a.Verdict = f.verdict[t.Addresses[0].String()]
		f.mu.Unlock()
		a.Handshake = a.Verdict == Positive && t.Level != May
	case <-ctx.Done():
		a.Cause = ctx.Err().Error()
	}
	return fold(&t, []Attempt{a}, true)
}

func mx(host string, addresses ...string) Target {
	t := Target{Host: host, Level: Encrypt}
	for _, a := range addresses {
		t.Addresses = append(t.Addresses, netip.MustParseAddr(a))
	}
	return t
}

func newMemory() (*Memory, *fakeProber) {
	f := &fakeProber{verdict: map[string]Verdict{}}
	return &Memory{Prober: f}, f
}

func TestMemoryKeeps(t *testing.T) {
	for verdict, keep := range map[Verdict]time.Duration{Positive: 6 * time.Hour, Negative: 10 * time.Minute, Unknown: 2 * time.Minute} {
		t.Run(verdict.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, f := newMemory()
				f.set("192.0.2.1", verdict)
				goal := mx("mx.test", "192.0.2.1")
				first := m.Probe(t.Context(), goal)
				time.Sleep(keep * 9 / 10 * 99 / 100)
				if again := m.Probe(t.Context(), goal); f.count() != 1 || again.Verdict != verdict || again.Attempts[0].When != first.Attempts[0].When {
					t.Errorf("asked %d times", f.count())
				}
				time.Sleep(keep * 22 / 100)
				if m.Probe(t.Context(), goal); f.count() != 2 {
					t.Errorf("asked %d times after %v", f.count(), keep)
				}
				if m.Renew(t.Context(), goal); f.count() != 3 {
					t.Errorf("not renewed")
				}
			})
		})
	}
}

// TestMemoryUnknownInARow: a host that is down for long is asked less and less often.
func TestMemoryUnknownInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newMemory()
		goal := mx("mx.test", "192.0.2.1")
		hour := func() int {
			before := f.count()
			for range 60 {
				m.Probe(t.Context(), goal)
				time.Sleep(time.Minute)
			}
			return f.count() - before
		}
		// After 2, 4 and 8 minutes, then every 10, each with what jitter and a question
		// once a minute add.
		if n := hour(); n < 7 || n > 9 {
			t.Errorf("asked %d times in the first hour", n)
		}
		if n := hour(); n < 5 || n > 7 {
			t.Errorf("asked %d times in the second hour", n)
		}
		f.set("192.0.2.1", Positive)
		m.Renew(t.Context(), goal)
		f.set("192.0.2.1", Unknown)
		m.Renew(t.Context(), goal)
		before := f.count()
		time.Sleep(DefaultKeepUnknown * 11 / 10)
		if m.Probe(t.Context(), goal); f.count() != before+1 {
			t.Error("the first unknown result after a good one is kept for longer")
		}
	})
}

func TestMemorySharesByHostAddressAndDemand(t *testing.T) {
	m, f := newMemory()
	for _, c := range []struct {
		edit  func(*Target)
		asked int
	}{
		{func(*Target) {}, 1},
		{func(t *Target) { t.Nexthop = "another.test" }, 1},
		{func(t *Target) { t.Host = "MX.test." }, 1},
		{func(t *Target) { t.Port = 25 }, 1},
		{func(t *Target) { t.Addresses[0] = netip.MustParseAddr("::ffff:192.0.2.1") }, 1},
		{func(t *Target) { t.Port = 26 }, 2},
		{func(t *Target) { t.Host = "mx2.test" }, 3},
		{func(t *Target) { t.Level = Verify }, 4},
		{func(t *Target) { t.Addresses[0] = netip.MustParseAddr("192.0.2.2") }, 5},
	} {
		goal := mx("mx.test", "192.0.2.1")
		c.edit(&goal)
		if m.Probe(t.Context(), goal); f.count() != c.asked {
			t.Errorf("%+v: asked %d times, want %d", goal, f.count(), c.asked)
		}
	}
}

func TestMemoryHasOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newMemory()
		f.takes = 10 * time.Second
		f.set("192.0.2.1", Positive)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				ask := m.Probe
				if i%2 == 0 {
					ask = m.Renew
				}
				if r := ask(t.Context(), mx("mx.test", "192.0.2.1")); r.Verdict != Positive {
					t.Errorf("%+v", r)
				}
			})
		}
		all.Wait()
		if f.count() != 1 {
			t.Errorf("asked %d times", f.count())
		}
	})
}

// TestMemoryLeaderLeaves: whoever began a probe may go; the others are served,
// and what was cut short is not kept.
func TestMemoryLeaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newMemory()
		f.takes = 10 * time.Second
		f.set("192.0.2.1", Negative)
		goal := mx("mx.test", "192.0.2.1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if r := m.Probe(ctx, goal); r.Verdict != Unknown {
				t.Errorf("leader: %+v", r)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if r := m.Probe(t.Context(), goal); r.Verdict != Negative {
				t.Errorf("follower: %+v", r)
			}
		})
		short, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		all.Go(func() {
			if r := m.Probe(short, goal); r.Verdict != Unknown || r.Attempts[0].Text != "not tried" && r.Attempts[0].Cause == "" {
				t.Errorf("impatient: %+v", r)
			}
		})
		all.Wait()
		if n := f.count(); n < 2 || n > 3 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	m, f := newMemory()
	m.Size = 10
	for i := range 100 {
		address := fmt.Sprintf("192.0.2.%d", i)
		f.set(address, Positive)
		m.Probe(t.Context(), mx(fmt.Sprintf("mx%d.test", i), address))
		m.Probe(t.Context(), mx("mx0.test", "192.0.2.0"))
	}
	if len(m.all) != 10 || m.used.Len() != 10 || len(m.proofs) > maxProofs {
		t.Errorf("%d results, %d in order, %d proofs", len(m.all), m.used.Len(), len(m.proofs))
	}
	if f.count() != 100 {
		t.Errorf("asked %d times: what is used often was forgotten", f.count())
	}
}

func TestStanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newMemory()
		a, b := mx("mx1.test", "192.0.2.1", "192.0.2.2"), mx("mx2.test", "192.0.2.3")
		began := time.Now()
		at := func() time.Duration { return time.Since(began).Round(time.Second) }
		probe := func(verdicts ...Verdict) {
			for i, v := range verdicts {
				f.set(fmt.Sprintf("192.0.2.%d", i+1), v)
			}
			m.Renew(t.Context(), a)
			m.Renew(t.Context(), b)
		}
		want := func(v Verdict, first, last time.Duration) {
			t.Helper()
			s := m.Standing(a, b)
			if s.Verdict != v || len(s.Hosts) != 2 {
				t.Errorf("at %v: %v", at(), s.Verdict)
			}
			if v == Negative && (s.FirstNegative.Sub(began) != first || s.LastNegative.Sub(began) != last) {
				t.Errorf("at %v: since %v, last %v", at(), s.FirstNegative.Sub(began), s.LastNegative.Sub(began))
			}
			if v != Negative && (!s.FirstNegative.IsZero() || !s.LastNegative.IsZero()) {
				t.Errorf("at %v: %+v", at(), s)
			}
		}
		want(Unknown, 0, 0)
		if s := m.Standing(a, b); !s.LastSecured.IsZero() || s.Hosts[0].Text != "mx1.test was not probed yet" {
			t.Errorf("%+v", s)
		}
		probe(Negative, Negative, Positive)
		want(Positive, 0, 0)
		time.Sleep(10 * time.Minute)
		probe(Negative, Negative, Negative)
		want(Negative, 10*time.Minute, 10*time.Minute) // mx2 only since now
		if s := m.Standing(a, b); !s.LastSecured.Equal(began) {
			t.Errorf("last secured at %v", s.LastSecured)
		}
		time.Sleep(10 * time.Minute)
		probe(Negative, Unknown, Negative)
		want(Unknown, 0, 0)
		time.Sleep(10 * time.Minute)
		probe(Negative, Negative, Negative)
		want(Negative, 10*time.Minute, 30*time.Minute) // a pause for one of them ended no run
		time.Sleep(10 * time.Minute)
		m.Renew(t.Context(), b)
		want(Negative, 10*time.Minute, 30*time.Minute) // the oldest of the last counts
		time.Sleep(31 * time.Minute)
		want(Negative, 10*time.Minute, 30*time.Minute) // told with its age
		probe(Negative, Negative, Negative)
		want(Negative, 71*time.Minute, 71*time.Minute) // nobody looked for too long
		time.Sleep(time.Minute)
		probe(Negative, Positive, Negative)
		want(Positive, 0, 0)
		probe(Negative, Negative, Negative)
		want(Negative, 72*time.Minute, 72*time.Minute)
	})
}

func TestStandingNeedsEveryAddress(t *testing.T) {
	m, f := newMemory()
	f.set("192.0.2.1", Negative)
	known := mx("mx.test", "192.0.2.1")
	m.Probe(t.Context(), known)
	for _, c := range []struct {
		name    string
		targets []Target
		want    Verdict
	}{
		{"all", []Target{known}, Negative},
		{"no host", nil, Unknown},
		{"an address not probed", []Target{mx("mx.test", "192.0.2.1", "192.0.2.9")}, Unknown},
		{"a host not probed", []Target{known, mx("mx2.test", "192.0.2.2")}, Unknown},
		{"a host without addresses", []Target{known, mx("mx2.test")}, Unknown},
		{"another level", []Target{{Host: "mx.test", Level: Verify, Addresses: known.Addresses}}, Unknown},
		{"no level", []Target{{Host: "mx.test", Addresses: known.Addresses}}, Unknown},
	} {
		if s := m.Standing(c.targets...); s.Verdict != c.want || len(s.Hosts) != len(c.targets) {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
	if f.count() != 1 {
		t.Error("standing has probed")
	}
}

// TestOtherPositive: our own path is proven by TLS elsewhere only.
func TestOtherPositive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newMemory()
		f.verdict = map[string]Verdict{"192.0.2.1": Negative, "192.0.2.2": Positive, "192.0.2.3": Positive, "192.0.2.4": Positive, "192.0.2.5": Negative}
		bad := mx("mx.test", "192.0.2.1")
		m.Probe(t.Context(), bad)
		none := func(why string, targets ...Target) {
			t.Helper()
			if s := m.Standing(targets...); !s.OtherPositive.IsZero() {
				t.Errorf("%s: %v", why, s.OtherPositive)
			}
		}
		none("nothing is known", bad)
		m.Probe(t.Context(), mx("mx.test", "192.0.2.2"))
		none("the same host", bad)
		m.Probe(t.Context(), mx("alias.test", "192.0.2.3"))
		none("the same address", bad, mx("mx2.test", "192.0.2.3"))
		m.Probe(t.Context(), mx("negative.test", "192.0.2.5"))
		clear := mx("clear.test", "192.0.2.4")
		clear.Level = May
		time.Sleep(time.Minute)
		m.Probe(t.Context(), clear) // positive, but without TLS
		s := m.Standing(bad)
		if age := time.Since(s.OtherPositive); age != time.Minute {
			t.Errorf("%v", age)
		}
		m.Probe(t.Context(), mx("new.test", "192.0.2.4"))
		if s := m.Standing(bad); !s.OtherPositive.Equal(time.Now()) {
			t.Errorf("%v", s.OtherPositive)
		}
	})
}
