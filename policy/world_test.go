package policy

import (
	"context"
	"errors"
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
	busy    bool // the address is taken by other fetches of ours
}

func (p *policyHosts) Fetch(ctx context.Context, domain string) (mtasts.Fetched, error) {
	p.mu.Lock()
	p.fetched = append(p.fetched, domain)
	body, ok := p.bodies[domain]
	delay, refuse, busy := p.delay, p.refuse, p.busy
	p.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return mtasts.Fetched{}, ctx.Err()
		}
	}
	if busy {
		return mtasts.Fetched{}, &mtasts.FetchError{Kind: mtasts.FetchFailed, Host: "mta-sts." + domain, Err: mtasts.ErrBusy}
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

const otherBody = "version: STSv1\nmode: enforce\nmx: other.ex.test\nmax_age: 604800\n"

const otherReply = "OK secure match=other.ex.test servername=hostname"
