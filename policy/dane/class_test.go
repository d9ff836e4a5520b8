package dane_test

import (
	"testing"

	"github.com/postseal/postseal/policy/dane"
)

// unseen stands for a host that was not looked up.
const unseen = dane.Status(255)

// sets are the host sets of docs/decision-table.md, by their definitions.
type sets struct {
	h, x, u, n int
	secureTLSA bool // a host has secure TLSA records
	allUnfit   bool // a host has secure TLSA records, all unusable
}

func sorted(hosts []dane.Status, truncated bool) sets {
	var s sets
	if truncated {
		hosts = append(append([]dane.Status{}, hosts...), dane.Failed) // the unknown remainder counts as one
	}
	for _, st := range hosts {
		in := map[byte]bool{}
		in['h'] = st != dane.Unreachable
		in['x'] = in['h'] && (st == dane.Failed || st == unseen)
		in['u'] = in['h'] && !in['x'] && st == dane.Usable
		in['n'] = in['h'] && !in['x'] && !in['u']
		for set, count := range map[byte]*int{'h': &s.h, 'x': &s.x, 'u': &s.u, 'n': &s.n} {
			if in[set] {
				*count++
			}
		}
		s.secureTLSA = s.secureTLSA || st == dane.Usable || st == dane.Unusable
		s.allUnfit = s.allUnfit || st == dane.Unusable
	}
	return s
}

// classRows restates the class definitions of docs/decision-table.md, first row first.
var classRows = []struct {
	class   dane.Class
	applies func(e dane.Evidence, s sets) bool
}{
	{dane.DX, func(e dane.Evidence, s sets) bool { return e.Suspended }},
	{dane.D4, func(e dane.Evidence, s sets) bool { return e.MX.Err != "" || e.MX.Unproven }},
	{dane.D5, func(e dane.Evidence, s sets) bool { return !e.MX.Secure && s.secureTLSA }},
	{dane.D0, func(e dane.Evidence, s sets) bool { return !e.MX.Secure && !s.secureTLSA }},
	{dane.D3, func(e dane.Evidence, s sets) bool { return e.MX.Secure && s.x > 0 }},
	{dane.D1, func(e dane.Evidence, s sets) bool { return e.MX.Secure && s.x == 0 && s.h > 0 && s.u == s.h }},
	{dane.D2, func(e dane.Evidence, s sets) bool { return e.MX.Secure && s.x == 0 && s.u > 0 && s.n > 0 }},
	{dane.D2u, func(e dane.Evidence, s sets) bool { return e.MX.Secure && s.x == 0 && s.u == 0 && s.allUnfit }},
	{dane.D0, func(e dane.Evidence, s sets) bool { return e.MX.Secure && !s.secureTLSA && s.x == 0 }},
}

func restated(t *testing.T, e dane.Evidence, hosts []dane.Status) dane.Class {
	s := sorted(hosts, e.MX.Truncated)
	for _, row := range classRows {
		if row.applies(e, s) {
			return row.class
		}
	}
	t.Fatalf("no row for %+v", e)
	return 0
}

// TestClass goes through every combination of up to three hosts, MX answers,
// truncation and suspension.
func TestClass(t *testing.T) {
	statuses := []dane.Status{dane.Failed, dane.Unreachable, dane.None, dane.Unusable, dane.Usable, unseen}
	combinations := [][]dane.Status{{}}
	for from := 0; len(combinations[from]) < 3; from++ {
		for _, s := range statuses {
			combinations = append(combinations, append(append([]dane.Status{}, combinations[from]...), s))
		}
	}
	answers := []dane.MXSet{{Secure: true}, {}, {Err: "SERVFAIL"}, {Unproven: true}}
	seen := map[dane.Class]int{}
	for _, hosts := range combinations {
		for _, mx := range answers {
			for bits := range 4 {
				e := dane.Evidence{MX: mx, Suspended: bits&1 != 0}
				e.MX.Truncated = bits&2 != 0
				for _, s := range hosts {
					e.MX.Hosts = append(e.MX.Hosts, dane.Exchanger{Name: "mx.ex.test"})
					var h *dane.Host
					if s != unseen {
						h = &dane.Host{Status: s}
					}
					e.Hosts = append(e.Hosts, h)
				}
				got, want := e.Class(), restated(t, e, hosts)
				if got != want {
					t.Errorf("%v, MX %+v, suspended %v: class %v, want %v", hosts, e.MX, e.Suspended, got, want)
				}
				seen[got]++
			}
		}
	}
	if len(combinations) != 1+6+36+216 || len(seen) != 8 {
		t.Errorf("%d combinations, classes %v", len(combinations), seen)
	}
}

func TestCMB17_HostsMissingCountAsFailed(t *testing.T) {
	e := dane.Evidence{
		MX:    dane.MXSet{Secure: true, Hosts: []dane.Exchanger{{10, "t1.ex.test"}, {20, "t2.ex.test"}}},
		Hosts: []*dane.Host{{Status: dane.Usable}},
	}
	wantClass(t, e, dane.D3)
	for i, want := range []dane.Status{dane.Usable, dane.Failed, dane.Failed} {
		if got := e.Status(i); got != want {
			t.Errorf("status of %d: %v, want %v", i, got, want)
		}
	}
	if got := e.Status(-1); got != dane.Failed {
		t.Errorf("status of -1: %v", got)
	}
	for x, s := range e.All() {
		if x.Name != "t1.ex.test" || s != dane.Usable {
			t.Errorf("first of all: %v %v", x, s)
		}
		break
	}
}

// TestClassOfFixtures has the MX column and rows of docs/decision-table.md.
func TestClassOfFixtures(t *testing.T) {
	tests := []struct {
		want dane.Class
		mx   string
	}{
		{dane.D0, "ad 10 n1, 20 n2"},
		{dane.D0, "10 n1, 20 e1"}, // errors do not matter with an insecure MX
		{dane.D0, "ad 10 g1"},
		{dane.D1, "ad 10 t1, 20 t2"}, // also DANE-013's sibling with an MX
		{dane.D1, "ad 10 t1, 20 g1"}, // DANE-021
		{dane.D2, "ad 10 t1, 20 n1"},
		{dane.D2, "ad 10 t1, 10 n1"},
		{dane.D2, "ad 10 t1, 20 u1"}, // DANE-031, DANE-032
		{dane.D2, "ad 10 n1, 20 t1, 30 n2"},
		{dane.D2, "ad 10 u1, 20 t1"},
		{dane.D2u, "ad 10 u1, 20 n1"}, // DANE-032
		{dane.D2u, "ad 10 u1"},
		{dane.D3, "ad 10 t1, 20 e1"}, // DANE-029
		{dane.D3, "ad 10 e1, 20 t1, 30 n1"},
		{dane.D3, "ad 10 n1, 20 e1"},
		{dane.D3, "ad 10 e1"},
		{dane.D5, "10 t1, 20 n1"}, // DANE-011
		{dane.D5, "10 u1, 20 e1"}, // unusable records are secure records too
	}
	for _, tt := range tests {
		t.Run(tt.want.String()+" "+tt.mx, func(t *testing.T) {
			dns := newDNS(mxTable(tt.mx))
			wantClass(t, lookup(t, dns, "ex.test"), tt.want)
		})
	}
}

func TestNames(t *testing.T) {
	for c, want := range map[dane.Class]string{
		dane.DX: "DX", dane.D0: "D0", dane.D1: "D1", dane.D2: "D2", dane.D2u: "D2u",
		dane.D3: "D3", dane.D4: "D4", dane.D5: "D5", 99: "Class(99)",
	} {
		if c.String() != want {
			t.Errorf("class %q, want %q", c, want)
		}
	}
	for s, want := range map[dane.Status]string{
		dane.Failed: "failed", dane.Unreachable: "unreachable", dane.None: "none", dane.Unusable: "unusable", dane.Usable: "usable", 99: "Status(99)",
	} {
		if s.String() != want {
			t.Errorf("got %v, want %s", s, want)
		}
	}
}
