package dkim_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/postseal/postseal/milter/dkim"
)

// keyCases are key records for a good signature of the RSA key; {P} stands for
// that key in base64.
func keyCases(t testing.TB) []keyCase {
	public := record(t, "rsa2048")
	_, p, _ := strings.Cut(public, "p=")
	pkcs1 := base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(keys()["rsa2048"].Public().(*rsa.PublicKey)))
	_, ed, _ := strings.Cut(record(t, "ed25519"), "p=")
	spki, err := x509.MarshalPKIXPublicKey(keys()["ed25519"].Public())
	if err != nil {
		t.Fatal(err)
	}
	cases := []keyCase{
		{"K030/as it is", []string{"v=DKIM1; k=rsa; p={P}"}, ""},
		{"K030/p alone", []string{"p={P}"}, ""},
		{"K030/semicolon at the end", []string{"p={P};"}, ""},
		{"K031/none", nil, dkim.KeyMissing},
		{"K031/nobody answers", []string{nobody}, dkim.KeyUnavailable},
		{"K031/several", []string{"v=DKIM1; p={P}", "v=DKIM1; p={P}"}, dkim.KeyNotUnique},
		{"K031/another record", []string{"v=spf1 -all", "p={P}"}, dkim.KeyNotUnique},
		{"K032/v is not first", []string{"k=rsa; v=DKIM1; p={P}"}, dkim.KeyMalformed},
		{"K032/v=DKIM2", []string{"v=DKIM2; p={P}"}, dkim.KeyMalformed},
		{"K032/v=dkim1", []string{"v=dkim1; p={P}"}, dkim.KeyMalformed},
		{"K032/SPF", []string{"v=spf1 -all"}, dkim.KeyMalformed},
		{"K032/empty record", []string{""}, dkim.KeyMalformed},
		{"K032/unknown k", []string{"k=dsa; p={P}"}, dkim.KeyWrongType},
		{"K032/letter case of k", []string{"k=RSA; p={P}"}, ""},
		{"K032/h has sha256", []string{"h=sha1:sha256; p={P}"}, ""},
		{"K032/h white space and letter case", []string{"h= sha1 : SHA256 ; p={P}"}, ""},
		{"K032/h lacks sha256", []string{"h=sha1; p={P}"}, dkim.KeyWrongHash},
		{"K032/h empty", []string{"h=; p={P}"}, dkim.KeyWrongHash},
		{"K032/unknown tags", []string{"v=DKIM1; g=; foo=bar; n=a note; p={P}"}, ""},
		{"K032/twice", []string{"k=rsa; k=rsa; p={P}"}, dkim.KeyMalformed},
		{"K032/no tag", []string{"k=rsa; foo; p={P}"}, dkim.KeyMalformed},
		{"K033/revoked", []string{"v=DKIM1; p="}, dkim.KeyRevoked},
		{"K033/revoked, blank", []string{"v=DKIM1; k=foo; p= ;"}, dkim.KeyRevoked},
		{"K033/missing", []string{"v=DKIM1; k=rsa"}, dkim.KeyMalformed},
		{"K033/not base64", []string{"p=!{P}"}, dkim.KeyMalformed},
		{"K033/cut", []string{"p=" + p[:200]}, dkim.KeyMalformed},
		{"K033/not ASN.1", []string{"p=AAAA"}, dkim.KeyMalformed},
		{"K033/white space", []string{"p=" + p[:50] + " \t\r\n " + p[50:]}, ""},
		{"K033/RSAPublicKey", []string{"p=" + pkcs1}, ""},
		{"K033/quotes", []string{`p="{P}"`}, dkim.KeyMalformed},
		{"K033/another kind of key", []string{"p=" + base64.StdEncoding.EncodeToString(spki)}, dkim.KeyMalformed},
		{"K034/512", []string{record(t, "rsa512")}, dkim.KeyWeak},
		{"K036/other type", []string{"k=ed25519; p=" + ed}, dkim.KeyWrongType},
		{"K036/default is rsa", []string{"p=" + ed}, dkim.KeyMalformed},
		{"K040/testing", []string{"t=y; p={P}"}, ""},
		{"K040/flags", []string{"t=x: y :z; p={P}"}, ""},
		{"K043/strict, i is d", []string{"t=s; p={P}"}, ""},
		{"K044/email", []string{"s=email; p={P}"}, ""},
		{"K044/any", []string{"s=foo:*; p={P}"}, ""},
		{"K044/another", []string{"s=tlsrpt; p={P}"}, dkim.KeyWrongUse},
		{"K044/none", []string{"s=; p={P}"}, dkim.KeyWrongUse},
		{"another key", []string{record(t, "other")}, dkim.AnotherKey},
		{"another size", []string{record(t, "rsa1024")}, dkim.AnotherKey},
	}
	for _, c := range cases {
		for i := range c.records {
			c.records[i] = strings.Replace(c.records[i], "{P}", p, 1)
		}
	}
	return cases
}

type keyCase struct {
	name    string
	records []string
	want    dkim.Cause
}

func (c keyCase) zone() zone { return zone{"rsa2048._domainkey.ex.test": c.records} }

// TestKey holds the reading of key records, RFC 6376 §3.6.1.
func TestKey(t *testing.T) {
	for _, c := range keyCases(t) {
		t.Run(c.name, func(t *testing.T) {
			r := one(t, c.zone(), message(basic().sign(t)))
			want(t, r, c.want)
			if temporary := c.want == dkim.KeyUnavailable; (r.Status == dkim.TempError) != temporary {
				t.Errorf("status %v", r.Status)
			}
			if r.Key.Name != "rsa2048._domainkey.ex.test" {
				t.Errorf("name %q", r.Key.Name)
			}
		})
	}
}

func TestK034_K035_Strength(t *testing.T) {
	for _, c := range []struct {
		key, algorithm, note string
		class                dkim.Class
		bits                 int
	}{
		{"rsa1024", "rsa-sha256", dkim.NoteKeyShort, dkim.Weak, 1024},
		{"rsa2048", "rsa-sha256", "", 0, 2048},
		{"rsa4096", "rsa-sha256", "", 0, 4096},
		{"rsa5120", "rsa-sha256", dkim.NoteKeyLong, dkim.Weak, 5120},
		{"ed25519", "ed25519-sha256", dkim.NoteEd25519, dkim.Info, 256},
	} {
		s := basic().with("s="+c.key, "a="+c.algorithm)
		s.key = c.key
		r := one(t, world(t), message(s.sign(t)))
		want(t, r, "")
		if r.Key.Bits != c.bits || r.Algorithm != c.algorithm || !strings.HasPrefix(c.algorithm, r.Key.Type) {
			t.Errorf("%s: %+v %s", c.key, r.Key, r.Algorithm)
		}
		for _, name := range []string{dkim.NoteKeyShort, dkim.NoteKeyLong, dkim.NoteEd25519} {
			if name == c.note {
				wantNote(t, r, name, c.class)
			} else if _, ok := hasNote(r, name); ok {
				t.Errorf("%s: note %s", c.key, name)
			}
		}
	}
}

// TestK035_OnlyRaw: an Ed25519 key in ASN.1 is refused, by its length.
func TestK035_OnlyRaw(t *testing.T) {
	spki, err := x509.MarshalPKIXPublicKey(keys()["ed25519"].Public())
	if err != nil {
		t.Fatal(err)
	}
	s := basic().with("s=ed25519", "a=ed25519-sha256")
	s.key = "ed25519"
	z := world(t)
	z["ed25519._domainkey.ex.test"] = []string{"k=ed25519; p=" + base64.StdEncoding.EncodeToString(spki)}
	want(t, one(t, z, message(s.sign(t))), dkim.KeyMalformed)
	z["ed25519._domainkey.ex.test"] = []string{record(t, "other-e")}
	want(t, one(t, z, message(s.sign(t))), dkim.HeaderChanged)
	z["ed25519._domainkey.ex.test"] = []string{record(t, "rsa2048")}
	want(t, one(t, z, message(s.sign(t))), dkim.KeyWrongType)
}

func TestK040_K043_Flags(t *testing.T) {
	z := world(t)
	z["rsa2048._domainkey.ex.test"] = []string{strings.Replace(record(t, "rsa2048"), "; p=", "; t=y:s; h=sha256:x; s=email:foo; n=a note; p=", 1)}
	r := one(t, z, message(basic().with("i=a@EX.test").sign(t)))
	want(t, r, "")
	wantNote(t, r, dkim.NoteKeyTesting, dkim.Weak)
	k := r.Key
	if !k.Testing || !k.Strict || k.Notes != "a note" || !slices.Equal(k.Hashes, []string{"sha256", "x"}) || !slices.Equal(k.Services, []string{"email", "foo"}) {
		t.Errorf("%+v", k)
	}
	want(t, one(t, z, message(basic().sign(t))), "")
	want(t, one(t, z, message(basic().with("i=a@sub.ex.test").sign(t))), dkim.KeyStrict)
}

// TestK030_Lookups: each name once, only those that matter, and none
// before the end.
func TestK030_Lookups(t *testing.T) {
	z, asked := world(t), []string(nil)
	v := dkim.Verifier{Lookup: func(ctx context.Context, name string) ([]string, error) {
		asked = append(asked, name)
		return z.lookup(ctx, name)
	}}
	good, other := basic().sign(t), basic().with("d=EX.Test", "s=Missing").sign(t)
	bad := basic().with("a=rsa-sha1", "s=sha1").sign(t)
	fields, _ := split(t, good+good+bad+other+basic().with("h=To", "s=no-from").sign(t)+testHeader+"\r\n")
	m := v.Begin(fields)
	want := []string{"rsa2048._domainkey.ex.test", "missing._domainkey.ex.test"}
	if names := m.Keys(); !slices.Equal(names, want) {
		t.Errorf("keys %q", names)
	}
	if len(asked) > 0 {
		t.Errorf("asked for %q too early", asked)
	}
	if results := m.Finish(t.Context()); len(results) != 5 || !slices.Equal(asked, want) {
		t.Errorf("%d results, asked for %q", len(results), asked)
	}
}
