package policy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy/mtasts"
)

// fakeDNS is resolvertest.DNS with a standing.
type fakeDNS struct {
	*resolvertest.DNS
	mu        sync.Mutex
	suspended string
}

func (d *fakeDNS) Suspended() (bool, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.suspended != "", d.suspended
}

func (d *fakeDNS) suspend(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.suspended = why
}

func (d *fakeDNS) Ready(context.Context) {}

// policyHosts serve policies by domain; what is not there is a 404.
type policyHosts struct {
	mu      sync.Mutex
	bodies  map[string]string
	delay   time.Duration
	fetched []string
	refuse  bool // no connection at all
}

func (p *policyHosts) Fetch(ctx context.Context, domain string) (mtasts.Fetched, error) {
	p.mu.Lock()
	p.fetched = append(p.fetched, domain)
	body, ok := p.bodies[domain]
	delay, refuse := p.delay, p.refuse
	p.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return mtasts.Fetched{}, ctx.Err()
		}
	}
	if refuse {
		return mtasts.Fetched{}, &mtasts.FetchError{Kind: mtasts.FetchFailed, Host: "mta-sts." + domain, Err: errors.New("connect: no route")}
	}
	if !ok {
		return mtasts.Fetched{}, &mtasts.FetchError{Kind: mtasts.FetchFailed, Host: "mta-sts." + domain, StatusCode: 404, Err: errors.New("404 Not Found")}
	}
	policy, notes, err := mtasts.ParsePolicy([]byte(body))
	if err != nil {
		return mtasts.Fetched{}, &mtasts.FetchError{Kind: mtasts.PolicyInvalid, StatusCode: 200, Err: err}
	}
	return mtasts.Fetched{Body: []byte(body), Policy: policy, Notes: notes, At: time.Now()}, nil
}

func (p *policyHosts) set(domain, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if body == "" {
		delete(p.bodies, domain)
		return
	}
	p.bodies[domain] = body
}

func (p *policyHosts) gets() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.fetched)
	p.fetched = nil
	return n
}

// world is an engine and its exits.
type world struct {
	t      *testing.T
	dns    *fakeDNS
	hosts  *policyHosts
	store  cache.Store
	engine *Engine
	stop   func()
}

const enforceBody = "version: STSv1\nmode: enforce\nmx: *.ex.test\nmax_age: 604800\n"

// start makes an engine; it must be called inside a synctest bubble.
func start(t *testing.T, zone string, change func(*Config)) *world {
	t.Helper()
	w := &world{t: t, dns: &fakeDNS{DNS: resolvertest.New(zone)}, hosts: &policyHosts{bodies: map[string]string{}}, store: cache.NewVolatile(nil)}
	w.boot(change)
	return w
}

func (w *world) boot(change func(*Config)) {
	w.t.Helper()
	c := Config{Resolver: w.dns, Fetch: w.hosts.Fetch, Store: w.store}
	if change != nil {
		change(&c)
	}
	e, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	w.engine = e
	w.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (w *world) ask(key string) string { return w.askMap("QUERY", key) }

func (w *world) askMap(name, key string) string {
	return string(w.engine.ServeSocketmap(context.Background(), nil, []byte(name), []byte(key)))
}

func (w *world) want(key, want string) {
	w.t.Helper()
	if got := w.ask(key); got != want {
		w.t.Errorf("%s: got %q, want %q", key, got, want)
	}
}

func settings(floor Floor) func(*Config) {
	return func(c *Config) { c.Settings.Floor = floor }
}

// signedZone: ex.test with one mail host without TLSA and a policy.
const signedZone = `
ad _mta-sts.ex.test 300 TXT "v=STSv1; id=1"
ad ex.test 300 MX 10 n1.ex.test
ad n1.ex.test 300 A 192.0.2.1
ad nodata n1.ex.test 300 AAAA
ad nx _25._tcp.n1.ex.test 300 TLSA
`

const secureReply = "OK secure match=n1.ex.test servername=hostname"

func TestSTS042_OneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.hosts.delay = time.Second
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { w.want("ex.test", secureReply) })
		}
		all.Wait()
		asked := w.dns.Asked()
		slices.Sort(asked)
		want := []string{"A n1.ex.test", "AAAA n1.ex.test", "MX ex.test", "TLSA _25._tcp.n1.ex.test", "TXT _mta-sts.ex.test"}
		if !slices.Equal(asked, want) || w.hosts.gets() != 1 {
			t.Errorf("asked %q", asked)
		}
		w.want("ex.test", secureReply)
		w.want("EX.test.", secureReply)
		if asked := w.dns.Asked(); len(asked) > 0 {
			t.Errorf("a cached answer asked %q", asked)
		}
	})
}

func TestSTS039_SlowPolicyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for floor, want := range map[Floor]string{FloorInherit: "NOTFOUND ", FloorDANE: "OK dane", FloorEncrypt: "OK encrypt"} {
			w := start(t, signedZone, settings(floor))
			w.hosts.set("ex.test", enforceBody)
			w.hosts.delay = 30 * time.Second
			begin := time.Now()
			w.want("ex.test", want)
			if took := time.Since(begin); took > 5*time.Second || took < 4*time.Second {
				t.Errorf("answered after %v", took)
			}
			begin = time.Now()
			w.want("ex.test", want)
			if took := time.Since(begin); took != 0 {
				t.Errorf("a later asker waited %v", took)
			}
			time.Sleep(31 * time.Second)
			w.want("ex.test", secureReply)
			w.stop()
		}
	})
}

func TestSTS020_STS043_NoPolicyIsFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := strings.ReplaceAll(signedZone, `ad _mta-sts.ex.test 300 TXT "v=STSv1; id=1"`, "servfail _mta-sts.ex.test TXT")
		w := start(t, zone, nil)
		defer w.stop()
		w.want("ex.test", "NOTFOUND ")
		w.dns.Asked()
		time.Sleep(5 * time.Minute)
		w.want("ex.test", "NOTFOUND ")
		if asked := w.dns.Asked(); !slices.Contains(asked, "TXT _mta-sts.ex.test") {
			t.Errorf("five minutes later asked %q", asked)
		}
		w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id=2"`)
		time.Sleep(5 * time.Minute)
		w.want("ex.test", "NOTFOUND ") // 404
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestSTS042_FailedIDWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "300 TXT", "10 TXT"), nil)
		defer w.stop()
		for range 20 {
			w.want("ex.test", "NOTFOUND ")
			time.Sleep(11 * time.Second)
		}
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches of one id in 220 s", n)
		}
		w.hosts.set("ex.test", enforceBody)
		w.dns.Set(`_mta-sts.ex.test 10 TXT "v=STSv1; id=2"`)
		w.want("ex.test", secureReply)
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches of the new id", n)
		}
	})
}

func TestSTS044_STS095_HeldPolicySurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, break_ := range map[string]func(w *world){
			"no record":         func(w *world) { w.dns.Set("nx _mta-sts.ex.test 60 TXT") },
			"no answer":         func(w *world) { w.dns.Set("servfail _mta-sts.ex.test TXT") },
			"new id, 404":       func(w *world) { w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id=9"`); w.hosts.set("ex.test", "") },
			"new id, garbage":   func(w *world) { w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id=9"`); w.hosts.set("ex.test", "<html>") },
			"unusable record":   func(w *world) { w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id="`) },
			"hanging TXT":       func(w *world) { w.dns.Set("hang _mta-sts.ex.test TXT") },
			"policy host hangs": func(w *world) { w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id=9"`); w.hosts.delay = time.Hour },
		} {
			w := start(t, signedZone, nil)
			w.hosts.set("ex.test", enforceBody)
			w.want("ex.test", secureReply)
			break_(w)
			for range 3 {
				time.Sleep(time.Hour)
				if got := w.ask("ex.test"); got != secureReply {
					t.Errorf("%s: %q", name, got)
				}
			}
			w.stop()
			w.boot(nil) // restart: only the store remains
			if got := w.ask("ex.test"); got != secureReply {
				t.Errorf("%s, after a restart: %q", name, got)
			}
			w.dns.Set("servfail ex.test MX\nservfail _mta-sts.ex.test TXT\nservfail n1.ex.test A\nservfail n1.ex.test AAAA\nservfail _25._tcp.n1.ex.test TLSA")
			w.stop()
			w.boot(nil)
			if got, want := w.ask("ex.test"), "OK secure match=.ex.test servername=hostname"; got != want {
				t.Errorf("%s, all DNS down: got %q, want row D4: %q", name, got, want)
			}
			w.stop()
		}
	})
}

// TestSTS095_D4A: what was last known to rest on DANE still does.
func TestSTS095_D4A(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 "+strings.Repeat("ab", 32)), nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		w.stop()
		w.dns.Set("servfail ex.test MX")
		w.boot(nil)
		w.want("ex.test", "OK dane-only")
		w.stop()
		time.Sleep(4 * 24 * time.Hour)
		w.boot(nil)
		w.want("ex.test", "OK dane-only")
		time.Sleep(time.Minute) // the daily refresh is due
		w.stop()
		time.Sleep(3*24*time.Hour + time.Hour)
		w.boot(nil)
		w.want("ex.test", "OK secure match=.ex.test servername=hostname") // the policy was refreshed meanwhile, the hint is too old
		w.stop()
	})
}

func TestSTS083_NewID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", "version: STSv1\nmode: enforce\nmx: old.ex.test\nmax_age: 604800\n")
		w.want("ex.test", "OK secure match=old.ex.test servername=hostname") // row MM
		w.hosts.set("ex.test", enforceBody)
		w.dns.Set(`ad _mta-sts.ex.test 300 TXT "v=STSv1; id=2"`)
		w.want("ex.test", "OK secure match=old.ex.test servername=hostname")
		time.Sleep(301 * time.Second)
		w.want("ex.test", secureReply)
	})
}

func TestSTS094_Removal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.hosts.set("ex.test", "version: STSv1\nmode: none\nmax_age: 86400\n")
		w.dns.Set(`ad _mta-sts.ex.test 300 TXT "v=STSv1; id=2"`)
		time.Sleep(301 * time.Second)
		w.want("ex.test", "NOTFOUND ")
		w.dns.Set("ad nx _mta-sts.ex.test 300 TXT")
		w.hosts.set("ex.test", "")
		time.Sleep(301 * time.Second)
		w.want("ex.test", "NOTFOUND ")
		time.Sleep(86400 * time.Second)
		w.want("ex.test", "NOTFOUND ")
		if _, err := w.engine.Show("ex.test"); !errors.Is(err, ErrNotHeld) {
			t.Errorf("after its max_age the policy is still held: %v", err)
		}
	})
}

func TestCCH06_TinyMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "0"))
		w.want("ex.test", secureReply)
		time.Sleep(10 * time.Second)
		w.want("ex.test", secureReply)
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches in ten seconds", n)
		}
		time.Sleep(291 * time.Second)
		w.want("ex.test", secureReply)
		if n := w.hosts.gets(); n == 0 || n > 2 {
			t.Errorf("%d fetches after five minutes", n)
		}
	})
}

func TestSTS093_STS091_DailyRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		first, _ := w.engine.Show("ex.test")
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "*.ex.test", "other.ex.test"))
		w.dns.Set("servfail _mta-sts.ex.test TXT") // RFC 8461 §10.2: irrespective of the record
		time.Sleep(25 * time.Hour)
		w.want("ex.test", "OK secure match=other.ex.test servername=hostname")
		second, _ := w.engine.Show("ex.test")
		if !second.FetchedAt.After(first.FetchedAt) || second.ID != "1" {
			t.Errorf("after a refresh: %+v", second)
		}
		w.hosts.gets()
		time.Sleep(40 * 24 * time.Hour)
		if n := w.hosts.gets(); n < 13 || n > 22 {
			t.Errorf("CCH-05: %d refreshes in 40 days without a question", n)
		}
		w.want("ex.test", "NOTFOUND ") // expired, and the record cannot be seen
	})
}

func TestCMB13_OnlyQuestionsThatMatter(t *testing.T) {
	insecure := strings.ReplaceAll(strings.ReplaceAll(signedZone, "ad ", ""), "_mta-sts.ex.test 300 TXT \"v=STSv1; id=1\"", "nx _mta-sts.ex.test 300 TXT")
	plain := strings.ReplaceAll(signedZone, "ad _mta-sts.ex.test 300 TXT \"v=STSv1; id=1\"", "ad nx _mta-sts.ex.test 300 TXT")
	for _, c := range []struct {
		name, zone string
		change     func(*Config)
		want       []string
	}{
		{"dane", plain, settings(FloorDANE), []string{"TXT _mta-sts.ex.test"}},
		{"inherit", plain, settings(FloorInherit), []string{"A n1.ex.test", "AAAA n1.ex.test", "MX ex.test", "TLSA _25._tcp.n1.ex.test", "TXT _mta-sts.ex.test"}},
		{"inherit, insecure", insecure, settings(FloorInherit), []string{"A n1.ex.test", "AAAA n1.ex.test", "MX ex.test", "TXT _mta-sts.ex.test"}},
		{"encrypt, insecure", insecure, settings(FloorEncrypt), []string{"MX ex.test", "TXT _mta-sts.ex.test"}},
		{"dane off", plain, func(c *Config) { c.Settings.DANE = ModeOff }, []string{"TXT _mta-sts.ex.test"}},
		{"sts off", plain, func(c *Config) { c.Settings.STS = ModeOff }, []string{"A n1.ex.test", "AAAA n1.ex.test", "MX ex.test", "TLSA _25._tcp.n1.ex.test"}},
		{"both off", plain, func(c *Config) { c.Settings.STS, c.Settings.DANE = ModeOff, ModeOff }, nil},
		{"main.cf secure", plain, func(c *Config) { c.Postfix.Main = MainStronger }, []string{"TXT _mta-sts.ex.test"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, c.zone, c.change)
				defer w.stop()
				w.ask("ex.test")
				asked := w.dns.Asked()
				slices.Sort(asked)
				if !slices.Equal(asked, c.want) {
					t.Errorf("asked %q, want %q", asked, c.want)
				}
				w.ask("ex.test")
				if asked := w.dns.Asked(); len(asked) > 0 {
					t.Errorf("asked again within the TTL: %q", asked)
				}
			})
		})
	}
}

func TestCMB17_UnfinishedCountsAsFailed(t *testing.T) {
	tlsa := "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 " + strings.Repeat("ab", 32)
	for _, c := range []struct{ name, add, inherit, enforced string }{
		{"MX stalls", "hang ex.test MX", "NOTFOUND ", "OK secure match=.ex.test servername=hostname"},
		{"TLSA of one host stalls", "hang _25._tcp.n1.ex.test TLSA", "OK dane", "OK dane-only"},
		{"addresses stall", "hang n1.ex.test A\nhang n1.ex.test AAAA", "OK dane", "OK dane-only"},
		{"one of two stalls", tlsa + "\nad ex.test 300 MX 10 n1.ex.test\nad ex.test 300 MX 20 e1.ex.test\nhang e1.ex.test A\nhang e1.ex.test AAAA", "OK dane", "OK dane-only"},
		{"TXT stalls", tlsa + "\nhang _mta-sts.ex.test TXT", "OK dane", "OK dane"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, sts := range []bool{false, true} {
					w := start(t, signedZone, nil)
					want := c.inherit
					if w.dns.Set(c.add); sts {
						w.hosts.set("ex.test", enforceBody)
						want = c.enforced
					}
					begin := time.Now()
					w.want("ex.test", want)
					if took := time.Since(begin); took >= DefaultDeadline {
						t.Errorf("answered after %v", took)
					}
					w.stop()
				}
			})
		})
	}
}

func TestDANE039_EvidenceEndsWithItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 120 TLSA 3 1 1 "+strings.Repeat("ab", 32)), nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		w.dns.Set("ad nx _25._tcp.n1.ex.test 120 TLSA")
		time.Sleep(100 * time.Second)
		w.want("ex.test", "OK dane-only")
		time.Sleep(21 * time.Second)
		w.want("ex.test", secureReply)
	})
}
