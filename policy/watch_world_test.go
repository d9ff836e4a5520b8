package policy

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// mailWorld is a Reach over hosts that are data: what a host shows, and what was seen
// of it, by the rules that Reach documents.
type mailWorld struct {
	mu     sync.Mutex
	shows  map[string]ReachVerdict // by host; others do not answer
	expire map[string]time.Time    // of certificates
	strip  string
	took   time.Duration
	known  map[string]*sighting // by host and level
	probes []string             // hosts that were really asked
}

type sighting struct {
	HostReach
	fresh, since, negative, secured time.Time
}

func (m *mailWorld) show(host string, v ReachVerdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shows == nil {
		m.shows = map[string]ReachVerdict{}
	}
	m.shows[host] = v
}

// forget has every host asked anew by the next probe.
func (m *mailWorld) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.known {
		s.fresh = time.Time{}
	}
}

// asked returns the hosts probed since the last call.
func (m *mailWorld) asked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.probes
	m.probes = nil
	slices.Sort(p)
	return p
}

func (m *mailWorld) Probe(ctx context.Context, hosts []Demand, anew bool) Standing {
	for _, d := range hosts {
		if len(d.Addresses) == 0 {
			continue
		}
		m.mu.Lock()
		if m.known == nil {
			m.known = map[string]*sighting{}
		}
		key := d.Host + " " + d.Line.String()
		s := m.known[key]
		if s == nil {
			s = &sighting{}
			m.known[key] = s
		}
		if ask := anew || !time.Now().Before(s.fresh); ask {
			m.probes = append(m.probes, d.Host)
			m.look(s, d)
		}
		took := m.took
		m.mu.Unlock()
		select {
		case <-time.After(took):
		case <-ctx.Done():
		}
	}
	return m.Standing(hosts)
}

func (m *mailWorld) look(s *sighting, d Demand) {
	now := time.Now()
	s.HostReach = HostReach{Host: d.Host, Port: d.Port, Level: d.Line.Level.String(), Verdict: m.shows[d.Host], Address: d.Addresses[0].String(), At: now}
	switch s.Verdict {
	case ReachPositive:
		s.fresh, s.secured, s.Version, s.Expires = now.Add(6*time.Hour), now, "TLSv1.3", m.expire[d.Host]
		s.since, s.negative = time.Time{}, time.Time{}
	case ReachNegative:
		s.fresh = now.Add(10 * time.Minute)
		if s.since.IsZero() {
			s.since = now
		}
		s.negative, s.Stripped = now, m.strip
		s.Text = fmt.Sprintf("TLS is required, but was not offered by host %s[%s]", d.Host, s.Address)
	default:
		s.fresh = now.Add(2 * time.Minute)
	}
}

func (m *mailWorld) Standing(hosts []Demand) (t Standing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	positive, negative := 0, 0
	for _, d := range hosts {
		h := HostReach{Host: d.Host, Port: d.Port, Level: d.Line.Level.String()}
		if s := m.known[d.Host+" "+d.Line.String()]; s != nil {
			h = s.HostReach
			if s.secured.After(t.LastSecured) {
				t.LastSecured = s.secured
			}
			if t.LastNegative.IsZero() || s.negative.Before(t.LastNegative) {
				t.LastNegative = s.negative
			}
			if s.since.After(t.FirstNegative) {
				t.FirstNegative = s.since
			}
		}
		switch t.Hosts = append(t.Hosts, h); h.Verdict {
		case ReachPositive:
			positive++
		case ReachNegative:
			negative++
		}
	}
	switch {
	case positive > 0:
		t.Verdict = ReachPositive
	case negative == len(hosts):
		t.Verdict = ReachNegative
	}
	if t.Verdict != ReachNegative {
		t.FirstNegative, t.LastNegative = time.Time{}, time.Time{}
	}
	for _, s := range m.known {
		other := !slices.ContainsFunc(hosts, func(d Demand) bool { return d.Host == s.Host || containsText(d, s.Address) })
		if other && s.Verdict == ReachPositive && s.secured.After(t.OtherPositive) {
			t.OtherPositive = s.secured
		}
	}
	return t
}

func containsText(d Demand, address string) bool {
	for _, a := range d.Addresses {
		if a.String() == address {
			return true
		}
	}
	return false
}

// watchZone: three destinations with a mail host of their own, one with two, and what
// no mail goes to. Nobody validates it.
const watchZone = `
good.test 3600 MX 10 mx.good.test
mx.good.test 3600 A 192.0.2.1
nodata mx.good.test 3600 AAAA
bad.test 3600 MX 10 mx.bad.test
mx.bad.test 3600 A 192.0.2.2
nodata mx.bad.test 3600 AAAA
two.test 3600 MX 10 mx.bad.test
two.test 3600 MX 20 mx2.two.test
mx2.two.test 3600 A 192.0.2.3
nodata mx2.two.test 3600 AAAA
null.test 3600 MX 0 .
servfail lost.test MX
reference.test 3600 MX 10 mx.reference.test
mx.reference.test 3600 A 192.0.2.9
nodata mx.reference.test 3600 AAAA
`

// watching is a world with an engine that probes for these rules.
func watchWorld(t *testing.T, zone string, change func(*Config), rules ...Rule) (*world, *mailWorld) {
	t.Helper()
	rs, err := NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	m := &mailWorld{}
	w := start(t, zone, func(c *Config) {
		c.Settings.Rules, c.Settings.STS, c.Settings.DANE, c.Reach = rs, ModeOff, ModeOff, m
		if change != nil {
			change(c)
		}
	})
	return w, m
}

func unreachableRule(u Unreachable, after time.Duration, match ...string) Rule {
	return Rule{Match: match, Line: tlspolicy.Line{Level: tlspolicy.Encrypt}, Unreachable: u, RefuseAfter: after, Source: "test:" + match[0]}
}

func (w *world) rcpt(domain string) RecipientVerdict {
	return w.engine.Recipient([]byte("a@sender.test"), []byte(domain), time.Now())
}

func (w *world) wantAction(domain string, want RecipientAction) {
	w.t.Helper()
	if v := w.rcpt(domain); v.Action != want {
		w.t.Errorf("%s: %s (doubt %q, seen %q), want %s", domain, v.Action, v.Doubt, v.Seen, want)
	}
}
