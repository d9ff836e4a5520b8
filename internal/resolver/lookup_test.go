package resolver_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

func TestRecordsOfEveryType(t *testing.T) {
	s := zone(t, `
ad ex.test 300 A 192.0.2.1
ad ex.test 300 A 192.0.2.2
ad ex.test 300 AAAA 2001:db8::1
ad ex.test 120 MX 10 MX.Ex.Test.
ad ex.test 60 MX 0 .
ad alias.test 30 CNAME Target.Test.
ad _25._tcp.ex.test 300 TLSA 3 1 1 00ff
ad _25._tcp.ex.test 300 TLSA 9 9 9 ab
ad ex.test 300 TXT "a" "b"
ad 1.2.0.192.in-addr.arpa 300 PTR Host.Ex.Test.
ad 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa 300 PTR six.ex.test.`)
	r := ask(t, s)
	ctx := t.Context()

	a, err := r.A(ctx, "EX.test.")
	want := resolver.Answer[netip.Addr]{
		Name: "ex.test", Canonical: "ex.test", Authentic: true, Proven: true, TTL: 300 * time.Second, Server: s.Addr(),
		Records: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
	}
	if err != nil || !reflect.DeepEqual(a, want) {
		t.Errorf("A: %+v, %v; want %+v", a, err, want)
	}
	aaaa, err := r.AAAA(ctx, "ex.test")
	if err != nil || !slices.Equal(aaaa.Records, []netip.Addr{netip.MustParseAddr("2001:db8::1")}) {
		t.Errorf("AAAA: %+v, %v", aaaa, err)
	}
	mx, err := r.MX(ctx, "ex.test")
	if err != nil || mx.TTL != time.Minute || !slices.Equal(mx.Records, []resolver.MX{{10, "mx.ex.test"}, {0, "."}}) {
		t.Errorf("MX: %+v, %v", mx, err)
	}
	cname, err := r.CNAME(ctx, "alias.test")
	if err != nil || cname.Canonical != "alias.test" || !slices.Equal(cname.Records, []string{"target.test"}) {
		t.Errorf("CNAME: %+v, %v", cname, err)
	}
	for address, name := range map[string]string{"192.0.2.1": "host.ex.test", "::ffff:192.0.2.1": "host.ex.test", "2001:db8::1": "six.ex.test"} {
		ptr, err := r.PTR(ctx, netip.MustParseAddr(address))
		if err != nil || !slices.Equal(ptr.Records, []string{name}) {
			t.Errorf("PTR of %s: %+v, %v", address, ptr, err)
		}
	}
	if _, err := r.PTR(ctx, netip.Addr{}); !errors.Is(err, resolver.ErrBadName) {
		t.Errorf("PTR of nothing: %v", err)
	}
	tlsa, err := r.TLSA(ctx, "_25._tcp.ex.test")
	wantTLSA := []resolver.TLSA{{3, 1, 1, []byte{0, 255}}, {9, 9, 9, []byte{0xab}}}
	if err != nil || !reflect.DeepEqual(tlsa.Records, wantTLSA) {
		t.Errorf("TLSA: %+v, %v", tlsa, err)
	}
}

// RFC 8461 §3.1: the name comes in A-label form and goes out as it is.
func TestSTS010_Name(t *testing.T) {
	s := zone(t, `_mta-sts.xn--bcher-kva.test 60 TXT "v=STSv1; id=1"`)
	r := ask(t, s)
	if _, err := r.TXT(t.Context(), "_mta-sts.xn--bcher-kva.test"); err != nil {
		t.Fatal(err)
	}
	if got := s.Asked(); !slices.Equal(got, []string{"TXT _mta-sts.xn--bcher-kva.test"}) {
		t.Errorf("asked %q", got)
	}
	_, err := r.TXT(t.Context(), "_mta-sts.bücher.test")
	if !errors.Is(err, resolver.ErrBadName) || s.Count() != 1 {
		t.Errorf("U-label: %v, %d packets", err, s.Count())
	}
}

func TestSTS011_DANE027_ChainsAreFollowed(t *testing.T) {
	s := zone(t, `
ad _mta-sts.ex.test 300 CNAME _mta-sts.hoster.test
ad _mta-sts.hoster.test 100 CNAME deep.hoster.test
ad deep.hoster.test 600 TXT "v=STSv1; id=1"
ad _25._tcp.mx.test 60 CNAME tlsa._dane.ex.test
ad tlsa._dane.ex.test 60 TLSA 3 1 1 aa
ad _25._tcp.mx2.test 60 CNAME tlsa.insecure.test
tlsa.insecure.test 60 TLSA 3 1 1 aa`)
	r := ask(t, s)
	a, err := r.TXT(t.Context(), "_mta-sts.ex.test")
	if err != nil || a.Name != "_mta-sts.ex.test" || a.Canonical != "deep.hoster.test" || !a.Authentic ||
		a.TTL != 100*time.Second || !slices.Equal(a.Records, []string{"v=STSv1; id=1"}) {
		t.Errorf("%+v, %v", a, err)
	}
	tlsa, err := r.TLSA(t.Context(), "_25._tcp.mx.test")
	if err != nil || !tlsa.Authentic || tlsa.Canonical != "tlsa._dane.ex.test" || len(tlsa.Records) != 1 {
		t.Errorf("%+v, %v", tlsa, err)
	}
	tlsa, err = r.TLSA(t.Context(), "_25._tcp.mx2.test")
	if err != nil || tlsa.Authentic || !tlsa.Proven || len(tlsa.Records) != 1 {
		t.Errorf("insecure target: %+v, %v", tlsa, err)
	}
}

func TestSTS011_LoopsAndLongChains(t *testing.T) {
	table := "loop.test 60 CNAME b.loop.test\nb.loop.test 60 CNAME loop.test\nself.test 60 CNAME self.test\n"
	for i := range 12 {
		table += fmt.Sprintf("c%d.test 60 CNAME c%d.test\n", i, i+1)
	}
	r := ask(t, zone(t, table+`c12.test 60 TXT "end"`))
	for _, name := range []string{"loop.test", "self.test", "c0.test", "c1.test"} {
		if a, err := r.TXT(t.Context(), name); !errors.Is(err, resolver.ErrChain) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if a, err := r.TXT(t.Context(), "c2.test"); err != nil || a.Canonical != "c12.test" || len(a.Records) != 1 {
		t.Errorf("ten links: %+v, %v", a, err)
	}
}

// Some servers give only the link; then the target is asked for.
func TestSTS011_ChainsThatTheServerDoesNotFollow(t *testing.T) {
	links := resolvertest.Zone(`
ad a.test 300 CNAME b.test
ad b.test 200 CNAME c.test
c.test 100 TXT "found"
ad d.test 50 CNAME none.test
ad nodata none.test 40 TXT
ad e.test 50 CNAME gone.test
ad nx gone.test 40 TXT
ad f.test 50 CNAME g.test
ad g.test 50 CNAME f.test`)
	s := (&resolvertest.Server{Handler: func(q *resolvertest.Query) *dns.Msg {
		m := links(q)
		if len(m.Answer) > 0 && m.Answer[0].Header().Rrtype == dns.TypeCNAME {
			m.Answer, m.Ns, m.Rcode, m.AuthenticatedData = m.Answer[:1], nil, 0, true
		}
		return m
	}}).Start(t)
	r := ask(t, s)
	a, err := r.TXT(t.Context(), "a.test")
	if err != nil || a.Canonical != "c.test" || a.Authentic || a.TTL != 100*time.Second || !slices.Equal(a.Records, []string{"found"}) {
		t.Errorf("%+v, %v", a, err)
	}
	if got := s.Asked(); !slices.Equal(got, []string{"TXT a.test", "TXT b.test", "TXT c.test"}) {
		t.Errorf("asked %q", got)
	}
	a, err = r.TXT(t.Context(), "d.test")
	if err != nil || a.Canonical != "none.test" || !a.Authentic || a.NXDomain || a.TTL != 40*time.Second || len(a.Records) != 0 {
		t.Errorf("NODATA at the end: %+v, %v", a, err)
	}
	a, err = r.TXT(t.Context(), "e.test")
	if err != nil || a.Canonical != "gone.test" || !a.NXDomain || !a.Authentic {
		t.Errorf("NXDOMAIN at the end: %+v, %v", a, err)
	}
	if a, err = r.TXT(t.Context(), "f.test"); !errors.Is(err, resolver.ErrChain) {
		t.Errorf("loop over several replies: %+v, %v", a, err)
	}
}

func TestSTS012_K030_StringsAreJoined(t *testing.T) {
	r := ask(t, zone(t, `
a.test 60 TXT "v=STSv1; i" "d=abc"
b.test 60 TXT "v=STSv1;" " id=a"
c.test 60 TXT "x" "" "y"
d.test 60 TXT ""
same.test 60 TXT "twice"
same.test 60 TXT "twice"
long.test 60 TXT "`+strings.Repeat("k", 255)+`" "`+strings.Repeat("l", 255)+`"`))
	for name, want := range map[string][]string{
		"a.test": {"v=STSv1; id=abc"}, "b.test": {"v=STSv1; id=a"}, "c.test": {"xy"}, "d.test": {""},
		"same.test": {"twice"}, // RFC 2181 §5: one record
		"long.test": {strings.Repeat("k", 255) + strings.Repeat("l", 255)},
	} {
		if a, err := r.TXT(t.Context(), name); err != nil || !slices.Equal(a.Records, want) {
			t.Errorf("%s: %q, %v; want %q", name, a.Records, err, want)
		}
	}
}

func TestSTS021_TextIsNotEscaped(t *testing.T) {
	var every strings.Builder // every octet, as a table has it
	want := make([]byte, 0, 256)
	for c := range 255 {
		fmt.Fprintf(&every, `\%03d`, c)
		want = append(want, byte(c))
	}
	r := ask(t, zone(t, `
a.test 60 TXT "v=STSv1; id=1; x=a\\b"
b.test 60 TXT "a\"b"
c.test 60 TXT "`+every.String()+`"`))
	for name, want := range map[string]string{"a.test": `v=STSv1; id=1; x=a\b`, "b.test": `a"b`, "c.test": string(want)} {
		if a, err := r.TXT(t.Context(), name); err != nil || !slices.Equal(a.Records, []string{want}) {
			t.Errorf("%s: %q, %v; want %q", name, a.Records, err, want)
		}
	}
}

func TestSTS023_ManyTextRecordsComeOverTCP(t *testing.T) {
	table := `_mta-sts.ex.test 60 TXT "v=STSv1; id=1"`
	for i := range 40 {
		table += fmt.Sprintf("\n_mta-sts.ex.test 60 TXT \"junk %d %s\"", i, strings.Repeat("x", 60))
	}
	s := zone(t, table)
	a, err := ask(t, s).TXT(t.Context(), "_mta-sts.ex.test")
	if err != nil || len(a.Records) != 41 || a.Records[0] != "v=STSv1; id=1" {
		t.Errorf("%d records, %v", len(a.Records), err)
	}
	if got := s.Asked(); !slices.Equal(got, []string{"TXT _mta-sts.ex.test", "TXT _mta-sts.ex.test tcp"}) {
		t.Errorf("asked %q", got)
	}
}

func TestDANE008_ThirtyFullCertificates(t *testing.T) {
	var table strings.Builder
	for i := range 30 {
		cert := append([]byte{byte(i)}, bytes.Repeat([]byte{0xa5}, 1999)...)
		fmt.Fprintf(&table, "ad _25._tcp.mx.test 60 TLSA 2 0 0 %x\n", cert)
	}
	a, err := ask(t, zone(t, table.String())).TLSA(t.Context(), "_25._tcp.mx.test")
	if err != nil || len(a.Records) != 30 || !a.Authentic {
		t.Fatalf("%d records, authentic %v, %v", len(a.Records), a.Authentic, err)
	}
	for i, rec := range a.Records {
		if rec.Usage != 2 || len(rec.Data) != 2000 || rec.Data[0] != byte(i) || rec.Data[1999] != 0xa5 {
			t.Errorf("record %d came out wrong: %d octets", i, len(rec.Data))
		}
	}
}

func TestDANE002_AskedWithDOAndAD(t *testing.T) {
	for _, which := range []string{"DO", "AD"} {
		s := (&resolvertest.Server{Handler: func(q *resolvertest.Query) *dns.Msg {
			m := q.Answer(true, q.Name+". 60 A 192.0.2.1")
			if which == "DO" && !q.DO || which == "AD" && !q.AuthenticatedData {
				m.AuthenticatedData = false
			}
			if opt := q.IsEdns0(); opt == nil || opt.UDPSize() != 1232 || opt.Version() != 0 || len(opt.Option) != 0 {
				t.Errorf("OPT: %v", opt)
			}
			if !q.RecursionDesired || q.CheckingDisabled {
				t.Errorf("header: %v", q.MsgHdr)
			}
			return m
		}}).Start(t)
		if a, err := ask(t, s).A(t.Context(), "ex.test"); err != nil || !a.Authentic {
			t.Errorf("%s: %+v, %v", which, a, err)
		}
	}
	cd := (&resolvertest.Server{Handler: func(q *resolvertest.Query) *dns.Msg {
		m := q.Answer(true, q.Name+". 60 A 192.0.2.1")
		m.CheckingDisabled = true
		return m
	}}).Start(t)
	if a, err := ask(t, cd).A(t.Context(), "ex.test"); err != nil || a.Authentic {
		t.Errorf("AD beside CD: %+v, %v", a, err)
	}
}

func TestDANE003_DenialsAreAnswersFailuresAreNot(t *testing.T) {
	r := ask(t, zone(t, `
nodata _25._tcp.plain.test 60 TLSA
ad nodata _25._tcp.signed.test 60 TLSA
ad nx gone.test 60 MX
servfail _25._tcp.bogus.test TLSA`))
	a, err := r.TLSA(t.Context(), "_25._tcp.plain.test")
	if err != nil || a.Authentic || !a.Proven || a.NXDomain || len(a.Records) != 0 || a.TTL != time.Minute {
		t.Errorf("insecure NODATA: %+v, %v", a, err)
	}
	a, err = r.TLSA(t.Context(), "_25._tcp.signed.test")
	if err != nil || !a.Authentic || a.NXDomain {
		t.Errorf("secure NODATA: %+v, %v", a, err)
	}
	mx, err := r.MX(t.Context(), "gone.test")
	if err != nil || !mx.Authentic || !mx.NXDomain || mx.Canonical != "gone.test" {
		t.Errorf("NXDOMAIN: %+v, %v", mx, err)
	}
	if a, err = r.TLSA(t.Context(), "_25._tcp.bogus.test"); !errors.Is(err, resolver.ErrServFail) || !reflect.DeepEqual(a, resolver.Answer[resolver.TLSA]{}) {
		t.Errorf("SERVFAIL: %+v, %v", a, err)
	}
}

// DANE-006: the alias is secure, the target is not; asking for the CNAME tells.
func TestDANE006_AliasAskedForByItself(t *testing.T) {
	r := ask(t, zone(t, "ad mx.ex.test 60 CNAME host.insec.test\nhost.insec.test 60 A 192.0.2.1"))
	a, err := r.A(t.Context(), "mx.ex.test")
	if err != nil || a.Authentic || !a.Proven || a.Canonical != "host.insec.test" {
		t.Errorf("A: %+v, %v", a, err)
	}
	c, err := r.CNAME(t.Context(), "mx.ex.test")
	if err != nil || !c.Authentic || !slices.Equal(c.Records, []string{"host.insec.test"}) || c.Canonical != "mx.ex.test" {
		t.Errorf("CNAME: %+v, %v", c, err)
	}
}

// RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM.
func TestDenialsLastAsTheSOASays(t *testing.T) {
	s := (&resolvertest.Server{Handler: func(q *resolvertest.Query) *dns.Msg {
		switch q.Name {
		case "minimum.test":
			return q.Deny(true, 0, "test", 3600, 300)
		case "ttl.test":
			return q.Deny(true, dns.RcodeNameError, ".", 200, 86400)
		case "none.test":
			return q.Answer(true)
		case "foreign.test":
			return q.Deny(true, 0, "example", 3600, 300)
		case `a\.test.test`:
			return q.Deny(true, 0, "test.test", 3600, 300)
		case "chain.test":
			m := q.Deny(true, 0, "test", 3600, 300)
			m.Answer = q.Answer(true, "chain.test. 30 CNAME end.test.").Answer
			return m
		case "huge.test":
			return q.Deny(true, 0, "test", 3600, 1<<31)
		}
		return nil
	}}).Start(t)
	r := ask(t, s)
	for name, want := range map[string]time.Duration{
		"minimum.test": 300 * time.Second, "ttl.test": 200 * time.Second, "none.test": 0,
		"foreign.test": 0, "chain.test": 30 * time.Second, "huge.test": 0, `a\.test.test`: 0, // one label "a.test" below test: not in test.test
	} {
		a, err := r.A(t.Context(), name)
		if err != nil || a.TTL != want || len(a.Records) != 0 || a.NXDomain != (name == "ttl.test") {
			t.Errorf("%s: %+v, %v; want %v", name, a, err, want)
		}
	}
}

func TestNamesOutAreSafe(t *testing.T) {
	r := ask(t, zone(t, `ex.test 60 MX 1 A\.b.C\032\010\200\\\"x.test.`))
	a, err := r.MX(t.Context(), "ex.test")
	want := `a\.b.c\032\010\200\\\"x.test`
	if err != nil || len(a.Records) != 1 || a.Records[0].Host != want {
		t.Fatalf("%+v, %v; want %s", a.Records, err, want)
	}
	// And it can be asked for again.
	s := (&resolvertest.Server{Handler: func(q *resolvertest.Query) *dns.Msg {
		if q.Name != strings.Replace(want, `\032`, `\ `, 1) { // as the library spells it
			return nil
		}
		m := q.Answer(true, "x. 60 A 192.0.2.1")
		m.Answer[0].Header().Name = m.Question[0].Name
		return m
	}}).Start(t)
	b, err := ask(t, s).A(t.Context(), want)
	if err != nil || b.Name != want || len(b.Records) != 1 {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestBadNamesAreNotAsked(t *testing.T) {
	s := zone(t, "ad . 60 MX 0 .")
	r := ask(t, s)
	for _, name := range []string{
		"", "..", ".ex.test", "ex..test", "ex.test..", strings.Repeat("a", 64) + ".test",
		strings.Repeat("a.", 127) + "test", "bücher.test", "a b.test", "a\n.test", "a\x00.test", `a\`, `a\25.test`, `a\256.test`, strings.Repeat("x", 5000),
	} {
		if _, err := r.A(t.Context(), name); !errors.Is(err, resolver.ErrBadName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if s.Count() != 0 {
		t.Errorf("%d packets went out", s.Count())
	}
	if a, err := r.MX(t.Context(), "."); err != nil || a.Name != "." || a.Canonical != "." || a.Records[0].Host != "." {
		t.Errorf("the root: %+v, %v", a, err)
	}
	longest := strings.Repeat("a.", 126) + "a" // 253
	if _, err := r.A(t.Context(), longest); !errors.Is(err, resolver.ErrRefused) {
		t.Errorf("253 octets: %v", err)
	}
}
