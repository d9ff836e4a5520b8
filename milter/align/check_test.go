package align

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestCheckAuthor(t *testing.T) {
	from := func(lines ...string) func(m *Message) {
		return func(m *Message) {
			m.set("From", lines...)
			m.Signatures[0].Headers = append(m.Signatures[0].Headers, "from", "sender")
		}
	}
	ours := func(configured, own, forwarded bool) func(m *Message) {
		return func(m *Message) { m.DomainsConfigured, m.AuthorOurs, m.Forwarded = configured, own, forwarded }
	}
	checkAll(t, []verdictCase{
		{"DM001 no From", from(), "from-missing=fail"},
		{"DM001 no From, header cut", func(m *Message) { from()(m); m.HeaderCut = true }, "from-missing=fail size-limit=weak"},
		{"DM001 From cut", func(m *Message) { from()(m); m.HeaderCut, m.FromCut = true, true }, "from-invalid=fail size-limit=weak"},
		{"DM001 two From fields", from("From: a@ex.test", "From: b@ex.test"), "from-multiple=fail"},
		{"DM001 two From fields, the same", from("From: a@ex.test", "From: a@ex.test"), "from-multiple=fail"},
		{"DM001 two authors, one domain", from("From: a@ex.test, b@ex.test", "Sender: a@ex.test"), "from-authors=info"},
		{"DM001 two domains", from("From: a@ex.test, b@ex2.test", "Sender: a@ex.test"), "from-multiple=fail"},
		{"DM001 101 authors", from("From: " + strings.Repeat("a@ex.test, ", 100) + "a@ex.test"), "from-invalid=fail sender-missing=weak from-authors=info"},
		{"DM002 two authors without Sender", from("From: a@ex.test, b@ex.test"), "sender-missing=weak from-authors=info"},
		{"DM003 empty", from("From: <>"), "from-invalid=fail"},
		{"DM003 no address", from("From: undisclosed"), "from-invalid=fail"},
		{"DM003 empty group", from("From: a:;"), "from-invalid=fail"},
		{"DM004 comment with an address", from("From: (x@evil.test) a@ex.test"), "from-ambiguous=weak"},
		{"DM004 name with an address", from(`From: "ceo@bank.test" <a@ex.test>`), "from-spoof-like=info"},
		{"DM006 localhost", from("From: a@localhost"), "from-invalid=fail"},
		{"DM006 local", from("From: a@host.local"), "from-invalid=fail"},
		{"DM006 literal", from("From: a@[192.0.2.1]"), "from-invalid=fail"},
		{"DM006 BLK013 does not exist", func(m *Message) { m.AuthorHost = HostNonexistent }, "from-unresolvable=weak"},
		{"DM006 BLK013 takes no mail", func(m *Message) { m.AuthorHost = HostNoAddress }, "from-unresolvable=info"},
		{"DM006 BLK013 resolves", func(m *Message) { m.AuthorHost = HostResolves }, ""},
		{"DM007 ours", ours(true, true, false), ""},
		{"DM007 foreign", ours(true, false, false), "from-foreign=fail"},
		{"DM007 foreign, forwarded", ours(true, false, true), ""},
		{"DM007 any domain is ours", ours(false, false, false), ""},
		{"DM007 headers excuse nothing", func(m *Message) {
			ours(true, false, false)(m)
			m.set("Resent-From", "Resent-From: a@ex2.test")
			m.set("List-Id", "List-Id: <l.ex2.test>")
		}, "from-foreign=fail oneclick-missing=weak"},
		{"BLK008 gmail.com", func(m *Message) {
			from("From: a@gmail.com")(m)
			m.DMARC.At = "gmail.com"
			m.Organizations["gmail.com"] = Organization{PSL: "gmail.com", Walk: "gmail.com"}
		}, "unaligned=fail from-foreign=weak"},
		{"BLK008 gmail.com itself", func(m *Message) { from("From: a@gmail.com")(m); m.Signatures[0].Domain = "gmail.com" }, ""},
		{"BLK012 gmail.com, forwarded", func(m *Message) {
			from("From: a@gmail.com")(m)
			m.Signatures[0].Domain = "gmail.com"
			m.Forwarded = true
		}, ""},
		{"sender not allowed", func(m *Message) { m.Sender = Sender{true, "login eve may not use alice@ex.test"} }, "sender-not-allowed=fail"},
	})
}

func TestCheckPublished(t *testing.T) {
	record := func(d DMARC) func(m *Message) { return func(m *Message) { m.DMARC = d } }
	spf := func(s ...SPF) func(m *Message) {
		return func(m *Message) {
			for i := range s {
				s[i].Address = netip.MustParseAddr("192.0.2.1")
			}
			m.SPF = s
		}
	}
	bulk := func(m *Message) {
		m.Bulk = true
		m.set("List-Unsubscribe", "List-Unsubscribe: <https://ex.test/u/1>")
		m.set("List-Unsubscribe-Post", "List-Unsubscribe-Post: List-Unsubscribe=One-Click")
	}
	checkAll(t, []verdictCase{
		{"BLK004 no record", record(DMARC{}), "dmarc-missing=weak"},
		{"BLK004 DM035 no record, bulk", func(m *Message) { bulk(m); m.DMARC = DMARC{} }, "dmarc-missing=fail"},
		{"DM035 record, bulk", bulk, ""},
		{"DM034 nobody answered", record(DMARC{Temp: true}), "dns-trouble=info"},
		{"DM034 nobody answered, bulk", func(m *Message) { bulk(m); m.DMARC = DMARC{Temp: true} }, "dns-trouble=info"},
		{"DM031 invalid for some", record(DMARC{Found: true, Policy: "none", Invalid: "there is no p="}), "dmarc-invalid=weak"},
		{"DM031 invalid for all", record(DMARC{Invalid: "several records"}), "dmarc-missing=weak"},
		{"DM036 policy and lists are no matter of one message", record(DMARC{Found: true, Policy: "reject"}), ""},
		{"somebody else's", func(m *Message) { m.DMARC, m.Forwarded = DMARC{}, true }, ""},
		{"DM012 SPF passes", spf(SPF{Result: "pass", Domain: "ex.test"}), ""},
		{"DM012 SPF passes, aligned", spf(SPF{Result: "pass", Domain: "mail.ex.test"}), ""},
		{"DM012 strict", func(m *Message) { spf(SPF{Result: "pass", Domain: "mail.ex.test"})(m); m.DMARC.StrictSPF = true }, "spf-egress=weak"},
		{"DM013 SPF not aligned", spf(SPF{Result: "pass", Domain: "ex2.test"}), "spf-egress=weak"},
		{"DM013 SPF not aligned, forwarded", func(m *Message) { spf(SPF{Result: "pass", Domain: "ex2.test"})(m); m.Forwarded = true }, ""},
		{"DM012 fail", spf(SPF{Result: "fail", Domain: "ex.test"}), "spf-egress=weak"},
		{"DM012 one of two fails", spf(SPF{Result: "pass", Domain: "ex.test"}, SPF{Result: "softfail", Domain: "ex.test"}), "spf-egress=weak"},
		{"DM012 none", spf(SPF{Result: "none", Domain: "ex.test"}), "spf-egress=weak"},
		{"DM012 BLK025 permerror", spf(SPF{Result: "permerror", Domain: "ex.test"}), "spf-egress=weak"},
		{"BLK025 +all", spf(SPF{Result: "pass", Domain: "ex.test", Weak: "it ends in +all"}), "spf-egress=weak"},
		{"DM034 SPF without answer", spf(SPF{Result: "temperror", Domain: "ex.test"}), "dns-trouble=info"},
		{"DM015 null sender", func(m *Message) { spf(SPF{Result: "fail", Domain: "ex.test"})(m); m.NullSender = true }, ""},
	})
}

func TestCheckHeader(t *testing.T) {
	add := func(lines ...string) func(m *Message) {
		return func(m *Message) {
			m.Fields = append(m.Fields, fields(lines...)...)
			for _, l := range lines {
				name, _, _ := strings.Cut(l, ":")
				m.Signatures[0].Headers = append(m.Signatures[0].Headers, strings.TrimSpace(name))
			}
		}
	}
	set := func(name string, lines ...string) func(m *Message) {
		return func(m *Message) { m.set(name, lines...) }
	}
	utf := func(u UTF8, line string) func(m *Message) {
		return func(m *Message) { m.UTF8 = u; add(line)(m) }
	}
	checkAll(t, []verdictCase{
		{"BLK007 BLK021 two Subjects", add("Subject: again"), "header-duplicate=weak"},
		{"BLK021 two Dates", add("Date: Mon, 01 Jun 2026 11:59:00 +0000"), "header-duplicate=fail"},
		{"BLK021 two Dates and two Subjects", add("Subject: again", "Date: Mon, 01 Jun 2026 11:59:00 +0000"), "header-duplicate=fail"},
		{"BLK021 case of names", add("SUBJECT: again"), "header-duplicate=weak"},
		{"BLK021 space before the colon", add("Subject : again"), "header-duplicate=weak"},
		{"BLK021 Received may repeat", add("Received: a", "Received: b", "Comments: x", "Comments: y"), ""},
		{"BLK021 no Date", set("Date"), "date-missing=fail"},
		{"BLK021 no Message-ID", set("Message-ID"), "message-id-missing=weak"},
		{"BLK021 no Message-ID, bulk", func(m *Message) {
			m.Bulk = true
			m.set("Message-ID")
			m.set("List-Unsubscribe", "List-Unsubscribe: <https://ex.test/u/1>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click")
		}, "message-id-missing=fail"},
		{"BLK021 header cut", func(m *Message) { m.set("Message-ID"); m.set("Date"); m.HeaderCut = true }, "size-limit=weak"},
		{"BLK022 no brackets", set("Message-ID", "Message-ID: a@ex.test"), "message-id-invalid=weak"},
		{"BLK023 eight days ago", set("Date", "Date: Sun, 24 May 2026 11:59:00 +0000"), "date-skewed=weak"},
		{"BLK023 eight days ahead", set("Date", "Date: Tue, 9 Jun 2026 12:59:00 +0000"), "date-skewed=weak"},
		{"BLK023 six days ago", set("Date", "Date: Tue, 26 May 2026 13:59:00 +0000 (UTC)"), ""},
		{"BLK023 no date", set("Date", "Date: yesterday"), "date-invalid=weak"},
		{"BLK023 empty date", set("Date", "Date:"), "date-invalid=weak"},
		{"BLK024 UTF-8 without SMTPUTF8", utf(UTF8No, "X: é"), "header-8bit=fail"},
		{"BLK024 UTF-8, not known", utf(UTF8Unknown, "X: é"), "header-8bit=weak"},
		{"BLK024 UTF-8 with SMTPUTF8", utf(UTF8Yes, "X: é"), ""},
		{"BLK024 Latin-1 with SMTPUTF8", utf(UTF8Yes, "X: \xe9"), "header-8bit=fail"},
		{"BLK024 Latin-1, not known", utf(UTF8Unknown, "X: \xe9"), "header-8bit=fail"},
		{"BLK024 UTF-8, not known, but the envelope needs it", func(m *Message) { utf(UTF8Unknown, "X: é")(m); m.MailFrom = "é@ex.test" }, ""},
		{"BLK024 NUL", add("X: a\x00b"), "header-invalid=fail"},
		{"BLK024 bare CR", add("X: a\rb"), "header-invalid=fail"},
		{"BLK024 bare LF", add("X: a\nb"), "header-invalid=fail"},
		{"BLK024 bare LF in a fold", add("X: a\n b"), "header-invalid=fail"},
		{"BLK024 two CR at the end", add("X: a\r"), "header-invalid=fail"},
		{"BLK024 fold", add("X: a\r\n b\r\n\tc"), ""},
		{"BLK024 no colon", add("no field"), "header-invalid=fail"},
		{"BLK024 blank in the name", add("no field: x"), "header-invalid=fail"},
		{"K026 8bit body", func(m *Message) { m.EightBitBody = true }, "fragile-8bit=weak"},
		{"K026 BLK007 999 octets", func(m *Message) { m.LongLine = 999 }, "fragile-longline=weak"},
		{"K026 BLK007 998 octets", func(m *Message) { m.LongLine = 998 }, ""},
		{"body with NUL", func(m *Message) { m.BodyInvalid = true }, "body-invalid=weak"},
		{"MLT30 TLS-Required", add("TLS-Required: No"), "tls-required-no=info"},
		{"MLT30 twice", add("TLS-Required: No", "TLS-Required: No"), "tls-required-no=info"},
		{"MLT30 another value", add("TLS-Required: yes"), ""},
	})
}

func TestBLK022_MessageID(t *testing.T) {
	for id, want := range map[string]bool{
		"<a@ex.test>": true, "<a.b+c/d=@mail.ex.test>": true, " <a@ex.test> ": true, "<a@ex.test> (comment)": true, "(c) <a@ex.test>": true,
		"<a@[192.0.2.1]>": true, "<a@xn--bcher-kva.test>": true, "<a@bücher.test>": true, "<a@ex_1.test>": true,
		"": false, "a@ex.test": false, "<a@ex.test": false, "<a>": false, "<@ex.test>": false, "<a@>": false, "<a@host>": false, "<a@localhost>": false,
		"<a b@ex.test>": false, "<a@ex.test> <b@ex.test>": false, "<<a@ex.test>>": false, "<a@b@ex.test>": false, "<a@ex.test.>": false,
		"<a@ex..test>": false, "<a@[192.0.2.1>": false, "<a@host.local>": false, "<a@ex.test> x": false, "(open <a@ex.test>": false,
	} {
		if got := badMessageID(id); (got == "") != want {
			t.Errorf("%s: %q", id, got)
		}
	}
}

func TestCheckBulk(t *testing.T) {
	const uri, post = "List-Unsubscribe: <mailto:u@ex.test>, <https://ex.test/u/1>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click"
	mail := func(bulk bool, lines ...string) func(m *Message) {
		return func(m *Message) { m.Bulk = bulk; m.Fields = append(m.Fields, fields(lines...)...) }
	}
	unsigned := func(bulk bool) func(m *Message) {
		return func(m *Message) {
			mail(bulk, uri, post)(m)
			m.Signatures[0].Headers = []string{"from", "from", "to", "subject", "date", "message-id", "list-unsubscribe"}
		}
	}
	checkAll(t, []verdictCase{
		{"BLK009 BLK020 as it should be", mail(false, uri, post), ""},
		{"BLK020 as it should be, bulk", mail(true, uri, post), ""},
		{"BLK020 folded, white space in the URI", mail(true, "List-Unsubscribe: (comment)\r\n <https://ex.test/\r\n u/1>", post), ""},
		{"BLK020 no Post", mail(false, uri), "oneclick-missing=weak"},
		{"BLK020 no Post, bulk", mail(true, uri), "oneclick-missing=fail"},
		{"BLK020 nothing, bulk", mail(true), "oneclick-missing=fail"},
		{"BLK020 nothing, no bulk", mail(false), ""},
		{"BLK020 List-Id", mail(false, "List-Id: <l.ex.test>"), "oneclick-missing=weak"},
		{"BLK020 Precedence", mail(false, "Precedence: bulk"), "oneclick-missing=weak"},
		{"BLK020 another Precedence", mail(false, "Precedence: first-class"), ""},
		{"BLK020 Precedence of a bounce", func(m *Message) { mail(false, "Precedence: bulk")(m); m.NullSender = true }, ""},
		{"BLK020 http", mail(true, "List-Unsubscribe: <http://ex.test/u/1>", post), "oneclick-missing=fail"},
		{"BLK020 http beside https", mail(true, "List-Unsubscribe: <http://ex.test/u/1>, <https://ex.test/u/1>", post), "oneclick-missing=fail"},
		{"BLK020 mailto only", mail(false, "List-Unsubscribe: <mailto:u@ex.test>", post), "oneclick-missing=weak"},
		{"BLK020 two HTTPS URIs", mail(true, "List-Unsubscribe: <https://ex.test/1>, <https://ex.test/2>", post), "oneclick-missing=fail"},
		{"BLK020 two fields", mail(true, uri, uri, post), "oneclick-missing=fail"},
		{"BLK020 two Post fields", mail(true, uri, post, post), "oneclick-missing=fail"},
		{"BLK020 Post of another value", mail(true, uri, "List-Unsubscribe-Post: One-Click"), "oneclick-missing=fail"},
		{"BLK020 URI without brackets", mail(true, "List-Unsubscribe: https://ex.test/1", post), "oneclick-missing=fail"},
		{"BLK020 Post not signed", unsigned(false), "oneclick-unsigned=weak"},
		{"BLK020 Post not signed, bulk", unsigned(true), "oneclick-unsigned=fail"},
		{"BLK020 covered by a broken signature only", func(m *Message) {
			unsigned(true)(m)
			m.Signatures = append(m.Signatures, broken("esp.test", CauseSignature))
			m.Signatures[1].Ours = false
		}, "oneclick-unsigned=fail signature-invalid=info"},
		{"BLK020 covered by a third party's signature", func(m *Message) { unsigned(true)(m); m.Signatures = append(m.Signatures, fine("esp.test")) }, ""},
		{"BLK020 covered by one whose key nobody answered for", func(m *Message) {
			unsigned(true)(m)
			m.Signatures = append(m.Signatures, with(fine("ex.test"), func(s *Signature) { s.Status = TempError }))
		}, "dns-trouble=info"},
	})
}

func TestNamesAndOrder(t *testing.T) {
	names := Names()
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("%v", names)
	}
	for name := range refusals {
		if !slices.Contains(names, name) {
			t.Errorf("refusals of %s, which is no finding", name)
		}
	}
	// The names that the world was promised.
	for name := range strings.FieldsSeq(`unsigned signature-invalid key-missing key-mismatch key-revoked key-weak key-testing signature-expires
		body-length-limit headers-unsigned unaligned from-missing from-multiple from-invalid from-foreign sender-not-allowed spf-egress dmarc-missing
		oneclick-missing oneclick-unsigned fragile-8bit fragile-longline header-duplicate tls-required-no`) {
		if !slices.Contains(names, name) {
			t.Errorf("no finding %s", name)
		}
	}
	if len(names) > 63 {
		t.Errorf("%d names", len(names))
	}
}

func TestK052_Codes(t *testing.T) {
	for name, want := range map[string]string{Unsigned: "5.7.20", SignatureInvalid: "5.7.20", KeyWeak: "5.7.21", Unaligned: "5.7.22"} {
		if !slices.ContainsFunc(Refusals(name), func(r Refusal) bool { return r.Code == "550 "+want }) {
			t.Errorf("%s has no code %s of RFC 7372", name, want)
		}
	}
	for name, all := range refusals {
		for _, r := range all {
			if len(r.Code) < 9 || r.Code[:1] != r.Code[4:5] || r.Code[3] != ' ' || r.Receiver == "" || r.Text == "" {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if len(all) > 0 && code(name) != all[0].Code {
			t.Errorf("code of %s", name)
		}
	}
	if Refusals(TLSRequiredNo) != nil || code(TLSRequiredNo) != "" {
		t.Error("a code for what nobody refuses")
	}
}

func TestClass(t *testing.T) {
	if Info.String()+Weak.String()+Fail.String()+Class(9).String() != "infoweakfail?" {
		t.Error("names of classes")
	}
	if Worst(nil) != Info || Worst([]Finding{{Class: Weak}, {Class: Fail}, {Class: Info}}) != Fail {
		t.Error("worst")
	}
}
