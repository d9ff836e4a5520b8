package dmarc

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseRecord(t *testing.T) {
	for _, test := range []struct {
		name, txt string
		ok        bool
		p         Policy
		strict    string // part of Strict7489
	}{
		{"DM033 as usual", "v=DMARC1; p=reject; rua=mailto:x@ex.test", true, Reject, ""},
		{"DM033 no white space", "v=DMARC1;p=none", true, None, ""},
		{"DM033 white space everywhere", "v = DMARC1 ;\tp = quarantine ; ", true, Quarantine, ""},
		{"DM033 version first", "p=none; v=DMARC1", false, 0, ""},
		{"DM033 version is case-sensitive", "v=dmarc1; p=none", false, 0, ""},
		{"DM033 name of the version is not", "V=DMARC1; p=none", true, None, ""},
		{"DM033 white space before", " v=DMARC1; p=none", false, 0, ""},
		{"DM033 longer version", "v=DMARC10; p=none", false, 0, ""},
		{"DM033 no semicolon", "v=DMARC1 p=none", false, 0, ""},
		{"DM033 case of names and values", "v=DMARC1; P=Reject", true, Reject, ""},
		{"DM033 unknown tags", "v=DMARC1; p=none; x=y; pct=50; rf=afrf; ri=1", true, None, ""},
		{"DM033 version alone", "v=DMARC1", true, Absent, "there is no p="},
		{"DM033 SPF record", "v=spf1 -all", false, 0, ""},
		{"DM033 empty", "", false, 0, ""},
		{"DM031 no p", "v=DMARC1; rua=mailto:x@ex.test", true, Absent, "there is no p="},
		{"DM031 invalid p", "v=DMARC1; p=monitor", true, Absent, "no valid value"},
		{"DM031 p not second", "v=DMARC1; sp=none; p=none", true, None, "does not follow"},
		{"DM031 p twice", "v=DMARC1; p=none; p=reject", true, None, "repeated"},
		{"DM031 not a tag", "v=DMARC1; p=none; garbage; =x; ;", true, None, ""},
		{"DM031 too many tags", "v=DMARC1; p=none" + strings.Repeat("; x=y", 200), false, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := ParseRecord(test.txt)
			if test.ok != (err == nil) || err != nil && !errors.Is(err, ErrNotDMARC) {
				t.Fatalf("error %v", err)
			}
			if r.P != test.p || (test.strict == "") != (r.Strict7489 == "") || !strings.Contains(r.Strict7489, test.strict) {
				t.Errorf("p=%v, RFC 7489: %q", r.P, r.Strict7489)
			}
		})
	}
}

func TestDM033_Tags(t *testing.T) {
	r, err := ParseRecord("v=DMARC1; p=none; sp=quarantine; np=REJECT; adkim=s; aspf=S; t=y; psd=n; rua=mailto:a@ex.test!10m")
	if err != nil {
		t.Fatal(err)
	}
	if r.SP != Quarantine || r.NP != Reject || !r.StrictDKIM || !r.StrictSPF || !r.Testing || r.PSD != Organizational || !r.Reports {
		t.Errorf("%+v", r)
	}
	r, err = ParseRecord("v=DMARC1; p=none; sp=no; np=; adkim=strict; aspf=x; t=yes; psd=maybe; rua=x@ex.test")
	if err != nil {
		t.Fatal(err)
	}
	if r.SP != Absent || !r.InvalidSP || !r.InvalidNP || r.StrictDKIM || r.StrictSPF || r.Testing || r.PSD != Unspecified || r.Reports || len(r.Notes) != 7 {
		t.Errorf("%+v", r)
	}
}

func TestDM031_ReportURI(t *testing.T) {
	for uri, want := range map[string]bool{
		"mailto:a@ex.test": true, "MAILTO:a@ex.test": true, "mailto:a@ex.test!10m": true, "a@ex.test": false, "mailto:": false, "mailto:a": false,
		"https://ex.test/report": true, "x, mailto:a@ex.test": true, "": false, ",": false, "https:": false,
	} {
		if got := hasURI(uri); got != want {
			t.Errorf("%q: %v", uri, got)
		}
	}
}

// format writes a record that reads as r.
func format(r Record) string {
	b := "v=DMARC1"
	add := func(tag, value string) {
		if value != "" {
			b += "; " + tag + "=" + value
		}
	}
	letter := func(yes bool, s string) string {
		if yes {
			return s
		}
		return ""
	}
	add("p", r.P.String())
	add("sp", r.SP.String())
	add("np", r.NP.String())
	add("adkim", letter(r.StrictDKIM, "s"))
	add("aspf", letter(r.StrictSPF, "s"))
	add("t", letter(r.Testing, "y"))
	add("psd", string(rune(r.PSD)))
	add("rua", letter(r.Reports, "mailto:a@ex.test"))
	return b
}

// same compares what the tags say.
func same(a, b Record) bool {
	return a.P == b.P && a.SP == b.SP && a.NP == b.NP && a.StrictDKIM == b.StrictDKIM && a.StrictSPF == b.StrictSPF &&
		a.Testing == b.Testing && a.PSD == b.PSD && a.Reports == b.Reports
}

// FuzzParseRecord: what is read can be written and is then read as the same, and
// only what begins with the version is read.
func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{"v=DMARC1; p=reject; sp=none; np=quarantine; rua=mailto:a@b.c", "v=DMARC1", "v = DMARC1 ; P= None;;t=y ; psd=y", "v=spf1", "v=DMARC1;p=\x00;=;;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		r, err := ParseRecord(txt)
		if err != nil {
			if r.Text != "" || !errors.Is(err, ErrNotDMARC) {
				t.Fatalf("%+v, %v", r, err)
			}
			return
		}
		if !IsRecord(txt) || !strings.Contains(txt, "DMARC1") {
			t.Fatalf("%q is taken as a record", txt)
		}
		again, err := ParseRecord(format(r))
		if err != nil || !same(r, again) {
			t.Fatalf("%q: %+v, then %+v, %v", txt, r, again, err)
		}
		for _, n := range append(r.Notes, r.Strict7489) {
			if strings.ContainsAny(n, "\r\n\x00") {
				t.Fatalf("note %q", n)
			}
		}
	})
}

// TestDM032_TestingNeverRaises: t=y lowers by one, and no combination of tags
// gives a policy that the record does not name.
func TestDM032_TestingNeverRaises(t *testing.T) {
	policy := rapid.SampledFrom([]Policy{Absent, None, Quarantine, Reject})
	rapid.Check(t, func(t *rapid.T) {
		r := Record{P: policy.Draw(t, "p"), SP: policy.Draw(t, "sp"), NP: policy.Draw(t, "np"), PSD: Unspecified, Reports: rapid.Bool().Draw(t, "rua")}
		missing := rapid.Bool().Draw(t, "missing")
		plain := apply9989("ex.test", r, "a.ex.test", &missing)
		r.Testing = true
		testing := apply9989("ex.test", r, "a.ex.test", &missing)
		if plain.Found != testing.Found || testing.Policy > plain.Policy || plain.Policy-testing.Policy > 1 {
			t.Fatalf("%v without t=y, %v with", plain.Policy, testing.Policy)
		}
		if plain.Found != (plain.Policy != Absent) || plain.Found && r.P != Absent && plain.Policy != r.P && plain.Policy != r.SP && plain.Policy != r.NP {
			t.Fatalf("%+v gives %v", r, plain.Policy)
		}
	})
}
