package dane_test

import (
	"testing"
	"time"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy/dane"
)

func TestDANE039_HostTTL(t *testing.T) {
	tests := []struct {
		name, table string
		want        time.Duration
	}{
		{"TLSA least", `
			ad mx.ex.test 300 A 192.0.2.1
			ad nodata mx.ex.test 400 AAAA
			ad _25._tcp.mx.ex.test 120 TLSA 3 1 1 ` + digest, 120 * time.Second},
		{"denial of TLSA least", `
			ad mx.ex.test 300 A 192.0.2.1
			ad nodata mx.ex.test 400 AAAA
			ad nx _25._tcp.mx.ex.test 60 TLSA`, 60 * time.Second},
		{"denial of AAAA least", `
			ad mx.ex.test 300 A 192.0.2.1
			ad nodata mx.ex.test 40 AAAA
			ad nx _25._tcp.mx.ex.test 60 TLSA`, 40 * time.Second},
		{"denial without SOA", `
			ad mx.ex.test 300 A 192.0.2.1
			ad nodata mx.ex.test 0 AAAA
			ad nx _25._tcp.mx.ex.test 60 TLSA`, 0},
		{"first candidate's denial", `
			ad mx.ex.test 300 CNAME c.ex.test
			ad c.ex.test 300 A 192.0.2.1
			ad nodata c.ex.test 300 AAAA
			ad nx _25._tcp.c.ex.test 45 TLSA
			ad _25._tcp.mx.ex.test 120 TLSA 3 1 1 ` + digest, 45 * time.Second},
		{"the alias", `
			mx.ex.test 50 CNAME c.ex.test
			c.ex.test 300 A 192.0.2.1
			nodata c.ex.test 300 AAAA`, 50 * time.Second},
		{"unreachable", `
			ad nodata mx.ex.test 300 A
			ad nodata mx.ex.test 70 AAAA`, 70 * time.Second},
		{"the family that failed takes no part in a secure answer", `
			ad mx.ex.test 300 A 192.0.2.1
			servfail mx.ex.test AAAA
			ad nx _25._tcp.mx.ex.test 300 TLSA`, 300 * time.Second},
		{"the family that failed might have been secure", `
			mx.ex.test 300 A 192.0.2.1
			servfail mx.ex.test AAAA`, dane.FailureTTL},
		{"failure", `
			ad mx.ex.test 300 A 192.0.2.1
			ad nodata mx.ex.test 300 AAAA
			servfail _25._tcp.mx.ex.test TLSA`, dane.FailureTTL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := dane.LookupHost(t.Context(), resolvertest.New(tt.table), "mx.ex.test", 25)
			if h.TTL != tt.want {
				t.Errorf("TTL %v, want %v: %+v", h.TTL, tt.want, h)
			}
		})
	}
}

// TestDANE039_RecordsRemoved: what is asked again after the TTL is the truth of then.
func TestDANE039_RecordsRemoved(t *testing.T) {
	dns := newDNS("ad ex.test 300 MX 10 t1.ex.test\nad _25._tcp.t1.ex.test 120 TLSA 3 1 1 " + digest)
	e := lookup(t, dns, "ex.test")
	wantClass(t, e, dane.D1)
	if ttl := e.Hosts[0].TTL; ttl != 2*time.Minute {
		t.Errorf("TTL %v", ttl)
	}
	dns.Set("ad nx _25._tcp.t1.ex.test 60 TLSA")
	wantClass(t, lookup(t, dns, "ex.test"), dane.D0)
}
