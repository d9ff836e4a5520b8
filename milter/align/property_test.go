package align

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var someDomains = []string{"ex.test", "mail.ex.test", "a.b.ex.test", "ex2.test", "a.github.io", "b.github.io", "github.io", "com", ""}

func drawOrganization(t *rapid.T) Organization {
	return Organization{
		PSL: rapid.SampledFrom([]string{"ex.test", "ex2.test", "a.github.io", ""}).Draw(t, "psl"), Walk: rapid.SampledFrom(someDomains).Draw(t, "walk"),
		Suffix: rapid.SampledFrom([]Suffix{NoSuffix, NoSuffix, NoSuffix, ICANNSuffix, PrivateSuffix}).Draw(t, "suffix"), Temp: rapid.Bool().Draw(t, "temp"),
	}
}

func drawSignature(t *rapid.T) Signature {
	return Signature{
		Domain: rapid.SampledFrom(someDomains).Draw(t, "d"), Selector: rapid.SampledFrom([]string{"s", "\r\n", ""}).Draw(t, "s"),
		Algorithm: rapid.SampledFrom([]string{"rsa-sha256", "ed25519-sha256", ""}).Draw(t, "a"), KeyBits: rapid.SampledFrom([]int{0, 1024, 2048, 8192}).Draw(t, "bits"),
		Status: Status(rapid.IntRange(0, int(PermError)).Draw(t, "status")), Cause: Cause(rapid.IntRange(0, int(CauseExpired)).Draw(t, "cause")),
		Detail: rapid.SampledFrom([]string{"", "x\ny"}).Draw(t, "detail"), Ours: rapid.Bool().Draw(t, "ours"),
		Headers: rapid.SliceOf(rapid.SampledFrom([]string{"From", "Subject", "Date", "List-Unsubscribe", "List-Unsubscribe-Post"})).Draw(t, "h"),
		Expires: rapid.SampledFrom([]time.Time{{}, now, now.Add(time.Hour)}).Draw(t, "x"), SignedAt: rapid.SampledFrom([]time.Time{{}, now.Add(24 * time.Hour)}).Draw(t, "t"),
		HasLength: rapid.Bool().Draw(t, "l"), Length: rapid.Int64Range(0, 3).Draw(t, "length"), Testing: rapid.Bool().Draw(t, "t=y"),
		Notes: rapid.SliceOf(rapid.Just(Note{"letter-case", Weak, "x"})).Draw(t, "notes"),
	}
}

func drawMessage(t *rapid.T) *Message {
	lines := rapid.SliceOf(rapid.SampledFrom([]string{
		"From: a@ex.test", "From: a@mail.ex.test, b@mail.ex.test", "From: x", "From: a@ex.test, b@ex2.test", "From: a@github.io", "Sender: a@ex.test",
		"Date: Mon, 01 Jun 2026 11:59:00 +0000", "Date: x", "Message-ID: <a@ex.test>", "Message-ID: x", "Subject: é", "Subject: \xe9", "DKIM-Signature: v=1",
		"List-Unsubscribe: <https://ex.test/1>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click", "List-Id: x", "TLS-Required: No", "no field", "X: \x00",
	})).Draw(t, "lines")
	m := &Message{
		Fields: fields(lines...), Now: now, AuthorHost: Host(rapid.IntRange(0, 3).Draw(t, "host")), UTF8: UTF8(rapid.IntRange(0, 2).Draw(t, "utf8")),
		NullSender: rapid.Bool().Draw(t, "null"), Forwarded: rapid.Bool().Draw(t, "forwarded"), Bulk: rapid.Bool().Draw(t, "bulk"),
		DomainsConfigured: rapid.Bool().Draw(t, "configured"), AuthorOurs: rapid.Bool().Draw(t, "ours"), SignedBefore: rapid.Bool().Draw(t, "before"),
		Signatures: rapid.SliceOfN(rapid.Custom(drawSignature), 0, 4).Draw(t, "signatures"),
		DMARC: DMARC{
			Found: rapid.Bool().Draw(t, "found"), Policy: "none", StrictDKIM: rapid.Bool().Draw(t, "adkim"), StrictSPF: rapid.Bool().Draw(t, "aspf"),
			Invalid: rapid.SampledFrom([]string{"", "x\ny"}).Draw(t, "invalid"), Temp: rapid.Bool().Draw(t, "temp"),
		},
		Organizations: map[string]Organization{}, EightBitBody: rapid.Bool().Draw(t, "8bit"), LongLine: rapid.SampledFrom([]int{0, 2000}).Draw(t, "line"),
		HeaderCut: rapid.Bool().Draw(t, "cut"), BodyCut: rapid.Bool().Draw(t, "body cut"),
	}
	m.Sender.Denied, m.Sender.Detail = rapid.Bool().Draw(t, "denied"), "x"
	for _, d := range someDomains {
		if rapid.Bool().Draw(t, "known") {
			m.Organizations[d] = drawOrganization(t)
		}
	}
	for _, result := range rapid.SliceOfN(rapid.SampledFrom([]string{"pass", "fail", "none", "temperror", "permerror"}), 0, 2).Draw(t, "spf") {
		m.SPF = append(m.SPF, SPF{netip.MustParseAddr("192.0.2.1"), result, rapid.SampledFrom(someDomains).Draw(t, "spf domain"), ""})
	}
	m.Author = ParseAuthor(m.Fields)
	return m
}

// classOf is the class of a finding; -1 when it is not there.
func classOf(all []Finding, name string) int {
	if i := slices.IndexFunc(all, func(f Finding) bool { return f.Name == name }); i >= 0 {
		return int(all[i].Class)
	}
	return -1
}

// TestCheck_Promises: whatever the evidence, findings are as promised, in order,
// one of a name, and the same each time.
func TestCheck_Promises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		found := Check(m)
		seen := map[string]bool{}
		for i, f := range found {
			checkFinding(t, f)
			if seen[f.Name] {
				t.Fatalf("%s twice", f.Name)
			}
			seen[f.Name] = true
			if i > 0 && (f.Class > found[i-1].Class || f.Class == found[i-1].Class && rank[f.Name] < rank[found[i-1].Name]) {
				t.Fatalf("order: %s", show(found))
			}
		}
		if !slices.Equal(found, Check(m)) {
			t.Fatal("not the same twice")
		}
		slices.Reverse(m.Signatures)
		if got := show(Check(m)); got != show(found) {
			t.Fatalf("K050 the order of signatures matters: %s, then %s", show(found), got)
		}
	})
}

// TestK050_AGoodSignatureNeverHurts: one more signature that passes and is
// aligned makes no finding about signatures or alignment worse than weak, and
// none worse than it was.
func TestK050_AGoodSignatureNeverHurts(t *testing.T) {
	about := []string{Unsigned, SignatureInvalid, KeyMissing, KeyMismatch, KeyRevoked, KeyInvalid, KeyWeak, Unaligned, OneClickUnsigned, Ed25519Only, AlignmentDiffers}
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		if m.Author.Domain == "" || m.Organizations[m.Author.Domain].Suffix == ICANNSuffix {
			return
		}
		before := Check(m)
		m.Signatures = append(m.Signatures, fine(m.Author.Domain))
		after := Check(m)
		for _, name := range about {
			if b, a := classOf(before, name), classOf(after, name); a > int(Weak) && name != OneClickUnsigned || a > b && a > int(Info) && !gained(name, b, a) {
				t.Fatalf("%s: %s\nthen %s", name, show(before), show(after))
			}
		}
		if classOf(after, Unaligned) >= 0 || classOf(after, AlignmentDiffers) >= 0 {
			t.Fatalf("not aligned: %s", show(after))
		}
	})
}

// gained allows what another signature may bring to light: a message that was
// unsigned, or whose signatures were not known, may now be judged.
func gained(name string, before, after int) bool {
	switch name {
	case OneClickUnsigned: // known now, where it was a guess
		return before <= int(Info)
	case SignatureInvalid, KeyMissing, KeyMismatch, KeyRevoked, KeyInvalid, KeyWeak:
		return after <= int(Weak)
	}
	return false
}

// TestDM034_K053_TroubleNeverFails: evidence that turns into "nobody answered"
// brings no finding of class fail that the evidence did not bring.
func TestDM034_K053_TroubleNeverFails(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		known := *m
		known.Organizations = map[string]Organization{}
		known.DMARC.Temp = false
		for d, o := range m.Organizations {
			o.Temp = false
			known.Organizations[d] = o
		}
		before := Check(&known)
		trouble := known
		trouble.Signatures = slices.Clone(known.Signatures)
		for i := range trouble.Signatures {
			if rapid.Bool().Draw(t, "key without answer") {
				trouble.Signatures[i].Status = TempError
			}
		}
		if rapid.Bool().Draw(t, "record without answer") {
			trouble.DMARC = DMARC{Temp: true}
		}
		trouble.Organizations = map[string]Organization{}
		for d, o := range known.Organizations {
			if rapid.Bool().Draw(t, "walk without answer") {
				o.Walk, o.Temp = "", true
			}
			trouble.Organizations[d] = o
		}
		for _, f := range Check(&trouble) {
			if f.Class == Fail && classOf(before, f.Name) < int(Fail) {
				t.Fatalf("%s fails: %s\nbefore %s\nafter  %s", f.Name, f.Detail, show(before), show(Check(&trouble)))
			}
		}
	})
}

// TestHeadersExcuseNothing: one more header field never removes a finding
// of class fail about who sends and who signed.
func TestHeadersExcuseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		before := Check(m)
		m.Fields = append(m.Fields, fields(rapid.SampledFrom([]string{"Resent-From: a@ex.test", "List-Id: <x.ex.test>", "Precedence: list", "Auto-Submitted: auto-replied", "Sender: b@ex2.test", "ARC-Seal: i=1"}).Draw(t, "field"))...)
		m.Author = ParseAuthor(m.Fields)
		after := Check(m)
		for _, f := range before {
			if f.Class == Fail && classOf(after, f.Name) < int(Fail) {
				t.Fatalf("%s is gone: %s", f.Name, show(after))
			}
		}
	})
}

// TestForwardersAreNeverRefusedForAlignment holds the promise of [senders]
// forwarders.
func TestForwardersAreNeverRefusedForAlignment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		m.Forwarded = true
		found := Check(m)
		if classOf(found, FromForeign) >= 0 || classOf(found, Unaligned) == int(Fail) {
			t.Fatal(show(found))
		}
	})
}

// FuzzParseAuthor: when the library's parser and ours each find one address, they
// agree about the domain, or there is a problem.
func FuzzParseAuthor(f *testing.F) {
	for _, s := range []string{
		"a@ex.test", "Alice <a@ex.test>", `"a@evil.test"@ex.test`, "(x@evil.test) a@ex.test", "<@a,@b:c@d.test>", "a@b.test <a@ex.test>", "a:b@c.test;", "\"\\\"<b@c.d>\"@e.f",
		"a@ex.test.", "x@bücher.test", "=?utf-8?q?a?= <a@b.test>", "a@[1.2.3.4]", "(((a@b.c", "a@b.c, d@e.f;g:<h@i.j>", "a@b.c\r\n <d@e.f>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		raw := fields("From: " + value)
		a := ParseAuthor(raw)
		for _, p := range a.Problems {
			checkFinding(t, Finding{Name: p.Name, Class: p.Class, Detail: p.Detail})
		}
		if a.Fields != 1 || len(a.Addresses) > maxAuthors {
			t.Fatalf("%+v", a)
		}
		if a.Domain == "" && !slices.ContainsFunc(a.Problems, func(p Problem) bool { return p.Class == Fail }) {
			t.Fatalf("%q: no domain and no reason", value)
		}
		if a.Domain != "" && (badDomain(a.Domain) != "" || Domain(a.Domain) != a.Domain) {
			t.Fatalf("%q: domain %q", value, a.Domain)
		}
		theirs, err := secondOpinion(unfold([]byte(value)))
		if err != nil || len(theirs) != 1 || len(a.Problems) > 0 {
			return
		}
		if domain := Domain(theirs[0]); len(a.Addresses) != 1 || domain != a.Domain {
			t.Fatalf("%q: %q, the library says %q", value, a.Domain, domain)
		}
	})
}

// FuzzCheck: any header is judged, findings are as promised, and a message
// without a From that can be read fails.
func FuzzCheck(f *testing.F) {
	f.Add("From: a@ex.test\r\nDate: Mon, 01 Jun 2026 11:59:00 +0000\r\nMessage-ID: <a@b.c>\r\nList-Unsubscribe: <https://x.y>")
	f.Add("From: a@ex.test\nX\r\n y: z\x00\r\n: \r\nDKIM-Signature: v=1\r\nSubject : \xff")
	f.Add("Message-ID: ((<a@b.c>)\r\nTLS-Required: no\r\nPrecedence: bulk")
	f.Fuzz(func(t *testing.T, text string) {
		m := message(nil)
		m.Fields = nil
		for _, line := range strings.SplitAfter(text, "\r\n") {
			m.Fields = append(m.Fields, []byte(line))
		}
		m.Author = ParseAuthor(m.Fields)
		found := Check(m)
		for _, finding := range found {
			checkFinding(t, finding)
		}
		if m.Author.Domain == "" && Worst(found) != Fail {
			t.Fatalf("no author and %s", show(found))
		}
		if strings.Contains(text, "\x00") && classOf(found, HeaderInvalid) != int(Fail) {
			t.Fatalf("a NUL and %s", show(found))
		}
	})
}

// TestCheck_LargeHeader: a header of 1 MB is judged in linear time.
func TestCheck_LargeHeader(t *testing.T) {
	for _, line := range []string{"X: y", "List-A: b", "Subject: x", "From: a@ex.test", "no field", "DKIM-Signature: v=1"} {
		m := message(nil)
		for range (1 << 20) / (len(line) + 2) {
			m.Fields = append(m.Fields, fields(line)...)
		}
		for len(m.Signatures) < 10 {
			s := fine("ex.test")
			for range 1000 {
				s.Headers = append(s.Headers, "list-x")
			}
			m.Signatures = append(m.Signatures, s)
		}
		m.Author = ParseAuthor(m.Fields)
		for _, f := range Check(m) {
			checkFinding(t, f)
		}
	}
}
