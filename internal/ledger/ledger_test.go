package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/internal/ledger"
)

var contract = ledger.NewRule(ledger.Rule{Source: "postseal.toml:1", Match: []string{"partner.test"}, Level: "encrypt", Unreachable: "refuse", Reason: "contract 4711"})

// negative and positive are what a probe finds at a host.
func negative(host string) ledger.Host {
	return ledger.Host{Host: host, Port: 25, Level: "encrypt", Verdict: ledger.Negative, Address: "192.0.2.1", At: time.Now(), Text: "TLS is required, but was not offered by host " + host}
}

func positive(host string) ledger.Host {
	return ledger.Host{Host: host, Port: 25, Level: "encrypt", Verdict: ledger.Positive, Address: "192.0.2.1", At: time.Now(), Offered: true,
		Version: "TLSv1.3", Cipher: "TLS_AES_256_GCM_SHA384", Names: []string{host}, Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// failing is a store that counts its writes and can refuse them.
type failing struct {
	cache.Store
	refuse atomic.Bool
	writes atomic.Int64
}

var errRefused = errors.New("refused by the test")

func (s *failing) Put(ctx context.Context, records ...cache.Record) error {
	if s.refuse.Load() {
		return errRefused
	}
	s.writes.Add(1)
	return s.Store.Put(ctx, records...)
}

// running runs a ledger until the test ends.
func running(t *testing.T, store cache.Store) (*ledger.Ledger, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewRegistry()
	l := ledger.New(ledger.Config{Store: store, Registerer: r})
	ctx, end := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = l.Run(ctx) })
	t.Cleanup(func() { end(); work.Wait() })
	return l, r
}

func entries(t *testing.T, store cache.Store, since time.Time) []ledger.Entry {
	t.Helper()
	b, err := ledger.Read(t.Context(), store, since)
	if err != nil || b.Unreadable != 0 {
		t.Fatalf("%v, %d unreadable", err, b.Unreadable)
	}
	return b.Entries
}

func one(t *testing.T, store cache.Store) ledger.Entry {
	t.Helper()
	all := entries(t, store, time.Time{})
	if len(all) != 1 {
		t.Fatalf("%d entries: %+v", len(all), all)
	}
	return all[0]
}

// A year in the life of a destination: only what is new is written, and the history
// tells what it was at any time.
func TestLedger_Life(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failing{Store: cache.NewVolatile(nil)}
		l, _ := running(t, store)
		start := time.Now().UTC()
		for range 100 {
			l.Answered("partner.test", contract, "encrypt")
			time.Sleep(time.Minute)
		}
		e := one(t, store)
		if n := store.writes.Load(); n != 2 || !e.FirstAsked.Equal(start) || !e.LastAsked.Equal(start.Add(time.Hour)) || !e.Changed.Equal(start) || e.Rule.Reason != contract.Reason {
			t.Errorf("%d writes, %+v", n, e)
		}
		l.Reached("partner.test", contract, []ledger.Host{positive("mx1.test"), positive("mx2.test")}, time.Now())
		time.Sleep(6 * time.Hour)
		good := time.Now()
		l.Reached("partner.test", contract, []ledger.Host{positive("mx1.test"), positive("mx2.test")}, good)
		time.Sleep(6 * time.Hour)
		lost := time.Now().UTC()
		l.Reached("partner.test", contract, []ledger.Host{negative("mx1.test"), negative("mx2.test")}, good)
		time.Sleep(time.Hour)
		e = one(t, store)
		if !e.Changed.Equal(lost) || !e.Secured.Equal(good) || !e.Hosts[0].Secured.Equal(good) || e.Hosts[0].Verdict != ledger.Negative || len(e.Changes) != 3 {
			t.Errorf("%+v", e)
		}
		if got := l.LastSecured(t.Context(), "partner.test"); !got.Equal(good) {
			t.Errorf("LastSecured %v, want %v", got, good)
		}
		l.Reached("second.test", contract, []ledger.Host{positive("mx3.test")}, time.Now())
		time.Sleep(time.Minute)
		for _, tt := range []struct {
			since time.Time
			most  int
			want  string
		}{{good.Add(-time.Hour), 9, "[second.test partner.test]"}, {good, 9, "[second.test]"}, {good.Add(-time.Hour), 1, "[second.test]"}, {time.Now(), 9, "[]"}} {
			if got := fmt.Sprint(l.LatelySecured(t.Context(), tt.since, tt.most)); got != tt.want {
				t.Errorf("LatelySecured %s, want %s", got, tt.want)
			}
		}
		if got := entries(t, store, lost)[0].Changes; len(got) != 1 || len(got[0].What) != 2 || !strings.HasPrefix(got[0].What[0], "mx1.test: negative, TLS is required") {
			t.Errorf("%+v", got)
		}
	})
}

// What was of no use for 400 days is gone, and no day earlier.
func TestLedger_Prune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cache.NewVolatile(nil)
		l, _ := running(t, store)
		l.Answered("partner.test", contract, "encrypt")
		l.Refused("partner.test")
		time.Sleep(200 * 24 * time.Hour)
		l.Answered("partner.test", contract, "encrypt")
		time.Sleep(200*24*time.Hour - time.Minute)
		if e := one(t, store); e.Count.Refused != 1 || len(e.Changes) != 1 {
			t.Errorf("after 400 days less a minute: %+v", e)
		}
		time.Sleep(2 * time.Minute)
		if e := one(t, store); e.Count.Refused != 0 || len(e.Changes) != 0 || e.FirstAsked.IsZero() {
			t.Errorf("after 400 days: %+v", e)
		}
		time.Sleep(200 * 24 * time.Hour)
		if all := entries(t, store, time.Time{}); len(all) != 0 {
			t.Errorf("after 600 days: %+v", all)
		}
	})
}

// A store that cannot be written loses nothing that fits into memory, and is told of.
func TestLedger_StoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failing{Store: cache.NewVolatile(nil)}
		l, r := running(t, store)
		store.refuse.Store(true)
		l.Answered("partner.test", contract, "NOTFOUND")
		l.Refused("partner.test")
		time.Sleep(time.Minute)
		l.Answered("partner.test", contract, "encrypt")
		l.Refused("partner.test")
		l.Deferred("partner.test")
		time.Sleep(time.Minute)
		if err := l.Err(); !errors.Is(err, errRefused) {
			t.Errorf("Err() = %v", err)
		}
		want := "# HELP postseal_ledger_failing 1 while the ledger cannot be written.\n# TYPE postseal_ledger_failing gauge\npostseal_ledger_failing %d\n"
		if err := testutil.GatherAndCompare(r, strings.NewReader(fmt.Sprintf(want, 1)), "postseal_ledger_failing"); err != nil {
			t.Error(err)
		}
		if err := l.Flush(t.Context()); !errors.Is(err, errRefused) {
			t.Errorf("Flush = %v", err)
		}
		store.refuse.Store(false)
		time.Sleep(time.Minute)
		e := one(t, store)
		if l.Err() != nil || e.Level != "encrypt" || e.Count.Refused != 2 || e.Count.Deferred != 1 || !e.Count.Last.After(e.Count.First) {
			t.Errorf("%v, %+v", l.Err(), e)
		}
		if err := testutil.GatherAndCompare(r, strings.NewReader(fmt.Sprintf(want, 0)), "postseal_ledger_failing"); err != nil {
			t.Error(err)
		}
	})
}

// The end of Run writes what waits; a new ledger goes on where the old one was.
func TestLedger_EndAndBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cache.NewVolatile(nil)
		for range 3 {
			l := ledger.New(ledger.Config{Store: store})
			ctx, end := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			l.Answered("partner.test", contract, "encrypt")
			l.Refused("partner.test")
			end()
			if err := <-done; err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		if e := one(t, store); len(e.Changes) != 1 || e.Count.Refused != 3 || e.LastAsked.Sub(e.FirstAsked) != 2*time.Second {
			t.Errorf("%+v", e)
		}
	})
}

// A destination that flaps is kept with its last evidence and a bounded history.
func TestLedger_Flapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cache.NewVolatile(nil)
		l, _ := running(t, store)
		for range 300 {
			l.Answered("partner.test", contract, "encrypt")
			time.Sleep(time.Minute)
			l.Answered("partner.test", contract, "secure")
			time.Sleep(time.Minute)
		}
		e := one(t, store)
		if len(e.Changes) != 24 || e.Level != "secure" || time.Since(e.Changed) > 2*time.Minute {
			t.Errorf("%d changes, %+v", len(e.Changes), e.Destination)
		}
	})
}

// Mail under a rule for the sender's sake has evidence of its own, and does not make
// the other's flap.
func TestLedger_SenderRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cache.NewVolatile(nil)
		l, _ := running(t, store)
		payroll := ledger.NewRule(ledger.Rule{Sender: []string{"@payroll.test"}, Level: "encrypt"})
		for range 5 {
			l.Answered("partner.test", contract, "secure")
			l.Answered("partner.test", payroll, "encrypt")
			time.Sleep(time.Minute)
		}
		l.Inert("partner.test", true, "relayhost = [smart.test]")
		l.Deferred("partner.test")
		l.Deferred("unruled.test")
		time.Sleep(time.Minute)
		all := entries(t, store, time.Time{})
		if len(all) != 3 || all[0].Sender || !all[1].Sender || all[0].Level != "secure" || all[1].Level != "encrypt" || all[0].Count.Deferred != 1 || all[1].Count.Deferred != 0 ||
			len(all[0].Changes) != 1 || len(all[1].Changes) != 2 || all[1].Inert == "" || all[2].Name != "unruled.test" || all[2].Count.Deferred != 1 {
			t.Errorf("%+v", all)
		}
	})
}

// Many at once: every count arrives.
func TestLedger_Concurrent(t *testing.T) {
	store := cache.NewVolatile(nil)
	l, _ := running(t, store)
	var work sync.WaitGroup
	const askers, each = 8, 200
	for g := range askers {
		work.Go(func() {
			for i := range each {
				d := fmt.Sprintf("d%d.test", i%10)
				l.Answered(d, contract, []string{"encrypt", "secure"}[g%2])
				l.Reached(d, contract, []ledger.Host{positive("mx.test")}, time.Now())
				l.Refused(d)
				if i%50 == 0 {
					if _, err := l.Read(t.Context(), time.Time{}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	work.Wait()
	b, err := l.Read(t.Context(), time.Time{})
	total := 0
	for _, e := range b.Entries {
		total += e.Count.Refused
	}
	if err != nil || len(b.Entries) != 10 || total != askers*each {
		t.Errorf("%v, %d destinations, %d refused", err, len(b.Entries), total)
	}
}

// An answer that says nothing new costs no memory.
func TestLedger_NothingNewIsCheap(t *testing.T) {
	l := ledger.New(ledger.Config{Store: cache.NewVolatile(nil)})
	l.Answered("partner.test", contract, "encrypt")
	if n := testing.AllocsPerRun(100, func() { l.Answered("partner.test", contract, "encrypt") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What others say is kept within limits.
func TestLedger_Limits(t *testing.T) {
	store := cache.NewVolatile(nil)
	l := ledger.New(ledger.Config{Store: store})
	long := strings.Repeat("ä", 4000)
	patterns := make([]string, 1000)
	var hosts []ledger.Host
	for i := range patterns {
		patterns[i] = fmt.Sprintf("d%d.test", i)
		hosts = append(hosts, ledger.Host{Host: patterns[i], Text: long, Cause: long, Names: patterns})
	}
	r := ledger.NewRule(ledger.Rule{Match: patterns, Level: "encrypt", Reason: long})
	l.Reached("partner.test", r, hosts, time.Time{})
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	rec, err := store.Get(t.Context(), "ledger-destination", "partner.test")
	if err != nil || len(rec.Value) > 100_000 {
		t.Errorf("%v, a record of %d bytes", err, len(rec.Value))
	}
	if e := one(t, store); len(e.Rule.Match) != 5 || len(e.Hosts) != 32 || len(e.Hosts[0].Names) != 20 || len(e.Hosts[0].Text) > 410 {
		t.Errorf("%d patterns, %d hosts", len(e.Rule.Match), len(e.Hosts))
	}
}

// Two rules are one where they say the same of the same destinations.
func TestNewRule_ID(t *testing.T) {
	same := *contract
	same.Source, same.Reason, same.Unreachable = "elsewhere.toml:9", "another", "queue"
	if got := ledger.NewRule(same); got.ID != contract.ID || !reflect.DeepEqual(got.Match, contract.Match) {
		t.Errorf("%+v", got)
	}
	seen := map[string]ledger.Rule{}
	for _, r := range []ledger.Rule{
		{Match: []string{"a", "b"}, Level: "encrypt"}, {Match: []string{"ab"}, Level: "encrypt"}, {Match: []string{"a"}, Sender: []string{"b"}, Level: "encrypt"},
		{Sender: []string{"a", "b"}, Level: "encrypt"}, {Match: []string{"a", "b"}, Level: "secure"}, {Match: []string{"a", "b", "encrypt"}},
	} {
		id := ledger.NewRule(r).ID
		if other, taken := seen[id]; taken {
			t.Errorf("%+v and %+v are one", r, other)
		}
		seen[id] = r
	}
}
