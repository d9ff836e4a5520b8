package align

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// authorCases are From values, the author's domain, and what is told.
var authorCases = []struct {
	name, value, domain, problems string
}{
	{"DM001 plain", "a@ex.test", "ex.test", ""},
	{"DM001 with a name", "Alice <a@ex.test>", "ex.test", ""},
	{"DM001 quoted name", `"Doe, John" <a@ex.test>`, "ex.test", ""},
	{"DM001 folded", "Alice\r\n\t<a@ex.test>", "ex.test", ""},
	{"DM001 upper case", "A@EX.Test", "ex.test", ""},
	{"DM001 initials", "J. Q. Public <a@ex.test>", "ex.test", ""},
	{"DM001 two, one domain", "a@ex.test, B <b@EX.test>", "ex.test", "from-authors=info sender-missing=weak"},
	{"DM001 two domains", "a@ex.test, b@ex2.test", "", "from-multiple=fail"},
	{"DM001 domain and subdomain", "a@ex.test, b@mail.ex.test", "", "from-multiple=fail"},
	{"DM001 a name and a literal", "a@ex.test, b@[192.0.2.1]", "", "from-multiple=fail"},
	{"DM003 empty brackets", "<>", "", "from-invalid=fail"},
	{"DM003 name and empty brackets", "Alice <>", "", "from-invalid=fail"},
	{"DM003 nothing", "", "", "from-invalid=fail"},
	{"DM003 a word", "undisclosed", "", "from-invalid=fail"},
	{"DM003 empty group", "a:;", "", "from-invalid=fail"},
	{"DM003 undisclosed recipients", "undisclosed-recipients: ;", "", "from-invalid=fail"},
	{"DM003 RFC 6854 group with one", "Team: a@ex.test;", "ex.test", ""},
	{"DM003 group and mailbox", "Team: a@ex.test; , b@ex.test", "ex.test", "from-authors=info sender-missing=weak"},
	{"DM003 no local part", "@ex.test", "ex.test", "from-ambiguous=weak"},
	{"DM003 no domain", "a@", "", "from-invalid=fail"},
	{"DM004 quoted local part", `"a@evil.test"@ex.test`, "ex.test", "from-spoof-like=info"},
	{"DM004 comment with an address", "(x@evil.test) a@ex.test", "ex.test", "from-ambiguous=weak"},
	{"DM004 comment", "(x) a@ex.test", "ex.test", ""},
	{"DM004 comment behind", "a@ex.test (Alice (of Ex))", "ex.test", ""},
	{"DM004 comment within", "a(x)@(y)ex.test", "ex.test", ""},
	{"DM004 comment with a bracket", "(<b@evil.test>) <a@ex.test>", "ex.test", "from-ambiguous=weak"},
	{"DM004 name is an address", `"ceo@bank.test" <a@ex.test>`, "ex.test", "from-spoof-like=info"},
	{"DM004 encoded name is an address", "=?utf-8?q?ceo=40bank.test?= <a@ex.test>", "ex.test", "from-spoof-like=info"},
	{"DM004 unquoted name is an address", "a@bank.test <a@ex.test>", "ex.test", "from-ambiguous=weak"},
	{"DM004 two in brackets", "<a@bank.test> <a@ex.test>", "", "from-ambiguous=weak from-multiple=fail"},
	{"DM004 an address before what is not by the grammar", "a@bank.test, foo <a@ex.test> y", "", "from-ambiguous=weak from-multiple=fail"},
	{"DM004 the same behind a semicolon", "a@ex.test; x <x@ex.test>", "ex.test", "from-ambiguous=weak from-authors=info sender-missing=weak"},
	{"DM004 comma in the name", "Doe, John <a@ex.test>", "ex.test", "from-ambiguous=weak"},
	{"DM004 encoded words", "=?iso-8859-1?q?J=F6rg?= <a@ex.test>", "ex.test", ""},
	{"DM004 encoded words, charset unknown to Go", "=?koi8-r?b?7+7v?= =?iso-8859-15?q?=A4?= <a@ex.test>", "ex.test", ""},
	{"DM004 name in Latin-1", "J\xf6rg <a@ex.test>", "ex.test", ""},
	{"DM004 name in UTF-8", "Jörg <a@ex.test>", "ex.test", ""},
	{"DM004 route", "<@a,@b:c@d.test>", "d.test", "from-ambiguous=weak"},
	{"DM004 route of one", "Alice <@evil.test:a@ex.test>", "ex.test", "from-ambiguous=weak"},
	{"DM004 trailing dot", "a@ex.test.", "ex.test", "from-ambiguous=weak"},
	{"DM004 obsolete white space", "a . b @ ex . test", "ex.test", "from-ambiguous=weak"},
	{"DM004 dots", "a..b.@ex.test", "ex.test", "from-ambiguous=weak"},
	{"DM004 quote not closed", `"Alice <a@ex.test>`, "ex.test", "from-ambiguous=weak"},
	{"DM004 parenthesis not closed", `(Alice <a@ex.test>`, "ex.test", "from-ambiguous=weak"},
	{"DM004 bracket not closed", "Alice <a@ex.test", "ex.test", "from-ambiguous=weak"},
	{"DM004 text behind", "Alice <a@ex.test> x", "ex.test", "from-ambiguous=weak"},
	{"DM004 no brackets", "Alice a@ex.test", "ex.test", "from-ambiguous=weak"},
	{"DM004 two ats", "a@b@ex.test", "", "from-ambiguous=weak from-multiple=fail"},
	{"DM004 quoted pair", `"a\"b"@ex.test`, "ex.test", ""},
	{"DM004 semicolon for a comma", "a@ex.test; b@ex2.test", "", "from-ambiguous=weak from-multiple=fail"},
	{"DM004 empty elements", ", a@ex.test,,", "ex.test", "from-ambiguous=weak"},
	{"DM005 U-labels", "x@bücher.test", "xn--bcher-kva.test", ""},
	{"DM005 U-labels in capitals", "x@BÜCHER.test", "xn--bcher-kva.test", ""},
	{"DM005 U-label and A-label", "x@bücher.test, y@xn--bcher-kva.test", "xn--bcher-kva.test", "from-authors=info sender-missing=weak"},
	{"DM005 not UTF-8", "x@b\xfccher.test", "", "from-ambiguous=weak from-invalid=fail"},
	{"DM006 single label", "a@localhost", "", "from-invalid=fail"},
	{"DM006 local", "a@host.local", "", "from-invalid=fail"},
	{"DM006 localdomain", "root@host.localdomain", "", "from-invalid=fail"},
	{"DM006 literal", "a@[192.0.2.1]", "", "from-invalid=fail"},
	{"DM006 IPv6 literal", "a@[IPv6:2001:db8::1]", "", "from-ambiguous=weak from-invalid=fail"},
	{"DM006 address without brackets", "a@192.0.2.1", "", "from-invalid=fail"},
	{"DM006 hyphens", "a@-ex.test", "", "from-invalid=fail"},
	{"DM006 empty label", "a@ex..test", "", "from-ambiguous=weak from-invalid=fail"},
	{"DM006 long label", "a@" + strings.Repeat("x", 64) + ".test", "", "from-invalid=fail"},
	{"DM006 long name", "a@" + strings.Repeat("x.", 130) + "test", "", "from-invalid=fail"},
	{"DM006 underscore", "a@ex_1.test", "ex_1.test", ""},
}

func TestParseAuthor(t *testing.T) {
	for _, test := range authorCases {
		t.Run(test.name, func(t *testing.T) {
			a := ParseAuthor(fields("From: " + test.value))
			if got := problems(a); a.Domain != test.domain || got != test.problems {
				t.Errorf("%q, %q; want %q, %q\n%v", a.Domain, got, test.domain, test.problems, a.Problems)
			}
		})
	}
}

func problems(a Author) string {
	var all []string
	for _, p := range a.Problems {
		all = append(all, p.Name+"="+p.Class.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestParseAuthor_Fields(t *testing.T) {
	for _, test := range []struct {
		name, domain, problems string
		lines                  []string
	}{
		{"DM001 none", "", "from-missing=fail", []string{"To: a@ex.test"}},
		{"DM001 two", "", "from-multiple=fail", []string{"From: a@ex.test", "FROM: b@ex2.test"}},
		{"DM001 two of one domain", "ex.test", "from-multiple=fail", []string{"From: a@ex.test", "from : b@ex.test"}},
		{"DM002 Sender", "ex.test", "from-authors=info", []string{"Sender: a@ex.test", "From: a@ex.test, b@ex.test"}},
		{"other fields", "ex.test", "", []string{"Resent-From: c@ex2.test", "From: a@ex.test", "X-From: b@ex2.test"}},
	} {
		if a := ParseAuthor(fields(test.lines...)); a.Domain != test.domain || problems(a) != test.problems {
			t.Errorf("%s: %q, %v", test.name, a.Domain, a.Problems)
		}
	}
}

func TestParseAuthor_Addresses(t *testing.T) {
	a := ParseAuthor(fields(`From: "a b"@EX.test, "x\"y" <c.d@bücher.test>, (c) e@ex.test`))
	want := []Address{{"a b", "ex.test"}, {"c.d", "xn--bcher-kva.test"}, {"e", "ex.test"}}
	if !slices.Equal(a.Addresses, want) || a.Addresses[1].String() != "c.d@xn--bcher-kva.test" {
		t.Errorf("%v", a.Addresses)
	}
}

func TestDM001_FromTooLong(t *testing.T) {
	a := ParseAuthor(fields("From: " + strings.Repeat("x", maxFrom) + " <a@ex.test>"))
	if a.Domain != "" || problems(a) != "from-invalid=fail" {
		t.Errorf("%v", a)
	}
}

// TestParseAuthor_Linear: no shape of a large field takes more than linear time;
// quadratic time for these would be minutes.
func TestParseAuthor_Linear(t *testing.T) {
	const size = maxFrom - 100
	for _, piece := range []string{"(", "\"", "[", "<", "@", ",", ":", ";", ".", "\\", "a@b,", "<a@b>", "(a)", "\"a\"", "=?a?q?b?=", "a ", "a@b.", "<@a,", "a:", "()", "\xff"} {
		for _, form := range []string{"From: %s", "From: %s a@ex.test", "From: a@ex.test %s", "From: <%s@ex.test>"} {
			ParseAuthor(fields(fmt.Sprintf(form, strings.Repeat(piece, size/len(piece)))))
		}
	}
}
