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

// TestLookupHost asks about mx.ex.test at port 25. The fake refuses questions
// that the table does not answer, so a TLSA question too many is a failure.
func TestLookupHost(t *testing.T) {
	const addresses = `
		ad mx.ex.test 300 A 192.0.2.1
		ad mx.ex.test 300 AAAA 2001:db8::1
		`
	secure := func(owner string) string { return "\nad " + owner + " 300 TLSA 3 1 1 " + digest }
	tests := []struct {
		name, table string
		want        dane.Status
		base        string
		tried       string
	}{
		{"DANE-003 insecure denial of TLSA is an answer", addresses + "nodata _25._tcp.mx.ex.test 300 TLSA",
			dane.None, "", "_25._tcp.mx.ex.test"},
		{"DANE-003 secure denial of TLSA", addresses + "ad nx _25._tcp.mx.ex.test 300 TLSA",
			dane.None, "", "_25._tcp.mx.ex.test"},
		{"DANE-003 insecure TLSA records", addresses + "_25._tcp.mx.ex.test 300 TLSA 3 1 1 " + digest,
			dane.None, "", "_25._tcp.mx.ex.test"},
		{"DANE-029 TLSA error", addresses + "servfail _25._tcp.mx.ex.test TLSA",
			dane.Failed, "", "_25._tcp.mx.ex.test"},
		{"DANE-031 usable", addresses + secure("_25._tcp.mx.ex.test"),
			dane.Usable, "mx.ex.test", "_25._tcp.mx.ex.test"},
		{"DANE-031 one usable among others", addresses + secure("_25._tcp.mx.ex.test") + `
			ad _25._tcp.mx.ex.test 300 TLSA 0 0 1 ` + digest,
			dane.Usable, "mx.ex.test", "_25._tcp.mx.ex.test"},
		{"DANE-032 all unusable", addresses + `
			ad _25._tcp.mx.ex.test 300 TLSA 1 1 1 ` + digest + `
			ad _25._tcp.mx.ex.test 300 TLSA 3 1 1 abab`,
			dane.Unusable, "mx.ex.test", "_25._tcp.mx.ex.test"},

		{"DANE-021 no addresses", `
			ad nodata mx.ex.test 300 A
			ad nodata mx.ex.test 300 AAAA`, dane.Unreachable, "", ""},
		{"DANE-021 no such name, insecure", `
			nx mx.ex.test 300 A
			nx mx.ex.test 300 AAAA`, dane.Unreachable, "", ""},
		{"DANE-022 insecure addresses, no TLSA question", `
			mx.ex.test 300 A 192.0.2.1
			nodata mx.ex.test 300 AAAA
			servfail _25._tcp.mx.ex.test TLSA`, dane.None, "", ""},
		{"DANE-023 AAAA secure, A not", `
			mx.ex.test 300 A 192.0.2.1
			ad mx.ex.test 300 AAAA 2001:db8::1` + secure("_25._tcp.mx.ex.test"),
			dane.Usable, "mx.ex.test", "_25._tcp.mx.ex.test"},
		{"DANE-023 A insecure, AAAA securely denied", `
			mx.ex.test 300 A 192.0.2.1
			ad nodata mx.ex.test 300 AAAA`, dane.None, "", ""},
		{"DANE-023 AAAA only", `
			ad nodata mx.ex.test 300 A
			ad mx.ex.test 300 AAAA 2001:db8::1` + secure("_25._tcp.mx.ex.test"),
			dane.Usable, "mx.ex.test", "_25._tcp.mx.ex.test"},
		{"DANE-023 AAAA fails, A secure", `
			ad mx.ex.test 300 A 192.0.2.1
			servfail mx.ex.test AAAA` + secure("_25._tcp.mx.ex.test"),
			dane.Usable, "mx.ex.test", "_25._tcp.mx.ex.test"},
		{"DANE-023 A fails, AAAA insecure", `
			servfail mx.ex.test A
			mx.ex.test 300 AAAA 2001:db8::1`, dane.None, "", ""},
		{"DANE-023 both fail", `
			servfail mx.ex.test A
			servfail mx.ex.test AAAA`, dane.Failed, "", ""},
		{"DANE-023 A fails, AAAA has none", `
			servfail mx.ex.test A
			ad nodata mx.ex.test 300 AAAA`, dane.Failed, "", ""},
		{"DANE-023 AAAA fails, A has none", `
			ad nodata mx.ex.test 300 A
			servfail mx.ex.test AAAA`, dane.Failed, "", ""},

		{"DANE-025 alias, secure all the way, records at the end", `
			ad mx.ex.test 300 CNAME b.ex.test
			ad b.ex.test 300 CNAME c.ex.test
			ad c.ex.test 300 A 192.0.2.1
			ad nodata c.ex.test 300 AAAA` + secure("_25._tcp.c.ex.test") + secure("_25._tcp.mx.ex.test"),
			dane.Usable, "c.ex.test", "_25._tcp.c.ex.test"},
		{"DANE-025 alias, records in the middle only", `
			ad mx.ex.test 300 CNAME b.ex.test
			ad b.ex.test 300 CNAME c.ex.test
			ad c.ex.test 300 A 192.0.2.1
			ad nodata c.ex.test 300 AAAA
			ad nx _25._tcp.c.ex.test 300 TLSA
			ad nx _25._tcp.mx.ex.test 300 TLSA` + secure("_25._tcp.b.ex.test"),
			dane.None, "", "_25._tcp.c.ex.test _25._tcp.mx.ex.test"},
		{"DANE-025 alias, records at the beginning only", `
			ad mx.ex.test 300 CNAME c.ex.test
			ad c.ex.test 300 A 192.0.2.1
			ad nodata c.ex.test 300 AAAA
			ad nx _25._tcp.c.ex.test 300 TLSA` + secure("_25._tcp.mx.ex.test"),
			dane.Usable, "mx.ex.test", "_25._tcp.c.ex.test _25._tcp.mx.ex.test"},
		{"DANE-006 secure alias of an insecure host", `
			ad mx.ex.test 300 CNAME host.insec.test
			host.insec.test 300 A 192.0.2.1
			nodata host.insec.test 300 AAAA` + secure("_25._tcp.mx.ex.test"),
			dane.Usable, "mx.ex.test", "_25._tcp.mx.ex.test"},
		{"DANE-025 insecure alias", `
			mx.ex.test 300 CNAME host.sec.test
			ad host.sec.test 300 A 192.0.2.1
			ad nodata host.sec.test 300 AAAA`, dane.None, "", ""},
		{"DANE-006 secure alias, TLSA error", `
			ad mx.ex.test 300 CNAME host.insec.test
			host.insec.test 300 A 192.0.2.1
			nodata host.insec.test 300 AAAA
			servfail _25._tcp.mx.ex.test TLSA`, dane.Failed, "", "_25._tcp.mx.ex.test"},

		{"DANE-027 alias at the TLSA name", addresses + `
			ad _25._tcp.mx.ex.test 300 CNAME tlsa._dane.ex.test` + secure("tlsa._dane.ex.test"),
			dane.Usable, "mx.ex.test", "_25._tcp.mx.ex.test>tlsa._dane.ex.test"},
		{"DANE-027 insecure alias at the first TLSA name: next candidate", `
			ad mx.ex.test 300 CNAME c.ex.test
			ad c.ex.test 300 A 192.0.2.1
			ad nodata c.ex.test 300 AAAA
			_25._tcp.c.ex.test 300 CNAME tlsa.ex.test` + secure("tlsa.ex.test") + secure("_25._tcp.mx.ex.test"),
			dane.Usable, "mx.ex.test", "_25._tcp.c.ex.test>tlsa.ex.test _25._tcp.mx.ex.test"},
		{"DANE-028 unusable records at the first candidate win", `
			ad mx.ex.test 300 CNAME c.ex.test
			ad c.ex.test 300 A 192.0.2.1
			ad nodata c.ex.test 300 AAAA
			ad _25._tcp.c.ex.test 300 TLSA 1 1 1 ` + digest + secure("_25._tcp.mx.ex.test"),
			dane.Unusable, "c.ex.test", "_25._tcp.c.ex.test"},
		{"DANE-028 an error at the first candidate ends the search", `
			ad mx.ex.test 300 CNAME c.ex.test
			ad c.ex.test 300 A 192.0.2.1
			ad nodata c.ex.test 300 AAAA
			servfail _25._tcp.c.ex.test TLSA` + secure("_25._tcp.mx.ex.test"),
			dane.Failed, "", "_25._tcp.c.ex.test"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := dane.LookupHost(t.Context(), resolvertest.New(tt.table), "mx.ex.test", 25)
			wantStatus(t, h, tt.want)
			var tried []string
			for _, c := range h.Tried {
				if c.Canonical != "" {
					c.Owner += ">" + c.Canonical
				}
				tried = append(tried, c.Owner)
			}
			if h.Base != tt.base || strings.Join(tried, " ") != tt.tried {
				t.Errorf("base %q, tried %q", h.Base, tried)
			}
		})
	}
}

func TestDANE020_AddressesBeforeTLSA(t *testing.T) {
	dns := newDNS("")
	dane.LookupHost(t.Context(), dns, "t1.ex.test", 25)
	got := dns.Asked()
	if len(got) == 3 {
		slices.Sort(got[:2]) // side by side
	}
	if want := []string{"A t1.ex.test", "AAAA t1.ex.test", "TLSA _25._tcp.t1.ex.test"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestDANE020_AddressesSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h := dane.LookupHost(t.Context(), resolvertest.New(`
			delay=3s ad mx.ex.test 300 A 192.0.2.1
			delay=3s ad mx.ex.test 300 AAAA 2001:db8::1
			ad nx _25._tcp.mx.ex.test 300 TLSA`), "mx.ex.test", 25)
		if time.Since(start) != 3*time.Second {
			t.Errorf("took %v", time.Since(start))
		}
		wantStatus(t, h, dane.None)
		if got := fmt.Sprint(h.Addresses, h.Authentic); got != "[192.0.2.1 2001:db8::1] true" {
			t.Errorf("addresses %s", got)
		}
	})
}

func TestDANE022_NoTLSAQuestionForInsecureHosts(t *testing.T) {
	dns := resolvertest.New(`
		ad ex.test 300 MX 10 mx.o365.test
		mx.o365.test 300 A 192.0.2.1
		nodata mx.o365.test 300 AAAA
		servfail _25._tcp.mx.o365.test TLSA`)
	wantClass(t, lookup(t, dns, "ex.test"), dane.D0)
	if got := asked(dns, "TLSA"); len(got) != 0 {
		t.Errorf("asked %q", got)
	}
}

func TestDANE013_ImplicitMX(t *testing.T) {
	dns := resolvertest.New(`
		ad nodata nomx.test 300 MX
		ad nomx.test 300 A 192.0.2.1
		ad nodata nomx.test 300 AAAA
		ad _25._tcp.nomx.test 300 TLSA 3 1 1 ` + digest)
	wantClass(t, lookup(t, dns, "nomx.test"), dane.D1)
}

func TestDANE013_NoSuchDomain(t *testing.T) {
	dns := resolvertest.New("ad nx gone.test 300 MX")
	wantClass(t, lookup(t, dns, "gone.test"), dane.D0)
}

func TestDANE014_NullMXAsksNothing(t *testing.T) {
	dns := resolvertest.New("ad ex.test 300 MX 0 .")
	wantClass(t, lookup(t, dns, "ex.test"), dane.D0)
	if got := dns.Asked(); !slices.Equal(got, []string{"MX ex.test"}) {
		t.Errorf("asked %q", got)
	}
}

func TestDANE015_AddressLiterals(t *testing.T) {
	for _, name := range []string{"192.0.2.1", "2001:db8::1", "ipv6:2001:db8::1"} {
		dns := resolvertest.New("")
		h := dane.LookupHost(t.Context(), dns, name, 25)
		wantStatus(t, h, dane.None)
		if len(h.Addresses) != 1 || len(dns.Asked()) != 0 {
			t.Errorf("%s: %+v", name, h)
		}
		wantClass(t, dane.Evidence{MX: dane.Direct(name), Hosts: []*dane.Host{h}}, dane.D0)
	}
	wantStatus(t, dane.LookupHost(t.Context(), resolvertest.New(""), "", 25), dane.Failed)
}

func TestDANE004_UnprovenHostFails(t *testing.T) {
	dns := newDNS("")
	dns.Unproven(true)
	h := dane.LookupHost(t.Context(), dns, "t1.ex.test", 25)
	wantStatus(t, h, dane.Failed)
	if !strings.Contains(h.Err, "has not proved that it validates DNSSEC") || len(asked(dns, "TLSA")) != 0 {
		t.Errorf("error %q", h.Err)
	}
}

// unprovenTLSA is a DNS whose last answers come from another server.
type unprovenTLSA struct{ *resolvertest.DNS }

func (d unprovenTLSA) AAAA(ctx context.Context, name string) (addrAnswer, error) {
	a, err := d.DNS.AAAA(ctx, name)
	a.Proven, a.Authentic = false, false
	return a, err
}

func (d unprovenTLSA) TLSA(ctx context.Context, name string) (tlsaAnswer, error) {
	a, err := d.DNS.TLSA(ctx, name)
	a.Proven, a.Authentic = false, false
	return a, err
}

func TestDANE004_UnprovenTLSAIsNoDenial(t *testing.T) {
	h := dane.LookupHost(t.Context(), unprovenTLSA{newDNS("")}, "n1.ex.test", 25)
	wantStatus(t, h, dane.Failed)
	want := "TLSA _25._tcp.n1.ex.test: the server that answered has not proved that it validates DNSSEC"
	if h.Err != want || !h.Authentic || len(h.Addresses) != 1 || h.Tried[0].Err == "" {
		t.Errorf("%+v", h)
	}
}

func TestDANE006_AliasGone(t *testing.T) {
	for kind, want := range map[string]dane.Status{
		"ad nodata mx.ex.test 300 CNAME": dane.Failed, // changed in between
		"nodata mx.ex.test 200 CNAME":    dane.None,   // the zone is not signed
		"servfail mx.ex.test CNAME":      dane.Failed,
	} {
		dns := resolvertest.New(`
			ad mx.ex.test 300 CNAME host.insec.test
			host.insec.test 300 A 192.0.2.1
			nodata host.insec.test 300 AAAA`)
		h := dane.LookupHost(t.Context(), otherCNAME{dns, resolvertest.New(kind)}, "mx.ex.test", 25)
		wantStatus(t, h, want)
		if len(asked(dns, "TLSA")) != 0 {
			t.Errorf("%s: asked for TLSA", kind)
		}
		if h.Status == dane.None && h.TTL != 200*time.Second { // DANE-039: this answer's too
			t.Errorf("TTL %v", h.TTL)
		}
	}
}

// otherCNAME answers questions for CNAME records from another table.
type otherCNAME struct {
	*resolvertest.DNS
	cname *resolvertest.DNS
}

func (d otherCNAME) CNAME(ctx context.Context, name string) (nameAnswer, error) {
	return d.cname.CNAME(ctx, name)
}

func TestDANE008_ManyFullCertificates(t *testing.T) {
	var table strings.Builder
	der := certificate(t)
	for range 30 {
		fmt.Fprintf(&table, "ad _25._tcp.n1.ex.test 300 TLSA 2 0 0 %x\n", der)
	}
	h := dane.LookupHost(t.Context(), newDNS(table.String()), "n1.ex.test", 25)
	wantStatus(t, h, dane.Usable)
	if len(h.Records) != 30 || h.Tried[0].Records != 30 {
		t.Errorf("%d records", len(h.Records))
	}
}

func TestDANE042_TooManyRecords(t *testing.T) {
	set := func(ad string, n, octets int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%s_25._tcp.n1.ex.test 300 TLSA 3 1 1 %0*x\n", ad, 2*octets, i)
		}
		return b.String()
	}
	tests := []struct {
		name, table string
		want        dane.Status
		err         string
	}{
		{"at most 100", set("ad ", 100, 32), dane.Usable, ""},
		{"101", set("ad ", 101, 32), dane.Failed, "TLSA _25._tcp.n1.ex.test: 101 records, more than 100"},
		{"101 insecure ones do not count", set("", 101, 32), dane.None, ""},
		{"64 kB", set("ad ", 64, 1024), dane.Unusable, ""},
		{"more", set("ad ", 64, 1025), dane.Failed, "TLSA _25._tcp.n1.ex.test: 65600 octets of data, more than 65536"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := dane.LookupHost(t.Context(), newDNS(tt.table), "n1.ex.test", 25)
			wantStatus(t, h, tt.want)
			if h.Err != tt.err || h.Status == dane.Failed && h.Records != nil {
				t.Errorf("error %q, %d records", h.Err, len(h.Records))
			}
		})
	}
}

func TestCMB17_HostStalls(t *testing.T) {
	for name, table := range map[string]string{
		"addresses": "hang mx.ex.test A\nhang mx.ex.test AAAA",
		"AAAA":      "ad nodata mx.ex.test 300 A\nhang mx.ex.test AAAA",
		"TLSA":      "ad mx.ex.test 300 A 192.0.2.1\nad nodata mx.ex.test 300 AAAA\nhang _25._tcp.mx.ex.test TLSA",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start := time.Now()
				h := dane.LookupHost(ctx, resolvertest.New(table), "mx.ex.test", 25)
				wantStatus(t, h, dane.Failed)
				if time.Since(start) != 5*time.Second || !strings.Contains(h.Err, "deadline") || h.TTL != dane.FailureTTL {
					t.Errorf("after %v: %+v", time.Since(start), h)
				}
			})
		})
	}
}
