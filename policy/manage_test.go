package policy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
)

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

func TestCCH11_FlushAndImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		exported := w.engine.Held()
		w.hosts.set("ex.test", "")
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		w.want("ex.test", "NOTFOUND ")
		if n, err := w.engine.Import(context.Background(), exported); n != 1 || err != nil {
			t.Fatalf("imported %d: %v", n, err)
		}
		time.Sleep(time.Minute)
		w.want("ex.test", secureReply)
		if n, err := w.engine.Import(context.Background(), exported); n != 0 || err != nil {
			t.Errorf("imported again %d: %v", n, err)
		}
		exported[0].Body = "garbage"
		if _, err := w.engine.Import(context.Background(), exported); err == nil {
			t.Error("garbage was imported")
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

// TestRefresh_SaysWhyNothingIsHeld, in a sentence that names the domain once.
func TestRefresh_SaysWhyNothingIsHeld(t *testing.T) {
	for _, c := range []struct{ name, zone, body, want string }{
		{"no record", "ad nx _mta-sts.ex.test 300 TXT", "", "ex.test has no MTA-STS policy: no record at _mta-sts.ex.test"},
		{"bad record", `ad _mta-sts.ex.test 300 TXT "v=STSv1; id="`, "", "no MTA-STS policy of ex.test is held: invalid MTA-STS record: "},
		{"no answer", "servfail _mta-sts.ex.test TXT", "", "no MTA-STS policy of ex.test is held: "},
		{"404", signedZone, "", "no MTA-STS policy of ex.test is held: "},
		{"expired at once", signedZone, "version: STSv1\nmode: testing\nmx: ex.test\nmax_age: 0\n", "no MTA-STS policy of ex.test is held: it has expired, max_age"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, c.zone, nil)
				defer w.stop()
				w.hosts.set("ex.test", c.body)
				_, err := w.engine.Refresh(context.Background(), "Ex.test")
				if !errors.Is(err, ErrNotHeld) || !strings.HasPrefix(err.Error(), c.want) || len(err.Error()) == len(c.want) && c.name != "no record" {
					t.Errorf("got %v, want %s", err, c.want)
				}
				if _, err := w.engine.Refresh(context.Background(), "a..b"); !errors.Is(err, ErrNoDestination) || err.Error() != `"a..b": no destination: an empty label` {
					t.Errorf("bad name: %v", err)
				}
			})
		})
	}
}

// TestSTS098_FlushOfAnEvictedDomain: a policy is forgotten although a flood evicted
// its domain, and the scan does not bring it back.
func TestSTS098_FlushOfAnEvictedDomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, again := range map[string]bool{"evicted": false, "evicted, and asked for anew": true} {
			w := start(t, signedZone, nil)
			w.hosts.set("ex.test", enforceBody)
			w.want("ex.test", secureReply)
			w.hosts.set("ex.test", "")
			w.dns.Set("ad nx _mta-sts.ex.test 300 TXT")
			w.engine.domains.Delete("ex.test")
			if _, err := w.engine.Show("ex.test"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if again {
				w.want("ex.test", secureReply)
			}
			if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			time.Sleep(2 * time.Minute)
			w.want("ex.test", "NOTFOUND ")
			if n := len(w.engine.Held()); n != 0 {
				t.Errorf("%s: %d policies held", name, n)
			}
			w.stop()
		}
	})
}
