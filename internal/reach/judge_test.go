package reach

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// The rules of OpenSSL's X509_check_host with Postfix's flags.
func TestSTS073_DANE036_MatchHost(t *testing.T) {
	for _, c := range []struct {
		presented, wanted string
		want              bool
	}{
		{"mx.ex.test", "mx.ex.test", true},
		{"MX.Ex.Test", "mx.ex.test", true},
		{"mx.ex.test", "ex.test", false},
		{"mx.ex.test.", "mx.ex.test", false},
		{"*.ex.test", "mx.ex.test", true},
		{"*.EX.test", "mx.ex.test", true},
		{"*.ex.test", "ex.test", false},
		{"*.ex.test", "a.mx.ex.test", false},
		{"*.ex.test", ".ex.test", true},
		{"*.ex.test", "*.ex.test", true},
		{"*.ex.test", "xn--bcher-kva.ex.test", true},
		{"*.ex.test", "a_b.ex.test", false},
		{"*.test", "ex.test", false},
		{"*", "test", false},
		{"m*.ex.test", "mx.ex.test", false},
		{"*x.ex.test", "mx.ex.test", false},
		{"mx.*.test", "mx.ex.test", false},
		{"*.*.test", "mx.ex.test", false},
		{"*.-ex.test", "mx.-ex.test", false},
		{"mx.ex.test", ".ex.test", true},
		{"a.b.ex.test", ".ex.test", true},
		{"ex.test", ".ex.test", false},
		{"notex.test", ".ex.test", false},
		{"*.mx.ex.test", ".ex.test", true},
		{"mx.ex.test\x00.evil.test", ".evil.test", false},
		{"mx.ex.test", ".", false},
		{"", "mx.ex.test", false},
	} {
		if got := matchHost(c.presented, c.wanted); got != c.want {
			t.Errorf("certificate %q, wanted %q: %v", c.presented, c.wanted, got)
		}
	}
}

func TestDANE036_Names(t *testing.T) {
	p := newPKI(t)
	cn := issue(t, p.root, "cn.ex.test", nil).cert
	two := issue(t, p.root, "a.test", func(c *x509.Certificate) {
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "one.test"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "two.test"},
		}}
	}).cert
	san := issue(t, p.root, "cn.ex.test", named("san.ex.test")).cert
	address := issue(t, p.root, "cn.ex.test", func(c *x509.Certificate) {
		c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")}
	}).cert
	for _, c := range []struct {
		cert *x509.Certificate
		want string
		ok   bool
	}{
		{cn, "cn.ex.test", true},
		{two, "one.test", true},
		{two, "two.test", true},
		{san, "cn.ex.test", false}, // RFC 6125 §6.4.4: there is a DNS name
		{san, "san.ex.test", true},
		{san, "other.test san.ex.test", true},
		{address, "cn.ex.test", true}, // an address is no DNS name
		{address, "192.0.2.1", true},
		{address, "[192.0.2.1]", true},
		{address, "2001:DB8::1", true},
		{address, "192.0.2.2", false},
		{address, "192.0.2.1 cn.ex.test", true},
		{address, "192.0.2.1 other.test", false},
		{cn, "", false},
	} {
		if got := matchNames(c.cert, strings.Fields(c.want)); got != c.ok {
			t.Errorf("%v %v, wanted %q: %v", c.cert.Subject, c.cert.DNSNames, c.want, got)
		}
	}
}

func TestStrategies(t *testing.T) {
	goal := Target{Host: "MX.ex.test.", Nexthop: "Bücher.test"}
	for in, want := range map[string]string{
		"hostname": "mx.ex.test", "Nexthop": "xn--bcher-kva.test", "dot-nexthop": ".xn--bcher-kva.test", ".Parent.test": ".parent.test",
		"a.test.": "a.test", ".": "", "": "", ".bücher.test": ".xn--bcher-kva.test", "*.ex.test": "*.ex.test",
	} {
		if got := goal.name(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// daneCase is a chain, its TLSA records and whether they authenticate it. The
// same cases are put to openssl s_client.
type daneCase struct {
	name    string
	host    *identity
	records []TLSA
	names   []string // beside mx.ex.test
	meets   bool
	cause   string
}

func record(usage, selector, kind uint8, c *x509.Certificate) TLSA {
	data := c.Raw
	if selector == spki {
		data = c.RawSubjectPublicKeyInfo
	}
	r := TLSA{usage, selector, kind, data}
	switch kind {
	case sha2256:
		r.Data = mustHex(digest(data, 32))
	case sha2512:
		r.Data = mustHex(digest(data, 64))
	}
	return r
}

func daneCases(t testing.TB) []daneCase {
	p := newPKI(t)
	at := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.DNSNames, c.NotBefore, c.NotAfter = []string{"mx.ex.test"}, time.Now().Add(from), time.Now().Add(to)
		}
	}
	withRoot := func(i *identity) *identity {
		j := *i
		j.above = append(append([]*x509.Certificate(nil), i.above...), p.root.cert)
		return &j
	}
	good := issue(t, p.middle, "mx.ex.test", named("mx.ex.test"))
	full := withRoot(good)
	old := issue(t, p.middle, "mx.ex.test", at(-48*time.Hour, -24*time.Hour))
	other := issue(t, p.middle, "other.test", named("other.test"))
	lonely := issue(t, nil, "mx.ex.test", named("mx.ex.test"))
	oldMiddle := issue(t, p.root, "Old Middle", func(c *x509.Certificate) {
		authority(c)
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	})
	underOld := issue(t, oldMiddle, "mx.ex.test", named("mx.ex.test"))
	oldRoot := issue(t, nil, "Old Root", func(c *x509.Certificate) {
		authority(c)
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	})
	underOldRoot := issue(t, oldRoot, "mx.ex.test", named("mx.ex.test"))
	underOldRoot.above = []*x509.Certificate{oldRoot.cert}
	bare := &identity{cert: good.cert, key: good.key} // without the chain
	client := issue(t, p.middle, "mx.ex.test", func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"mx.ex.test"}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	bad := func(r TLSA) TLSA {
		r.Data = append([]byte(nil), r.Data...)
		r.Data[len(r.Data)-1] ^= 1
		return r
	}
	const mismatch, no = "num=65", false
	var all []daneCase
	add := func(name string, host *identity, meets bool, cause string, records ...TLSA) {
		all = append(all, daneCase{name, host, records, nil, meets, cause})
	}
	for _, s := range []uint8{cert, spki} {
		for _, k := range []uint8{0, sha2256, sha2512} {
			add(fmt.Sprintf("DANE-033 3 %d %d", s, k), good, true, "", record(3, s, k, good.cert))
			add(fmt.Sprintf("DANE-034 2 %d %d", s, k), full, true, "", record(2, s, k, p.root.cert))
			add(fmt.Sprintf("DANE-034 2 %d %d, middle", s, k), good, true, "", record(2, s, k, p.middle.cert))
		}
	}
	add("DANE-033 mismatch", good, no, mismatch, bad(record(3, spki, sha2256, good.cert)))
	add("DANE-033 one of two", good, true, "", bad(record(3, spki, sha2256, good.cert)), record(3, cert, sha2256, good.cert))
	add("DANE-033 expired", old, true, "", record(3, spki, sha2256, old.cert))
	add("DANE-033 wrong name", other, true, "", record(3, spki, sha2256, other.cert))
	add("DANE-033 self-signed", lonely, true, "", record(3, spki, sha2256, lonely.cert))
	add("DANE-033 for clients", client, true, "", record(3, spki, sha2256, client.cert))
	add("DANE-033 the issuer's digest", full, no, mismatch, record(3, spki, sha2256, p.middle.cert))
	add("DANE-034 mismatch", full, no, mismatch, record(2, spki, sha2256, p.foreign.cert))
	add("DANE-034 expired", withRoot(old), no, "certificate has expired", record(2, spki, sha2256, p.root.cert))
	add("DANE-034 wrong name", withRoot(other), no, "num=62:hostname mismatch", record(2, spki, sha2256, p.root.cert))
	add("DANE-034 for clients", withRoot(client), no, "not designated", record(2, spki, sha2256, p.root.cert))
	add("DANE-034 anchor not sent", good, no, mismatch, record(2, cert, sha2256, p.root.cert))
	add("DANE-034 anchor not sent, of many", bare, no, mismatch, record(2, spki, sha2512, p.middle.cert))
	add("DANE-034 self-signed host as anchor", lonely, no, mismatch, record(2, cert, sha2256, lonely.cert))
	add("DANE-034 expired anchor below another", underOld, true, "", record(2, spki, sha2256, oldMiddle.cert))
	add("DANE-034 expired root as anchor", underOldRoot, no, "certificate has expired", record(2, cert, sha2256, oldRoot.cert))
	add("DANE-034 expired between", withRoot(underOld), no, "certificate has expired", record(2, cert, sha2256, p.root.cert))
	add("DANE-035 2 0 0, not sent", good, true, "", record(2, cert, 0, p.root.cert))
	add("DANE-035 2 0 0, nothing sent", bare, true, "", record(2, cert, 0, p.middle.cert))
	add("DANE-035 2 1 0, not sent", good, true, "", record(2, spki, 0, p.root.cert))
	add("DANE-035 2 1 0, nothing sent", bare, true, "", record(2, spki, 0, p.middle.cert))
	add("DANE-035 2 1 0, foreign", good, no, mismatch, record(2, spki, 0, p.foreign.cert))
	add("DANE-037 bad 256, good 512", good, true, "", bad(record(3, spki, sha2256, good.cert)), record(3, spki, sha2512, good.cert))
	add("DANE-037 good 256, bad 512", good, no, mismatch, record(3, spki, sha2256, good.cert), bad(record(3, spki, sha2512, good.cert)))
	add("DANE-037 good 256, bad 512 elsewhere", good, true, "", record(3, spki, sha2256, good.cert), bad(record(3, cert, sha2512, good.cert)))
	add("DANE-037 good full, bad 512", good, true, "", record(3, spki, 0, good.cert), bad(record(3, spki, sha2512, good.cert)))
	add("DANE-030 unusable beside good", good, true, "", TLSA{1, 1, 1, make([]byte, 32)}, TLSA{3, 1, 1, []byte{1}}, record(3, spki, sha2256, good.cert))
	all = append(all, daneCase{"DANE-034 next hop's name", withRoot(other), []TLSA{record(2, spki, sha2256, p.root.cert)}, []string{"other.test"}, true, ""})
	return all
}

func TestDANE033_DANE034_DANE035_DANE037_Judge(t *testing.T) {
	for _, c := range daneCases(t) {
		for _, level := range []Level{DANE, DANEOnly} {
			d, err := demandOf(&Target{Host: "mx.ex.test", Nexthop: "ex.test", Level: level, TLSA: c.records, Match: c.names})
			if err != nil || d.level != level || d.hopeless != "" {
				t.Fatalf("%s: %+v %v", c.name, d, err)
			}
			j := judge(d, c.host.chain(), x509.NewCertPool(), time.Now())
			if j.meets != c.meets || j.doubt != "" || !strings.Contains(j.cause, c.cause) || (j.trust == verified) != c.meets {
				t.Errorf("%s: %+v", c.name, j)
			}
		}
	}
}

func TestDANE030_DANE031_DANE032_Demand(t *testing.T) {
	id := issue(t, newPKI(t).root, "mx.ex.test", nil)
	sum := make([]byte, 32)
	ok := TLSA{3, 1, 1, sum}
	for _, c := range []struct {
		name     string
		level    Level
		records  []TLSA
		want     Level
		usable   int
		hopeless string
	}{
		{"usable", DANE, []TLSA{ok}, DANE, 1, ""},
		{"usable among others", DANEOnly, []TLSA{{0, 0, 1, sum}, ok, {3, 1, 1, sum[:31]}}, DANEOnly, 1, ""},
		{"none", DANE, nil, May, 0, ""},
		{"none, only", DANEOnly, nil, DANEOnly, 0, "no TLSA records found"},
		{"usage 0", DANE, []TLSA{{0, 0, 1, sum}}, Encrypt, 0, ""},
		{"usage 1", DANEOnly, []TLSA{{1, 0, 1, sum}}, DANEOnly, 0, "TLSA records unusable"},
		{"usage 4", DANE, []TLSA{{4, 0, 1, sum}}, Encrypt, 0, ""},
		{"selector 2", DANE, []TLSA{{3, 2, 1, sum}}, Encrypt, 0, ""},
		{"matching type 3", DANE, []TLSA{{3, 1, 3, sum}}, Encrypt, 0, ""},
		{"SHA-512 of 32 octets", DANE, []TLSA{{3, 1, 2, sum}}, Encrypt, 0, ""},
		{"empty", DANE, []TLSA{{3, 1, 0, nil}}, Encrypt, 0, ""},
		{"garbage", DANE, []TLSA{{3, 0, 0, []byte("garbage")}}, Encrypt, 0, ""},
		{"a certificate as a key", DANE, []TLSA{{3, 1, 0, id.cert.Raw}}, Encrypt, 0, ""},
		{"a key as a certificate", DANE, []TLSA{{3, 0, 0, id.cert.RawSubjectPublicKeyInfo}}, Encrypt, 0, ""},
		{"a certificate and more", DANE, []TLSA{{3, 0, 0, append(append([]byte(nil), id.cert.Raw...), 0)}}, Encrypt, 0, ""},
		{"a certificate", DANE, []TLSA{{3, 0, 0, id.cert.Raw}}, DANE, 1, ""},
		{"a key", DANE, []TLSA{{2, 1, 0, id.cert.RawSubjectPublicKeyInfo}}, DANE, 1, ""},
	} {
		d, err := demandOf(&Target{Host: "mx.ex.test", Level: c.level, TLSA: c.records})
		if err != nil || d.level != c.want || len(d.records) != c.usable || d.hopeless != c.hopeless {
			t.Errorf("%s: %+v %v", c.name, d, err)
		}
	}
}

// TestDoubt: what only Go refuses is no evidence.
func TestDoubt(t *testing.T) {
	p := newPKI(t)
	odd := issue(t, p.middle, "mx.ex.test", func(c *x509.Certificate) {
		c.DNSNames = []string{"mx.ex.test"}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	})
	d, _ := demandOf(&Target{Host: "mx.ex.test", Level: Verify})
	if j := judge(d, odd.chain(), p.roots, time.Now()); j.meets || j.doubt == "" {
		t.Errorf("%+v", j)
	}
	unread := TLSA{3, spki, 0, mustHex("300a300506032b6570030100")} // too short a key
	d, _ = demandOf(&Target{Host: "mx.ex.test", Level: DANE, TLSA: []TLSA{unread}})
	if j := judge(d, odd.chain(), nil, time.Now()); len(d.records) != 1 || j.meets || j.doubt == "" {
		t.Errorf("%+v %+v", d, j)
	}
}

func TestKeysTellDemandsApart(t *testing.T) {
	base := Target{Host: "mx.ex.test", Nexthop: "ex.test", Level: Encrypt}
	key := func(edit func(*Target)) string {
		goal := base
		edit(&goal)
		d, err := demandOf(&goal)
		if err != nil {
			t.Fatal(err)
		}
		return d.key()
	}
	same := key(func(*Target) {})
	if key(func(t *Target) { t.Nexthop = "other.test"; t.Match = []string{"x"} }) != same {
		t.Error("at encrypt the destination does not count")
	}
	seen := map[string]int{same: -1}
	for i, edit := range []func(*Target){
		func(t *Target) { t.Level = Verify },
		func(t *Target) { t.Level = Secure },
		func(t *Target) { t.Level, t.Nexthop = Secure, "other.test" },
		func(t *Target) { t.Level, t.Match = Secure, []string{"a.test"} },
		func(t *Target) { t.Level, t.Match = Secure, []string{"a.test", "b.test"} },
		func(t *Target) { t.ServerName = "hostname" },
		func(t *Target) { t.MinVersion = 0x304 },
		func(t *Target) { t.Level = May },
		func(t *Target) { t.Level, t.Match = Fingerprint, []string{"00"} },
		func(t *Target) { t.Level = DANEOnly },
		func(t *Target) { t.Level, t.TLSA = DANEOnly, []TLSA{{1, 1, 1, nil}} },
		func(t *Target) { t.Level, t.TLSA = DANEOnly, []TLSA{{3, 1, 1, make([]byte, 32)}} },
		func(t *Target) { t.Level, t.TLSA = DANE, []TLSA{{3, 1, 1, make([]byte, 32)}} },
	} {
		k := key(edit)
		if j, ok := seen[k]; ok {
			t.Errorf("%d and %d: %s", i, j, k)
		}
		seen[k] = i
	}
}
