package resolver_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

// validator is a server whose validation can be switched off and whose probes
// can go unanswered.
type validator struct {
	*resolvertest.Server
	strips, silent, fails atomic.Bool
	probes                atomic.Int64
}

func newValidator(t *testing.T, host string) *validator {
	v := &validator{}
	v.Server = (&resolvertest.Server{Host: host, Handler: func(q *query) *dns.Msg {
		if v.silent.Load() {
			return nil
		}
		if v.fails.Load() {
			return q.Fail(dns.RcodeServerFailure)
		}
		ad := !v.strips.Load()
		switch q.Type {
		case "NS":
			v.probes.Add(1)
			return q.Answer(ad, ". 60 NS a.root.test.")
		case "AAAA":
			return q.Deny(false, 0, "test", 60, 60) // an insecure zone
		}
		return q.Answer(ad, dns.Fqdn(q.Name)+" 60 A 192.0.2.1")
	}}).Start(t)
	return v
}

func TestDANE001_WhoseADCounts(t *testing.T) {
	remote := resolver.Config{Servers: []string{"8.8.8.8"}}
	for name, c := range map[string]struct {
		cfg  resolver.Config
		want bool
		text string
	}{
		"remote, default":    {remote, true, "no name server counts as validating: 8.8.8.8:53 not in trust_ad = loopback; run a validating resolver on this host (on Debian: apt install unbound, and nameserver 127.0.0.1 first in /etc/resolv.conf); or, "},
		"remote, always":     {resolver.Config{Servers: remote.Servers, TrustAD: trust(t, "always")}, false, ""},
		"remote, listed":     {resolver.Config{Servers: remote.Servers, TrustAD: trust(t, []any{"8.8.8.0/24"})}, false, ""},
		"remote, not listed": {resolver.Config{Servers: remote.Servers, TrustAD: trust(t, []string{"8.8.4.4"})}, true, "not in trust_ad = 8.8.4.4"},
		"loopback":           {resolver.Config{Servers: []string{"127.0.0.53"}}, false, ""},
		"loopback, IPv6":     {resolver.Config{Servers: []string{"::1"}}, false, ""},
		"loopback, mapped":   {resolver.Config{Servers: []string{"::ffff:127.0.0.1"}}, false, ""},
		"loopback, never":    {resolver.Config{Servers: []string{"::1"}, TrustAD: trust(t, "never")}, true, `trust_ad = "never"`},
		"Docker":             {resolver.Config{Servers: []string{"127.0.0.11"}}, true, "Docker's embedded DNS"},
		"Docker, always":     {resolver.Config{Servers: []string{"127.0.0.11"}, TrustAD: trust(t, "always")}, false, ""},
		"one of two":         {resolver.Config{Servers: []string{"8.8.8.8", "127.0.0.1"}}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := resolver.New(c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if is, why := r.Suspended(); is != c.want || !strings.Contains(why, c.text) || is != (why != "") {
				t.Errorf("%v, %q", is, why)
			}
		})
	}
	// And AD from such a server does not get through.
	v := newValidator(t, "")
	r := start(t, resolver.Config{Servers: []string{v.Addr()}, TrustAD: trust(t, "never"), Probe: "ns:."}, true)
	r.Ready(t.Context())
	a, err := r.A(t.Context(), "ex.test")
	if err != nil || a.Authentic || a.Proven || len(a.Records) != 1 || v.probes.Load() != 0 {
		t.Errorf("%+v, %v, %d probes", a, err, v.probes.Load())
	}
}

func TestDANE004_ProbeAtStart(t *testing.T) {
	v := newValidator(t, "")
	r := start(t, resolver.Config{Servers: []string{v.Addr()}, Probe: "ns:."}, true)
	r.Ready(t.Context())
	if st := r.Status(); st.Suspended || st.Servers[0].State != resolver.Proven || st.Servers[0].LastProbe.IsZero() || !st.Servers[0].Trusted {
		t.Errorf("%+v", st)
	}
	// An insecure answer of a proven server is an answer.
	if a, err := r.AAAA(t.Context(), "ex.test"); err != nil || a.Authentic || !a.Proven {
		t.Errorf("%+v, %v", a, err)
	}
}

// The state is settled when Ready returns: the second probe follows at once.
func TestDANE004_ResolverStripsAD(t *testing.T) {
	v := newValidator(t, "")
	v.strips.Store(true)
	var log journal
	r, err := resolver.New(resolver.Config{Servers: []string{v.Addr()}, Probe: "ns:.", Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, r)
	r.Ready(t.Context())
	is, why := r.Suspended()
	if !is || v.probes.Load() != 2 {
		t.Fatalf("%v after %d probes", is, v.probes.Load())
	}
	for _, cause := range []string{v.Addr(), "ns:.", "trust-ad", "musl", "proxy-dnssec", "blocky", "Docker", "dig"} {
		if !strings.Contains(why, cause) {
			t.Errorf("%q is not named in: %s", cause, why)
		}
	}
	// Answers still come, for MTA-STS, and are worth nothing for DANE, whatever
	// their AD bit.
	a, err := r.A(t.Context(), "ex.test")
	if err != nil || a.Authentic || a.Proven || len(a.Records) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	if n := log.count("DANE is suspended, MTA-STS goes on: "); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// run runs r with the usual schedule until the test ends.
func run(t *testing.T, r *resolver.Resolver) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestDANE004_LostAndFoundAgain(t *testing.T) {
	v := newValidator(t, "")
	var log journal
	r := start(t, resolver.Config{Servers: []string{v.Addr()}, Probe: "ns:.", Logger: log.logger()}, true)
	r.Ready(t.Context())
	suspended := func() bool { is, _ := r.Suspended(); return is }
	if suspended() {
		t.Fatal("suspended from the start")
	}
	v.strips.Store(true)
	eventually(t, "suspended", suspended)
	seen := v.probes.Load()
	eventually(t, "more probes", func() bool { return v.probes.Load() > seen+3 })
	v.strips.Store(false)
	eventually(t, "proven again", func() bool { return !suspended() })
	if a, err := r.A(t.Context(), "ex.test"); err != nil || !a.Authentic || !a.Proven {
		t.Errorf("%+v, %v", a, err)
	}
	if lost, found := log.count("DANE is suspended, MTA-STS goes on: "), log.count("DANE is no longer suspended"); lost != 1 || found != 1 {
		t.Errorf("told %d and %d times", lost, found)
	}
}

// Only a probe lifts a suspension: an answer with AD to anything else may come
// from a forwarder that drops AD at times.
func TestDANE004_OrdinaryAnswersDoNotLiftASuspension(t *testing.T) {
	s := serve(t, func(q *query) *dns.Msg {
		if q.Type == "NS" {
			return q.Answer(false, ". 60 NS a.root.test.")
		}
		return found(q)
	})
	r := start(t, resolver.Config{Servers: []string{s.Addr()}, Probe: "ns:."}, true)
	r.Ready(t.Context())
	a, err := r.A(t.Context(), "ex.test")
	if is, _ := r.Suspended(); err != nil || a.Authentic || a.Proven || !is {
		t.Errorf("%+v, %v, suspended %v", a, err, is)
	}
}

func TestDANE004_SilenceChangesNothing(t *testing.T) {
	v := newValidator(t, "")
	r := start(t, resolver.Config{Servers: []string{v.Addr()}, Probe: "ns:.", Timeout: 300 * time.Millisecond}, true)
	r.Ready(t.Context())
	for name, failure := range map[string]*atomic.Bool{"silence": &v.silent, "SERVFAIL": &v.fails} {
		failure.Store(true)
		before := v.Count()
		eventually(t, "probes went unanswered", func() bool { return v.Count() > before+4 })
		if st := r.Status(); st.Suspended || st.Servers[0].State != resolver.Proven || st.Servers[0].LastError == "" {
			t.Errorf("%s: %+v", name, st)
		}
		if _, err := r.A(t.Context(), "ex.test"); err == nil {
			t.Errorf("%s: an answer", name)
		}
		failure.Store(false)
	}
}

// Before it is proven, an insecure answer means nothing; the first with AD
// proves the server, without Run as well.
func TestDANE004_UnknownUntilTheFirstAD(t *testing.T) {
	v := newValidator(t, "")
	r := start(t, resolver.Config{Servers: []string{v.Addr()}, Probe: "ns:."}, false)
	if a, err := r.AAAA(t.Context(), "ex.test"); err != nil || a.Proven || a.Authentic {
		t.Errorf("unknown: %+v, %v", a, err)
	}
	if st := r.Status(); st.Suspended || st.Servers[0].State != resolver.Unknown {
		t.Errorf("%+v", st)
	}
	if a, err := r.A(t.Context(), "ex.test"); err != nil || !a.Proven || !a.Authentic {
		t.Errorf("first AD: %+v, %v", a, err)
	}
	if a, err := r.AAAA(t.Context(), "ex.test"); err != nil || !a.Proven || a.Authentic {
		t.Errorf("proven: %+v, %v", a, err)
	}
}

// Whoever overloads the validating server must not switch DANE off: the answer
// of the other server counts as unproven, never as insecure.
func TestDANE004_OverloadedValidatorIsNoInsecureAnswer(t *testing.T) {
	v, other := newValidator(t, ""), newValidator(t, "127.0.0.2")
	r := start(t, resolver.Config{
		Servers: []string{other.Addr(), v.Addr()}, TrustAD: trust(t, "127.0.0.1"), Probe: "ns:.",
	}, true)
	r.Ready(t.Context())
	// The trusted one is asked first, although it stands behind.
	if a, err := r.A(t.Context(), "ex.test"); err != nil || a.Server != v.Addr() || !a.Authentic {
		t.Errorf("%+v, %v", a, err)
	}
	v.fails.Store(true)
	a, err := r.A(t.Context(), "ex.test")
	if err != nil || a.Server != other.Addr() || a.Authentic || a.Proven {
		t.Errorf("%+v, %v", a, err)
	}
	if is, why := r.Suspended(); is {
		t.Error(why)
	}
	if other.probes.Load() != 0 {
		t.Error("an untrusted server is probed")
	}
}

func TestDANE004_SuspendedOnlyWhenAllAre(t *testing.T) {
	a, b := newValidator(t, ""), newValidator(t, "")
	a.strips.Store(true)
	var log journal
	r := start(t, resolver.Config{Servers: []string{a.Addr(), b.Addr()}, Probe: "ns:.", Logger: log.logger()}, true)
	r.Ready(t.Context())
	st := r.Status()
	if st.Suspended || st.Servers[0].State != resolver.Suspended || st.Servers[1].State != resolver.Proven {
		t.Errorf("%+v", st)
	}
	if n := log.count("does not validate"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if ans, err := r.A(t.Context(), "ex.test"); err != nil || ans.Server != b.Addr() || !ans.Authentic {
		t.Errorf("%+v, %v", ans, err)
	}
	b.strips.Store(true)
	eventually(t, "suspended", func() bool { is, _ := r.Suspended(); return is })
	if _, why := r.Suspended(); !strings.Contains(why, a.Addr()) || !strings.Contains(why, b.Addr()) {
		t.Error(why)
	}
}

func TestReadyReturns(t *testing.T) {
	unprobed := ask(t, zone(t, ""))
	unprobed.Ready(t.Context())
	r := start(t, resolver.Config{Servers: []string{serve(t, drop).Addr()}, Probe: "ns:."}, false)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	r.Ready(ctx) // nobody runs it
	if ctx.Err() == nil {
		t.Error("ready without a probe")
	}
	silent := start(t, resolver.Config{Servers: []string{serve(t, drop).Addr()}, Probe: "ns:.", Timeout: 50 * time.Millisecond}, true)
	silent.Ready(t.Context())
}

func TestReconfigureRefusesBadConfigurations(t *testing.T) {
	old := newValidator(t, "")
	cfg := resolver.Config{Servers: []string{old.Addr()}, Probe: "ns:."}
	r := start(t, cfg, true)
	r.Ready(t.Context())
	for name, bad := range map[string]resolver.Config{
		"server": {Servers: []string{"dns.example"}}, "probe": {Servers: cfg.Servers, Probe: "ns"}, "timeout": {Servers: cfg.Servers, Timeout: -1},
	} {
		if err := r.Reconfigure(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if st := r.Status(); st.Servers[0].Address != old.Addr() || st.Servers[0].State != resolver.Proven {
		t.Errorf("a bad configuration changed something: %+v", st)
	}
}

func TestReconfigureWhileAsking(t *testing.T) {
	old, next := newValidator(t, ""), newValidator(t, "")
	cfg := resolver.Config{Servers: []string{old.Addr()}, Probe: "ns:."}
	r := start(t, cfg, true)
	// A question under way ends as it began.
	asked, release := make(chan struct{}), make(chan struct{})
	slow := serve(t, func(q *query) *dns.Msg {
		close(asked)
		<-release
		return found(q)
	})
	if err := r.Reconfigure(resolver.Config{Servers: []string{slow.Addr()}, Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		a, err := r.A(context.Background(), "ex.test")
		if err == nil && a.Server != slow.Addr() {
			t.Errorf("%+v", a)
		}
		result <- err
	}()
	<-asked
	if err := r.Reconfigure(resolver.Config{Servers: []string{next.Addr(), old.Addr()}, Probe: "ns:."}); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-result; err != nil {
		t.Error(err)
	}
	r.Ready(t.Context())
	st := r.Status()
	if len(st.Servers) != 2 || st.Servers[0].Address != next.Addr() || st.Servers[0].State != resolver.Proven {
		t.Errorf("%+v", st)
	}
	// The state stays with the server while the server stays.
	old.strips.Store(true)
	eventually(t, "old suspended", func() bool { return r.Status().Servers[1].State == resolver.Suspended })
	if err := r.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
	if is, _ := r.Suspended(); !is {
		t.Error("a reload forgets that a server does not validate")
	}
	if err := r.Reconfigure(resolver.Config{Servers: cfg.Servers, TrustAD: trust(t, "never"), Probe: "ns:."}); err != nil {
		t.Fatal(err)
	}
	if is, why := r.Suspended(); !is || !strings.Contains(why, "never") {
		t.Errorf("%v, %s", is, why)
	}
}

func TestResolvConfIsWatched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	servers := func(r *resolver.Resolver) (list []string) {
		for _, s := range r.Status().Servers {
			list = append(list, s.Address)
		}
		return list
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log journal
	r := start(t, resolver.Config{ResolvConf: path, Logger: log.logger()}, true)
	becomes := func(what string, want ...string) {
		t.Helper()
		eventually(t, what, func() bool { return slices.Equal(servers(r), want) })
	}
	becomes("the host itself while there is no file", "127.0.0.1:53")
	write("# made\nnameserver 192.0.2.1\n")
	becomes("a file that appears", "192.0.2.1:53")
	write("nameserver 192.0.2.2\nnameserver bad\n nameserver 2001:db8::1 # two\noptions trust-ad\n")
	becomes("an edit in place", "192.0.2.2:53", "[2001:db8::1]:53")
	if err := os.WriteFile(path+".new", []byte("nameserver 127.0.0.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	becomes("a rename", "127.0.0.53:53")
	write("search ex.test\n")
	eventually(t, "told", func() bool { return log.count("the name servers stay") == 1 })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told again", func() bool { return log.count("the name servers stay") == 2 })
	becomes("the old ones while the file is empty or gone", "127.0.0.53:53")
	if err := r.Reconfigure(resolver.Config{ResolvConf: path}); err != nil {
		t.Fatal(err)
	}
	becomes("the old ones after a reload too", "127.0.0.53:53")
}

func TestStatusInJSON(t *testing.T) {
	r := start(t, resolver.Config{Servers: []string{"127.0.0.1:5353"}, TrustAD: trust(t, []string{"192.0.2.0/24"}), Probe: "ns:."}, false)
	b, err := json.Marshal(r.Status())
	want := `{"servers":[{"address":"127.0.0.1:5353","trusted":false,"state":"untrusted"}],"trust_ad":"192.0.2.0/24","probe":"ns:.","suspended":true,"reason":`
	if err != nil || !strings.HasPrefix(string(b), want) {
		t.Errorf("%s, %v", b, err)
	}
}
