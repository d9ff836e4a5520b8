package dane_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy/dane"
)

// digest is the data of a usable record, as in "3 1 1 "+digest.
var digest = strings.Repeat("ab", 32)

// The hosts of the rows of docs/decision-table.md, in the signed zone ex.test.
const fixtures = `
ad t1.ex.test 300 A 192.0.2.1
ad nodata t1.ex.test 300 AAAA
ad t2.ex.test 300 A 192.0.2.2
ad nodata t2.ex.test 300 AAAA
ad n1.ex.test 300 A 192.0.2.3
ad nodata n1.ex.test 300 AAAA
ad nx _25._tcp.n1.ex.test 300 TLSA
ad n2.ex.test 300 A 192.0.2.4
ad nodata n2.ex.test 300 AAAA
ad nx _25._tcp.n2.ex.test 300 TLSA
ad u1.ex.test 300 A 192.0.2.5
ad nodata u1.ex.test 300 AAAA
ad e1.ex.test 300 A 192.0.2.6
ad nodata e1.ex.test 300 AAAA
servfail _25._tcp.e1.ex.test TLSA
ad nx g1.ex.test 300 A
ad nx g1.ex.test 300 AAAA
`

// newDNS has the fixtures and what the table adds.
func newDNS(table string) *resolvertest.DNS {
	dns := resolvertest.New(fixtures)
	dns.Set("ad _25._tcp.t1.ex.test 300 TLSA 3 1 1 " + digest)
	dns.Set("ad _25._tcp.t2.ex.test 300 TLSA 2 0 1 " + digest)
	dns.Set("ad _25._tcp.u1.ex.test 300 TLSA 1 1 1 " + digest)
	dns.Set(table)
	return dns
}

// lookup gathers all evidence about a domain, as the engine does.
func lookup(t *testing.T, dns *resolvertest.DNS, domain string) dane.Evidence {
	t.Helper()
	e := dane.Evidence{MX: dane.LookupMX(t.Context(), dns, domain)}
	for _, x := range e.MX.Hosts {
		e.Hosts = append(e.Hosts, dane.LookupHost(t.Context(), dns, x.Name, 25))
	}
	return e
}

func wantClass(t *testing.T, e dane.Evidence, want dane.Class) {
	t.Helper()
	if got := e.Class(); got != want {
		t.Errorf("class %v, want %v: %+v", got, want, e)
	}
}

func wantStatus(t *testing.T, h *dane.Host, want dane.Status) {
	t.Helper()
	if h.Status != want {
		t.Errorf("status %v, want %v: %+v", h.Status, want, h)
	}
	if (h.Status == dane.Failed) != (h.Err != "") {
		t.Errorf("status %v with error %q", h.Status, h.Err)
	}
}

// asked returns the questions of one type.
func asked(dns *resolvertest.DNS, typ string) []string {
	return slices.DeleteFunc(dns.Asked(), func(q string) bool { return !strings.HasPrefix(q, typ+" ") })
}

func names(m dane.MXSet) string {
	var b []string
	for _, x := range m.Hosts {
		b = append(b, fmt.Sprintf("%d %s", x.Preference, x.Name))
	}
	return strings.Join(b, ", ")
}

// mxTable writes "ad 10 t1, 20 n1" as the MX records of ex.test.
func mxTable(mx string) string {
	mx, secure := strings.CutPrefix(mx, "ad ")
	var b strings.Builder
	for record := range strings.SplitSeq(mx, ", ") {
		if secure {
			b.WriteString("ad ")
		}
		fmt.Fprintf(&b, "ex.test 300 MX %s.ex.test\n", record)
	}
	return b.String()
}
