package dane_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy/dane"
)

func TestLookupMX(t *testing.T) {
	tests := []struct {
		name, table string
		hosts       string
		want        dane.MXSet // without Hosts and TTL
	}{
		{"DANE-010 preference, then name", `
			ad ex.test 300 MX 20 b.ex.test
			ad ex.test 300 MX 10 z.ex.test
			ad ex.test 300 MX 20 a.ex.test`,
			"10 z.ex.test, 20 a.ex.test, 20 b.ex.test", dane.MXSet{Secure: true}},
		{"a name twice counts once, the better", `
			ad ex.test 300 MX 20 a.ex.test
			ad ex.test 300 MX 10 a.ex.test
			ad ex.test 300 MX 15 b.ex.test`,
			"10 a.ex.test, 15 b.ex.test", dane.MXSet{Secure: true}},
		{"DANE-011 insecure", "ex.test 300 MX 10 mx.ex.test", "10 mx.ex.test", dane.MXSet{}},
		{"DANE-012 secure alias", `
			ad ex.test 300 CNAME other.test
			ad other.test 300 MX 10 mx.ex.test`,
			"10 mx.ex.test", dane.MXSet{Secure: true, NextHop: "other.test"}},
		{"DANE-012 insecure alias in front", `
			ex.test 300 CNAME other.test
			ad other.test 300 MX 10 mx.ex.test`,
			"10 mx.ex.test", dane.MXSet{NextHop: "other.test"}},
		{"DANE-013 implicit", "ad nodata ex.test 300 MX", "0 ex.test", dane.MXSet{Secure: true, Implicit: true}},
		{"DANE-013 implicit, insecure denial", "nodata ex.test 300 MX", "0 ex.test", dane.MXSet{Implicit: true}},
		{"DANE-013 implicit behind an alias stays the domain", `
			ad ex.test 300 CNAME other.test
			ad nodata other.test 300 MX`,
			"0 ex.test", dane.MXSet{Secure: true, Implicit: true, NextHop: "other.test"}},
		{"DANE-013 no such domain", "ad nx ex.test 300 MX", "", dane.MXSet{Secure: true, NXDomain: true}},
		{"DANE-014 null MX", "ad ex.test 300 MX 0 .", "", dane.MXSet{Secure: true, Null: true}},
		{"DANE-014 null MX beside another", `
			ad ex.test 300 MX 0 .
			ad ex.test 300 MX 10 mx.ex.test`,
			"10 mx.ex.test", dane.MXSet{Secure: true}},
		{"DANE-014 not quite a null MX", "ad ex.test 300 MX 10 .", "", dane.MXSet{Secure: true}},
		{"DANE-016 an address in place of a name", `
			ad ex.test 300 MX 10 192.0.2.1
			ad ex.test 300 MX 20 mx.ex.test`,
			"20 mx.ex.test", dane.MXSet{Secure: true}},
		{"DANE-016 all skipped", `
			ad ex.test 300 MX 10 192.0.2.1
			ad ex.test 300 MX 20 -x.ex.test
			ad ex.test 300 MX 20 x-.ex.test
			ad ex.test 300 MX 30 a:b.ex.test
			ad ex.test 300 MX 40 [192.0.2.1]
			ad ex.test 300 MX 40 a\032b.ex.test`,
			"", dane.MXSet{Secure: true}},
		{"odd but used names", "ad ex.test 300 MX 10 my_mx-1.9.ex.test", "10 my_mx-1.9.ex.test", dane.MXSet{Secure: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := dane.LookupMX(t.Context(), resolvertest.New(tt.table), "ex.test")
			if names(got) != tt.hosts {
				t.Errorf("hosts %q, want %q", names(got), tt.hosts)
			}
			if got.TTL != 300*time.Second {
				t.Errorf("TTL %v, want 5m", got.TTL)
			}
			got.Hosts, got.TTL = nil, 0
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestDANE003_MXErrorIsD4(t *testing.T) {
	m := dane.LookupMX(t.Context(), resolvertest.New("servfail ex.test MX"), "ex.test")
	if m.Err != "MX ex.test: SERVFAIL" || m.Failure() != m.Err || m.TTL != dane.FailureTTL || m.Hosts != nil || m.Secure {
		t.Errorf("got %+v", m)
	}
	wantClass(t, dane.Evidence{MX: m}, dane.D4)
}

func TestDANE004_UnprovenMX(t *testing.T) {
	dns := newDNS("ad ex.test 3600 MX 10 t1.ex.test")
	dns.Unproven(true)
	m := dane.LookupMX(t.Context(), dns, "ex.test")
	if !m.Unproven || m.Secure || m.Err != "" || names(m) != "10 t1.ex.test" || m.TTL != time.Minute {
		t.Errorf("got %+v", m)
	}
	if m.Failure() != "the server that answered has not proved that it validates DNSSEC" {
		t.Errorf("failure %q", m.Failure())
	}
	wantClass(t, dane.Evidence{MX: m}, dane.D4)
	wantClass(t, dane.Evidence{MX: m, Suspended: true}, dane.DX)
	wantClass(t, dane.Evidence{MX: m, Hosts: []*dane.Host{{Status: dane.Usable}}}, dane.D4)
}

func TestDANE016_TooManyHosts(t *testing.T) {
	var table strings.Builder
	for i := range dane.MaxHosts + 1 {
		fmt.Fprintf(&table, "ad ex.test 300 MX %d mx%d.ex.test\n", dane.MaxHosts-i, i)
	}
	m := dane.LookupMX(t.Context(), resolvertest.New(table.String()), "ex.test")
	if len(m.Hosts) != dane.MaxHosts || !m.Truncated || m.Hosts[0].Name != "mx50.ex.test" || m.Hosts[49].Preference != 49 {
		t.Errorf("got %+v", m)
	}
	all := slices.Repeat([]*dane.Host{{Status: dane.Usable}}, dane.MaxHosts)
	wantClass(t, dane.Evidence{MX: m, Hosts: all}, dane.D3) // never D1 by ignoring hosts

	first, _, _ := strings.Cut(table.String(), "\n")
	full := strings.Replace(table.String(), first, "", 1)
	if m := dane.LookupMX(t.Context(), resolvertest.New(full), "ex.test"); m.Truncated || len(m.Hosts) != dane.MaxHosts {
		t.Errorf("exactly MaxHosts: %+v", m)
	}
}

func TestDirect(t *testing.T) {
	dns := newDNS("ad _587._tcp.t1.ex.test 300 TLSA 3 1 1 " + digest)
	m := dane.Direct("t1.ex.test")
	if names(m) != "0 t1.ex.test" || !m.Secure || m.Implicit || m.Failure() != "" {
		t.Errorf("got %+v", m)
	}
	h := dane.LookupHost(t.Context(), dns, "t1.ex.test", 587)
	wantClass(t, dane.Evidence{MX: m, Hosts: []*dane.Host{h}}, dane.D1)
	if got := asked(dns, "TLSA"); !slices.Equal(got, []string{"TLSA _587._tcp.t1.ex.test"}) { // DANE-026
		t.Errorf("asked %q", got)
	}
}

func TestCMB17_MXStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		m := dane.LookupMX(ctx, resolvertest.New("hang ex.test MX"), "ex.test")
		if time.Since(start) != 5*time.Second || m.Err == "" {
			t.Errorf("after %v: %+v", time.Since(start), m)
		}
		wantClass(t, dane.Evidence{MX: m}, dane.D4)
	})
}
