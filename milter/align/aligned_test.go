package align

import "testing"

func TestAligned(t *testing.T) {
	org := func(psl string) Organization { return Organization{PSL: psl, Walk: psl} }
	list := func(psl string) Organization { return Organization{PSL: psl} }
	differ := func(psl, walk string) Organization { return Organization{PSL: psl, Walk: walk} }
	ex := org("ex.test")
	for _, test := range []struct {
		name, author, domain string
		strict               bool
		a, b                 Organization
		want                 Alignment
	}{
		{"DM010 identical", "ex.test", "ex.test", false, ex, ex, IsAligned},
		{"DM010 d= below", "ex.test", "mail.ex.test", false, ex, ex, IsAligned},
		{"DM010 d= above", "a.b.ex.test", "ex.test", false, ex, ex, IsAligned},
		{"DM010 beside", "b.ex.test", "a.ex.test", false, ex, ex, IsAligned},
		{"DM010 another", "ex.test", "ex2.test", false, ex, org("ex2.test"), NotAligned},
		{"DM010 strict identical", "ex.test", "ex.test", true, ex, ex, IsAligned},
		{"DM010 strict below", "ex.test", "mail.ex.test", true, ex, ex, NotAligned},
		{"DM010 strict above", "mail.ex.test", "ex.test", true, ex, ex, NotAligned},
		{"DM010 nothing known", "ex.test", "mail.ex.test", false, Organization{}, Organization{}, AlignmentUnknown},
		{"DM010 identical, nothing known", "ex.test", "ex.test", false, Organization{}, Organization{}, IsAligned},
		{"DM010 no domain", "ex.test", "", false, ex, Organization{}, NotAligned},
		{"DM010 no author", "", "", false, ex, ex, NotAligned},
		{"DM011 d=co.uk", "x.co.uk", "co.uk", false, org("x.co.uk"), Organization{Suffix: ICANNSuffix, Walk: "co.uk"}, NotAligned},
		{"DM011 d=com, From com", "com", "com", false, Organization{Suffix: ICANNSuffix}, Organization{Suffix: ICANNSuffix}, NotAligned},
		{"DM011 d=com, From com, strict", "com", "com", true, Organization{Suffix: ICANNSuffix}, Organization{Suffix: ICANNSuffix}, NotAligned},
		{"DM011 customers of a private suffix", "a.github.io", "b.github.io", false, org("a.github.io"), org("b.github.io"), NotAligned},
		{"DM011 private suffix, identical", "github.io", "github.io", false, Organization{Suffix: PrivateSuffix}, Organization{Suffix: PrivateSuffix}, IsAligned},
		{"DM011 private suffix, d= below", "github.io", "a.github.io", false, Organization{Suffix: PrivateSuffix, Walk: "github.io"}, differ("a.github.io", "github.io"), NotAligned},
		{"DM011 private suffix, d= above", "a.github.io", "github.io", false, differ("a.github.io", "github.io"), Organization{Suffix: PrivateSuffix, Walk: "github.io"}, NotAligned},
		{"DM024 psd=n", "news.ex.test", "ex.test", false, differ("ex.test", "news.ex.test"), ex, Differs},
		{"DM024 only the walk", "a.github.io", "x.a.github.io", false, differ("a.github.io", "x"), differ("b.github.io", "x"), Differs},
		{"DM024 no walk", "mail.ex.test", "ex.test", false, list("ex.test"), list("ex.test"), IsAligned},
		{"DM024 walk without answer, list says yes", "mail.ex.test", "ex.test", false, Organization{PSL: "ex.test", Temp: true}, ex, IsAligned},
		{"DM024 walk without answer, list says no", "ex.test", "ex2.test", false, Organization{PSL: "ex.test", Temp: true}, org("ex2.test"), AlignmentUnknown},
		{"DM022 parents without records", "a.ex.test", "b.ex.test", false, differ("ex.test", "a.ex.test"), differ("ex.test", "b.ex.test"), Differs},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Aligned(test.author, test.domain, test.strict, test.a, test.b); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
			if got := Aligned(test.domain, test.author, test.strict, test.b, test.a); got != test.want {
				t.Errorf("the other way round: %d, want %d", got, test.want)
			}
		})
	}
}

func TestCheckAlignment(t *testing.T) {
	from := func(domain string) func(m *Message) {
		return func(m *Message) { m.set("From", "From: a@"+domain) }
	}
	psdN := func(m *Message) {
		from("news.ex.test")(m)
		m.Organizations["news.ex.test"] = Organization{PSL: "ex.test", Walk: "news.ex.test"}
		m.DMARC.At = "news.ex.test"
	}
	checkAll(t, []verdictCase{
		{"DM005 U-label in From", func(m *Message) {
			m.UTF8 = UTF8Yes
			m.set("From", "From: x@bücher.test")
			m.Signatures = []Signature{fine("xn--bcher-kva.test")}
		}, ""},
		{"DM010 below", from("mail.ex.test"), ""},
		{"DM010 strict", func(m *Message) { from("mail.ex.test")(m); m.DMARC.StrictDKIM = true }, "unaligned=fail"},
		{"DM024 psd=n", psdN, "alignment-differs=weak"},
		{"DM024 psd=n, another signature", func(m *Message) { psdN(m); m.Signatures = append(m.Signatures, fine("news.ex.test")) }, ""},
		{"DM024 an own one broken beside one that differs", func(m *Message) {
			psdN(m)
			m.Signatures = append(m.Signatures, broken("news.ex.test", CauseSignature))
		}, "signature-invalid=weak alignment-differs=weak"},
		{"DM022 without a record the walk does not matter", func(m *Message) { psdN(m); m.DMARC = DMARC{} }, "dmarc-missing=weak"},
		{"DM024 no answer to the walk", func(m *Message) {
			from("mail.ex.test")(m)
			m.Organizations["mail.ex.test"] = Organization{PSL: "ex.test", Temp: true}
		}, "dns-trouble=info"},
		{"DM024 no answer to the walk, list says no", func(m *Message) {
			from("ex2.test")(m)
			m.Organizations["ex2.test"] = Organization{PSL: "ex2.test", Temp: true}
		}, "dns-trouble=info"},
		{"no organizations known", func(m *Message) { from("mail.ex.test")(m); m.Organizations = nil }, ""},
	})
}
