package resolver_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

type query = resolvertest.Query

func serve(t *testing.T, handler func(q *query) *dns.Msg) *resolvertest.Server {
	return (&resolvertest.Server{Handler: handler}).Start(t)
}

// found answers every A question with one address.
func found(q *query) *dns.Msg { return q.Answer(true, dns.Fqdn(q.Name)+" 60 A 192.0.2.1") }

func drop(*query) *dns.Msg { return nil }

// failing is a server of each kind, and what is said of it.
var failing = map[string]struct {
	handler func(q *query) *dns.Msg
	want    error
	text    string
}{
	"timeout":           {drop, resolver.ErrTimeout, "gave no answer in time"},
	"servfail":          {rcode(dns.RcodeServerFailure), resolver.ErrServFail, "answered SERVFAIL"},
	"refused":           {rcode(dns.RcodeRefused), resolver.ErrRefused, "answered REFUSED"},
	"notimp":            {rcode(dns.RcodeNotImplemented), resolver.ErrRefused, "answered NOTIMP"},
	"formerr":           {rcode(dns.RcodeFormatError), resolver.ErrRefused, "answered FORMERR"},
	"yxdomain":          {rcode(dns.RcodeYXDomain), resolver.ErrRefused, "answered YXDOMAIN"},
	"unknown":           {rcode(13), resolver.ErrRefused, "unknown code 13"},
	"malformed":         {packet(func(p []byte) []byte { return p[:len(p)-1] }), resolver.ErrMalformed, "malformed"},
	"question left out": {packet(headerOnly), resolver.ErrRefused, "answered FORMERR"},
	"extended code": {func(q *query) *dns.Msg {
		m := q.Answer(true)
		m.SetEdns0(1232, true)
		m.Rcode = dns.RcodeBadVers
		return m
	}, resolver.ErrRefused, "answered BADVERS"},
	"referral": {func(q *query) *dns.Msg {
		m := q.Answer(false)
		m.RecursionAvailable = false
		m.Ns = q.Answer(false, ". 60 NS a.root-servers.net.").Answer
		return m
	}, resolver.ErrRefused, "does not resolve for us"},
	"nxdomain with records": {func(q *query) *dns.Msg {
		m := found(q)
		m.Rcode = dns.RcodeNameError
		return m
	}, resolver.ErrMalformed, "NXDOMAIN with records"},
}

func rcode(code int) func(q *query) *dns.Msg {
	return func(q *query) *dns.Msg { return q.Fail(code) }
}

func packet(change func(packet []byte) []byte) func(q *query) *dns.Msg {
	return func(q *query) *dns.Msg {
		b, err := found(q).Pack()
		if err != nil {
			panic(err)
		}
		q.SendRaw(change(b))
		return nil
	}
}

func headerOnly(p []byte) []byte { return []byte{p[0], p[1], 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0} }

func TestDANE003_FailOver(t *testing.T) {
	for name, c := range failing {
		t.Run(name, func(t *testing.T) {
			bad, good := serve(t, c.handler), serve(t, found)
			r := start(t, resolver.Config{Servers: addresses([]*resolvertest.Server{bad, good}), Timeout: 400 * time.Millisecond}, false)
			a, err := r.A(t.Context(), "ex.test")
			if err != nil || a.Server != good.Addr() || bad.Count() == 0 {
				t.Errorf("%+v, %v", a, err)
			}
			alone := start(t, resolver.Config{Servers: []string{bad.Addr()}, Timeout: 400 * time.Millisecond}, false)
			_, err = alone.A(t.Context(), "ex.test")
			var e *resolver.Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Server != bad.Addr() || e.Name != "ex.test" || e.Type != "A" {
				t.Fatalf("%+v", err)
			}
			if text := err.Error(); !strings.HasPrefix(text, "A ex.test: "+bad.Addr()+" ") || !strings.Contains(text, c.text) {
				t.Errorf("text: %s", text)
			}
		})
	}
}

func TestUnreachableServersAreLeftAtOnce(t *testing.T) {
	closed := serve(t, drop)
	addr := closed.Addr()
	closed.Close()
	good := serve(t, found)
	r := start(t, resolver.Config{Servers: []string{addr, good.Addr()}, Timeout: 20 * time.Second}, false)
	if a, err := r.A(t.Context(), "ex.test"); err != nil || a.Server != good.Addr() {
		t.Errorf("%+v, %v", a, err)
	}
	alone := start(t, resolver.Config{Servers: []string{addr}, Timeout: 20 * time.Second}, false)
	if _, err := alone.A(t.Context(), "ex.test"); !errors.Is(err, resolver.ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}

func TestAllFailuresAreTold(t *testing.T) {
	a, b := serve(t, func(q *query) *dns.Msg { return q.Fail(dns.RcodeServerFailure) }), serve(t, func(q *query) *dns.Msg { return q.Fail(dns.RcodeRefused) })
	_, err := ask(t, a, b).MX(t.Context(), "ex.test")
	want := "MX ex.test: " + a.Addr() + " answered SERVFAIL; " + b.Addr() + " answered REFUSED"
	if err == nil || err.Error() != want || !errors.Is(err, resolver.ErrServFail) || errors.Is(err, resolver.ErrRefused) {
		t.Errorf("%v; want %s", err, want)
	}
	if got := slices.Concat(a.Asked(), b.Asked()); len(got) != 2 {
		t.Errorf("a failure is final for a server, but asked %q", got)
	}
}

// A server that lost the packet is asked a second time, with more time.
func TestLostPacketsAreSentAgain(t *testing.T) {
	var mu sync.Mutex
	n := 0
	s := serve(t, func(q *query) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 1 {
			return nil
		}
		return found(q)
	})
	r := start(t, resolver.Config{Servers: []string{s.Addr()}, Timeout: 800 * time.Millisecond}, false)
	if a, err := r.A(t.Context(), "ex.test"); err != nil || len(a.Records) != 1 || s.Count() != 2 {
		t.Errorf("%+v, %v, %d packets", a, err, s.Count())
	}
}

// What is not a reply to the question is read over, RFC 5452 §9.1.
func TestForeignRepliesAreReadOver(t *testing.T) {
	for name, change := range map[string]func(m *dns.Msg){
		"id":              func(m *dns.Msg) { m.Id++ },
		"name":            func(m *dns.Msg) { m.Question[0].Name = "evil.test." },
		"type":            func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		"class":           func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"not a reply":     func(m *dns.Msg) { m.Response = false },
		"opcode":          func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"no question":     func(m *dns.Msg) { m.Question = nil },
		"two questions":   func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"servfail for id": func(m *dns.Msg) { m.Id++; m.Rcode = dns.RcodeServerFailure },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(q *query) *dns.Msg {
				evil := q.Answer(true, dns.Fqdn(q.Name)+" 60 A 203.0.113.66")
				evil.Question = slices.Clone(evil.Question)
				change(evil)
				packet, err := evil.Pack()
				if err != nil {
					t.Error(err)
				}
				q.SendRaw(packet)
				q.SendRaw([]byte{1, 2, 3})
				q.SendRaw(nil)
				return found(q)
			})
			r := ask(t, s)
			for range 3 { // the socket is used again, with what is left in it
				a, err := r.A(t.Context(), "ex.test")
				if err != nil || len(a.Records) != 1 || a.Records[0].String() != "192.0.2.1" {
					t.Fatalf("%+v, %v", a, err)
				}
			}
			if s.Count() != 3 {
				t.Errorf("%d packets", s.Count())
			}
		})
	}
}

func TestLetterCaseOfTheQuestionDoesNotMatter(t *testing.T) {
	s := serve(t, func(q *query) *dns.Msg {
		m := q.Answer(true, "EX.Test. 60 A 192.0.2.1")
		m.Question = slices.Clone(m.Question)
		m.Question[0].Name = "eX.tEST."
		return m
	})
	if a, err := ask(t, s).A(t.Context(), "ex.test"); err != nil || len(a.Records) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

// A duplicate of a reply comes late, to a socket that asks something else by then.
func TestLateRepliesDoNotMatch(t *testing.T) {
	s := serve(t, func(q *query) *dns.Msg {
		if q.Name == "first.test" {
			q.Send(q.Answer(true, "first.test. 60 A 203.0.113.1"))
			return q.Answer(true, "first.test. 60 A 203.0.113.1")
		}
		return found(q)
	})
	r := ask(t, s)
	for range 50 {
		if a, err := r.A(t.Context(), "first.test"); err != nil || a.Records[0].String() != "203.0.113.1" {
			t.Fatalf("%+v, %v", a, err)
		}
		if a, err := r.A(t.Context(), "second.test"); err != nil || a.Records[0].String() != "192.0.2.1" {
			t.Fatalf("%+v, %v", a, err)
		}
	}
}

func TestSTS023_TruncatedWithoutTCP(t *testing.T) {
	tc := func(q *query) *dns.Msg {
		m := q.Answer(true)
		m.Truncated = true
		return m
	}
	closed := (&resolvertest.Server{Handler: tc, NoTCP: true}).Start(t)
	_, err := ask(t, closed).TXT(t.Context(), "ex.test")
	if !errors.Is(err, resolver.ErrTruncated) {
		t.Errorf("TCP closed: %v", err)
	}
	again := serve(t, tc)
	if _, err = ask(t, again).TXT(t.Context(), "ex.test"); !errors.Is(err, resolver.ErrTruncated) {
		t.Errorf("TC over TCP: %v", err)
	}
	mute := serve(t, func(q *query) *dns.Msg {
		if q.TCP {
			q.Wait(time.Minute)
			return nil
		}
		return tc(q)
	})
	r := start(t, resolver.Config{Servers: []string{mute.Addr()}, Timeout: 400 * time.Millisecond}, false)
	if _, err = r.TXT(t.Context(), "ex.test"); !errors.Is(err, resolver.ErrTruncated) {
		t.Errorf("silence over TCP: %v", err)
	}
	wrong := serve(t, func(q *query) *dns.Msg {
		m := tc(q)
		if m.Truncated = !q.TCP; q.TCP {
			m.Id++
		}
		return m
	})
	if _, err = ask(t, wrong).TXT(t.Context(), "ex.test"); !errors.Is(err, resolver.ErrMalformed) {
		t.Errorf("wrong id over TCP: %v", err)
	}
}

func TestCancellationIsHonouredAtOnce(t *testing.T) {
	silent := serve(t, drop)
	tcp := serve(t, func(q *query) *dns.Msg {
		if q.TCP {
			q.Wait(time.Minute)
			return nil
		}
		m := q.Answer(true)
		m.Truncated = true
		return m
	})
	for name, s := range map[string]*resolvertest.Server{"udp": silent, "tcp": tcp} {
		t.Run(name, func(t *testing.T) {
			r := start(t, resolver.Config{Servers: []string{s.Addr()}, Timeout: time.Minute}, false)
			ctx, cancel := context.WithCancel(t.Context())
			before := s.Count()
			result := make(chan error)
			go func() {
				_, err := r.A(ctx, "ex.test")
				result <- err
			}()
			eventually(t, "asked", func() bool { return s.Count() > before })
			begin := time.Now()
			cancel()
			if err := <-result; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if d := time.Since(begin); d > 5*time.Second { // not the minute
				t.Errorf("it took %v", d)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := silent.Count()
	if _, err := ask(t, silent).A(ctx, "ex.test"); !errors.Is(err, context.Canceled) || silent.Count() != before {
		t.Errorf("cancelled before: %v, %d packets", err, silent.Count()-before)
	}
}

func TestDeadlineOfTheCaller(t *testing.T) {
	r := start(t, resolver.Config{Servers: []string{serve(t, drop).Addr()}, Timeout: time.Minute}, false)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.A(ctx, "ex.test")
	if !errors.Is(err, resolver.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestQuestionsUnderWayAreBounded(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(q *query) *dns.Msg {
		<-release
		return found(q)
	})
	r := start(t, resolver.Config{Servers: []string{s.Addr()}, Timeout: time.Minute}, false)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	for n := range resolver.MaxInFlight {
		wg.Go(func() {
			if _, err := r.A(context.Background(), "ex.test"); err != nil {
				t.Error(err)
			}
		})
		if n%32 == 31 { // not more than the receive buffer of the kernel holds
			eventually(t, "all asked", func() bool { return s.Count() == n+1 })
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.A(ctx, "one.more.test"); !errors.Is(err, resolver.ErrTimeout) {
		t.Error(err)
	}
	if s.Count() != resolver.MaxInFlight {
		t.Errorf("%d packets", s.Count())
	}
}

// A server that has failed goes behind its equals for some seconds; one that keeps
// silent goes behind all, but one question at a time still finds out whether it is
// back.
func TestServersThatFailGoBehind(t *testing.T) {
	const briefly = 4 * time.Second // less than it stays behind
	for began := time.Now(); ; began = time.Now() {
		bad, good := serve(t, func(q *query) *dns.Msg { return q.Fail(dns.RcodeServerFailure) }), serve(t, found)
		r := start(t, resolver.Config{Servers: addresses([]*resolvertest.Server{bad, good}), Timeout: time.Minute}, false)
		for range 5 {
			if _, err := r.A(t.Context(), "ex.test"); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(began) > briefly {
			continue // a slow machine: it may have taken its place again meanwhile
		}
		if bad.Count() != 1 || good.Count() != 5 {
			t.Errorf("asked %d and %d times", bad.Count(), good.Count())
		}
		return
	}
}

func TestDANE004_SilentValidatingServerIsWaitedForThenPassedOver(t *testing.T) {
	silent := serve(t, drop)
	other := (&resolvertest.Server{Host: "127.0.0.2", Handler: found}).Start(t)
	r := start(t, resolver.Config{
		Servers: addresses([]*resolvertest.Server{silent, other}), TrustAD: trust(t, "127.0.0.1"), Timeout: 300 * time.Millisecond,
	}, false)
	for range 4 {
		a, err := r.A(t.Context(), "ex.test")
		if err != nil || a.Proven || a.Authentic || a.Server != other.Addr() {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	// Two rounds for each of three look-ups; then it is down.
	if n := silent.Count(); n != 6 {
		t.Errorf("the silent server was asked %d times", n)
	}
	if is, why := r.Suspended(); is {
		t.Errorf("silence suspends: %s", why)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := zone(t, "ad ex.test 60 A 192.0.2.1\nservfail ex.test MX\nad . 60 NS a.root.test")
	r := start(t, resolver.Config{Servers: []string{s.Addr()}, Registerer: reg, Probe: "ns:.", Timeout: time.Minute}, false)
	if _, err := r.A(t.Context(), "ex.test"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.MX(t.Context(), "ex.test"); err == nil {
		t.Fatal("SERVFAIL is no error")
	}
	err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP postseal_dns_failures_total Questions that a name server did not answer, by cause.
# TYPE postseal_dns_failures_total counter
postseal_dns_failures_total{cause="cancelled"} 0
postseal_dns_failures_total{cause="chain"} 0
postseal_dns_failures_total{cause="malformed"} 0
postseal_dns_failures_total{cause="refused"} 0
postseal_dns_failures_total{cause="servfail"} 1
postseal_dns_failures_total{cause="timeout"} 0
postseal_dns_failures_total{cause="truncated"} 0
postseal_dns_failures_total{cause="unreachable"} 0
# HELP postseal_dns_questions_total Questions put to name servers, every attempt counted, by type of record.
# TYPE postseal_dns_questions_total counter
postseal_dns_questions_total{type="A"} 1
postseal_dns_questions_total{type="AAAA"} 0
postseal_dns_questions_total{type="CNAME"} 0
postseal_dns_questions_total{type="MX"} 1
postseal_dns_questions_total{type="PTR"} 0
postseal_dns_questions_total{type="TLSA"} 0
postseal_dns_questions_total{type="TXT"} 0
postseal_dns_questions_total{type="probe"} 0
# HELP postseal_resolver_server_state Per name server: 0 its AD bit does not count, 1 it has not been seen yet, 2 proven to validate, 3 suspended.
# TYPE postseal_resolver_server_state gauge
postseal_resolver_server_state{server="`+s.Addr()+`"} 2
# HELP postseal_resolver_validates 1 while there is a trusted name server not known to be without validation, 0 while DANE is suspended.
# TYPE postseal_resolver_validates gauge
postseal_resolver_validates 1
`))
	if err != nil {
		t.Error(err)
	}
	if _, err := resolver.New(resolver.Config{Servers: []string{s.Addr()}, Registerer: reg}); err == nil {
		t.Error("a second Resolver with the same registry is no error")
	}
	next := zone(t, "")
	if err := r.Reconfigure(resolver.Config{Servers: []string{next.Addr()}, TrustAD: trust(t, "never")}); err != nil {
		t.Fatal(err)
	}
	if n := testutil.CollectAndCount(reg, "postseal_resolver_server_state"); n != 1 {
		t.Errorf("%d servers are shown", n)
	}
}
