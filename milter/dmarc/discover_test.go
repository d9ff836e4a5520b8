package dmarc

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestDiscover(t *testing.T) {
	for _, test := range []struct {
		name, domain string
		zone         []string
		newer, older string // "at policy", empty when none applies
		trouble      string // part of Trouble
	}{
		{"DM030 own record", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=reject; sp=none"}, "ex.test reject", "ex.test reject", ""},
		{"DM030 of the organization", "a.b.ex.test", []string{"_dmarc.ex.test v=DMARC1; p=reject"}, "ex.test reject", "ex.test reject", ""},
		{"DM030 between", "a.b.ex.test", []string{"_dmarc.b.ex.test v=DMARC1; p=reject"}, "b.ex.test reject", "", "RFC 7489 find no"},
		{"DM030 the organization before what is between", "a.b.ex.test", []string{"_dmarc.b.ex.test v=DMARC1; p=reject", "_dmarc.ex.test v=DMARC1; p=none"}, "ex.test none", "ex.test none", ""},
		{"DM030 psd=n between", "a.b.ex.test", []string{"_dmarc.b.ex.test v=DMARC1; p=reject; psd=n", "_dmarc.ex.test v=DMARC1; p=none"}, "b.ex.test reject", "ex.test none", "two DMARC records"},
		{"DM030 public suffix", "ex.test", []string{"_dmarc.test v=DMARC1; p=quarantine; psd=y"}, "test quarantine", "", "RFC 7489 find no"},
		{"DM030 organization without record below a suffix with one", "a.ex.test", []string{"_dmarc.test v=DMARC1; p=none; sp=reject; psd=y", "a.ex.test"}, "test reject", "", "RFC 7489 find no"},
		{"DM030 organization before the suffix", "a.ex.test", []string{"_dmarc.test v=DMARC1; p=reject; psd=y", "_dmarc.ex.test v=DMARC1; p=none"}, "ex.test none", "ex.test none", ""},
		{"DM030 two records", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=none", "_dmarc.ex.test v=DMARC1; p=reject"}, "", "", "several DMARC records"},
		{"DM030 two records, one above", "a.ex.test", []string{"_dmarc.a.ex.test v=DMARC1; p=none", "_dmarc.a.ex.test v=DMARC1; p=reject", "_dmarc.ex.test v=DMARC1; p=reject"}, "ex.test reject", "", "several DMARC records"},
		{"DM030 none", "ex.test", nil, "", "", ""},
		{"DM030 other texts", "ex.test", []string{"_dmarc.ex.test v=spf1 -all", "_dmarc.ex.test hello"}, "", "", ""},
		{"DM031 no p, reports", "ex.test", []string{"_dmarc.ex.test v=DMARC1; rua=mailto:x@ex.test"}, "ex.test none", "ex.test none", "not by RFC 7489: there is no p="},
		{"DM031 no p, no reports", "ex.test", []string{"_dmarc.ex.test v=DMARC1; adkim=s"}, "", "", "no valid policy"},
		{"DM031 invalid p, reports", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=block; rua=mailto:x@ex.test"}, "ex.test none", "ex.test none", "not by RFC 7489"},
		{"DM031 invalid sp, reports", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=reject; sp=x; rua=mailto:x@ex.test"}, "ex.test none", "ex.test none", "sp= has no valid"},
		{"DM031 invalid np, reports", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=reject; np=x; rua=mailto:x@ex.test"}, "ex.test none", "ex.test reject", "np= has no valid"},
		{"DM031 invalid np, no reports", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=reject; np=x"}, "", "ex.test reject", "RFC 9989 find no"},
		{"DM031 own record without policy is not passed over", "a.ex.test", []string{"_dmarc.a.ex.test v=DMARC1", "_dmarc.ex.test v=DMARC1; p=reject"}, "", "", "no valid policy"},
		{"DM032 sp", "a.ex.test", []string{"_dmarc.ex.test v=DMARC1; p=reject; sp=quarantine", "a.ex.test"}, "ex.test quarantine", "ex.test quarantine", ""},
		{"DM032 np, missing name", "x.nonexist.ex.test", []string{"_dmarc.ex.test v=DMARC1; p=none; np=reject"}, "ex.test reject", "ex.test none", ""},
		{"DM032 np, name exists", "a.ex.test", []string{"_dmarc.ex.test v=DMARC1; p=none; np=reject", "a.ex.test"}, "ex.test none", "ex.test none", ""},
		{"DM032 np before sp, missing name", "x.ex.test", []string{"_dmarc.ex.test v=DMARC1; p=none; sp=quarantine; np=reject"}, "ex.test reject", "ex.test quarantine", ""},
		{"DM032 a name below exists", "a.ex.test", []string{"_dmarc.ex.test v=DMARC1; p=none; np=reject", "sel._domainkey.a.ex.test key"}, "ex.test none", "ex.test none", ""},
		{"DM032 np does not concern the domain itself", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=none; np=reject"}, "ex.test none", "ex.test none", ""},
		{"DM032 t=y", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=reject; t=y"}, "ex.test quarantine", "ex.test reject", ""},
		{"DM032 t=y, sp", "a.ex.test", []string{"_dmarc.ex.test v=DMARC1; p=none; sp=quarantine; t=y", "a.ex.test"}, "ex.test none", "ex.test quarantine", ""},
		{"DM032 pct is ignored", "ex.test", []string{"_dmarc.ex.test v=DMARC1; p=reject; pct=0"}, "ex.test reject", "ex.test reject", ""},
		{"DM005 U-labels", "Bücher.Test", []string{"_dmarc.xn--bcher-kva.test v=DMARC1; p=reject"}, "xn--bcher-kva.test reject", "xn--bcher-kva.test reject", ""},
		{"DM030 no name", "a..b", nil, "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := zone(test.zone...).discoverer().Discover(context.Background(), test.domain)
			if got := show(&d.RFC9989); got != test.newer {
				t.Errorf("RFC 9989: %q, want %q", got, test.newer)
			}
			if got := show(&d.RFC7489); got != test.older {
				t.Errorf("RFC 7489: %q, want %q", got, test.older)
			}
			if got := d.Trouble(); (got == "") != (test.trouble == "") || !strings.Contains(got, test.trouble) {
				t.Errorf("trouble %q, want %q", got, test.trouble)
			}
			if d.Err() != nil || d.Found() != (test.newer != "" || test.older != "") || d.Found() && show(d.Applied()) == "" {
				t.Errorf("found %v, error %v", d.Found(), d.Err())
			}
		})
	}
}

func show(r *Reading) string {
	if !r.Found {
		return ""
	}
	return r.At + " " + r.Policy.String()
}

func TestDM023_OneQuestionWhenTheDomainPublishes(t *testing.T) {
	w := zone("_dmarc.mail.ex.test v=DMARC1; p=none; np=reject", "_dmarc.ex.test v=DMARC1; p=reject")
	w.discoverer().Discover(context.Background(), "mail.ex.test")
	w.wantAsked(t, "_dmarc.mail.ex.test")
}

// TestDM021_OneMoreQuestion: the name itself is asked for only where np= differs.
func TestDM021_OneMoreQuestion(t *testing.T) {
	w := zone("_dmarc.ex.test v=DMARC1; p=none; np=reject")
	w.discoverer().Discover(context.Background(), "a.ex.test")
	w.wantAsked(t, "_dmarc.a.ex.test", "_dmarc.ex.test", "_dmarc.test", "a.ex.test")

	w = zone("_dmarc.ex.test v=DMARC1; p=none; np=none")
	w.discoverer().Discover(context.Background(), "a.ex.test")
	w.wantAsked(t, "_dmarc.a.ex.test", "_dmarc.ex.test", "_dmarc.test")
}

func TestDM032_Exists(t *testing.T) {
	w := zone("_dmarc.ex.test v=DMARC1; p=none; np=reject")
	d := w.discoverer()
	exists, failure := true, error(nil)
	d.Exists = func(_ context.Context, domain string) (bool, error) {
		if domain != "a.ex.test" {
			t.Errorf("asked for %s", domain)
		}
		return exists, failure
	}
	if got := d.Discover(context.Background(), "a.ex.test"); got.RFC9989.Policy != None || got.Nonexistent {
		t.Errorf("exists: %+v", got)
	}
	exists = false
	if got := d.Discover(context.Background(), "a.ex.test"); got.RFC9989.Policy != Reject || !got.Nonexistent {
		t.Errorf("does not exist: %+v", got)
	}
	failure = errServfail
	if got := d.Discover(context.Background(), "a.ex.test"); !errors.Is(got.Err(), errServfail) || !got.RFC7489.Found {
		t.Errorf("no answer: %+v", got)
	}
}

func TestDM034_NoAnswer(t *testing.T) {
	for _, test := range []struct {
		name         string
		zone         []string
		newer, older bool // whether it has an error
	}{
		{"at the domain", []string{"_dmarc.a.b.ex.test SERVFAIL", "_dmarc.ex.test v=DMARC1; p=none"}, true, true},
		{"between", []string{"_dmarc.b.ex.test SERVFAIL", "_dmarc.ex.test v=DMARC1; p=none"}, true, false},
		{"at the organization", []string{"_dmarc.ex.test SERVFAIL"}, true, true},
		{"at the top", []string{"_dmarc.test SERVFAIL", "_dmarc.ex.test v=DMARC1; p=none"}, true, false},
		{"elsewhere", []string{"_dmarc.a.b.ex.test v=DMARC1; p=none", "_dmarc.ex.test SERVFAIL"}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := zone(test.zone...).discoverer().Discover(context.Background(), "a.b.ex.test")
			if (d.RFC9989.Err != nil) != test.newer || (d.RFC7489.Err != nil) != test.older || (d.Err() != nil) != (test.newer || test.older) {
				t.Errorf("%v, %v", d.RFC9989.Err, d.RFC7489.Err)
			}
			if d.Err() != nil && !errors.Is(d.Err(), errServfail) || d.Trouble() != "" {
				t.Errorf("%v, %q", d.Err(), d.Trouble())
			}
			if d.RFC9989.Err == nil != d.RFC9989.Found || d.RFC7489.Err == nil != d.RFC7489.Found {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestDM010_Strictness(t *testing.T) {
	d := zone("_dmarc.b.ex.test v=DMARC1; p=none; psd=n; adkim=s", "_dmarc.ex.test v=DMARC1; p=none; aspf=s").discoverer().Discover(context.Background(), "a.b.ex.test")
	if !d.StrictDKIM() || !d.StrictSPF() {
		t.Errorf("%+v", d)
	}
	if d := zone("_dmarc.ex.test v=DMARC1; p=none").discoverer().Discover(context.Background(), "ex.test"); d.StrictDKIM() || d.StrictSPF() {
		t.Errorf("%+v", d)
	}
}
