package dkim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postseal/postseal/milter/dkim"
)

// signatureCases are the basic template with other tags; without a cause it must
// verify.
var signatureCases = []signatureCase{
	{"K001/as it is", nil, ""},
	{"K001/twice", []string{"a =rsa-sha256", "b0=x", "s=rsa2048; b0=y"}, dkim.Malformed},
	{"K001/the same twice", []string{"d=ex.test; d=ex.test"}, dkim.Malformed},
	{"K001/no equals sign", []string{"s=rsa2048; foo"}, dkim.Malformed},
	{"K001/empty tag", []string{"s=rsa2048; "}, dkim.Malformed},
	{"K001/names are case-sensitive", []string{"d", "D=ex.test"}, dkim.Malformed},
	{"K001/upper-case name is unknown", []string{"A=rsa-sha1"}, ""},
	{"K001/unknown", []string{"foo_1=bar baz"}, ""},
	{"K001/unknown and empty", []string{"foo="}, ""},
	{"K001/name of two words", []string{"f oo=bar"}, dkim.Malformed},
	{"K001/name begins with a digit", []string{"1f=bar"}, dkim.Malformed},
	{"K001/no name", []string{"=bar"}, dkim.Malformed},
	{"K001/equals sign in a value", []string{"foo=a=b"}, ""},
	{"K001/white space around all", []string{" \r\n\td \r\n\t= \r\n\tex.test \r\n\t"}, ""},
	{"K001/control character", []string{"foo=\x01"}, dkim.Malformed},
	{"K001/8 bits in an unknown tag", []string{"foo=\xe4"}, ""},
	{"K001/too many", []string{"q=dns/txt" + manyTags(200)}, dkim.Malformed},

	{"K002/v missing", []string{"v"}, dkim.Malformed},
	{"K002/a missing", []string{"a"}, dkim.Malformed},
	{"K002/b missing", []string{"b"}, dkim.Malformed},
	{"K002/bh missing", []string{"bh"}, dkim.Malformed},
	{"K002/d missing", []string{"d"}, dkim.Malformed},
	{"K002/h missing", []string{"h"}, dkim.Malformed},
	{"K002/s missing", []string{"s"}, dkim.Malformed},
	{"K002/v=2", []string{"v=2"}, dkim.WrongVersion},
	{"K002/v=1.0", []string{"v=1.0"}, dkim.WrongVersion},
	{"K002/v=01", []string{"v=01"}, dkim.WrongVersion},
	{"K002/empty d", []string{"d="}, dkim.Malformed},
	{"K002/empty h", []string{"h="}, dkim.Malformed},
	{"K002/bad bh", []string{"bh=!!"}, dkim.Malformed},
	{"K002/short bh", []string{"bh=AAAA"}, dkim.Malformed},
	{"K002/bad b", []string{"b=!!"}, dkim.Malformed},
	{"K002/short b", []string{"b=AAAA"}, dkim.AnotherKey},

	{"K003/From missing", []string{"h=To:Subject"}, dkim.FromNotSigned},
	{"K003/letter case", []string{"h=fRoM:sUbJeCt"}, ""},
	{"K003/white space", []string{"h=From \r\n\t: \r\n\tSubject"}, ""},
	{"K003/From as part of a name", []string{"h=X-From:Subject"}, dkim.FromNotSigned},

	{"K004/other domain", []string{"i=@other.test"}, dkim.DomainMismatch},
	{"K004/below", []string{"i=ann@sub.ex.test"}, ""},
	{"K004/the same", []string{"i=ann@ex.test"}, ""},
	{"K004/no local part", []string{"i=@ex.test"}, ""},
	{"K004/letter case", []string{"i=ann@EX.Test"}, ""},
	{"K004/suffix, but no label", []string{"i=ann@notex.test"}, dkim.DomainMismatch},
	{"K004/above", []string{"i=ann@test"}, dkim.DomainMismatch},
	{"K004/no at sign", []string{"i=ex.test"}, dkim.Malformed},
	{"K004/empty", []string{"i="}, dkim.Malformed},
	{"K004/quoted-printable", []string{"i=a=3Db=40x@ex.test"}, ""},
	{"K004/at sign in the local part", []string{`i="a@other.test"@ex.test`}, ""},
	{"K004/domain after the last at sign", []string{"i=ann@ex.test@other.test"}, dkim.DomainMismatch},
	{"K004/bad quoted-printable", []string{"i=a=3@ex.test"}, dkim.Malformed},

	{"K005/x after t", []string{"t=1000", "x=99999999999"}, ""},
	{"K005/x before t", []string{"t=2000", "x=1000"}, dkim.ExpiryBeforeTime},
	{"K005/x is t", []string{"t=2000", "x=2000"}, dkim.ExpiryBeforeTime},
	{"K005/past", []string{"x=1000000000"}, dkim.Expired},
	{"K005/not a number", []string{"x=tomorrow"}, dkim.Malformed},
	{"K005/negative", []string{"x=-1"}, dkim.Malformed},
	{"K005/empty", []string{"t="}, dkim.Malformed},
	{"K005/12 digits", []string{"x=999999999999"}, ""},
	{"K005/40 digits are infinite", []string{"x=" + strings.Repeat("9", 40)}, ""},
	{"K005/leading zeros", []string{"x=00000000000001000000000"}, dkim.Expired},

	{"K007/simple", []string{"c=simple"}, ""},
	{"K007/simple and simple", []string{"c=simple/simple"}, ""},
	{"K007/unknown header", []string{"c=nowsp/simple"}, dkim.UnsupportedCanonicalization},
	{"K007/unknown body", []string{"c=simple/nofws"}, dkim.UnsupportedCanonicalization},
	{"K007/three", []string{"c=simple/simple/simple"}, dkim.UnsupportedCanonicalization},
	{"K007/empty", []string{"c="}, dkim.UnsupportedCanonicalization},
	{"K007/letter case", []string{"c=Simple/SIMPLE"}, ""},

	{"K008/dns/txt", []string{"q=dns/txt"}, ""},
	{"K008/among others", []string{"q=http:dns/txt : foo/bar"}, ""},
	{"K008/others only", []string{"q=http"}, dkim.UnsupportedQueryMethod},
	{"K008/dns of RFC 4870", []string{"q=dns"}, dkim.UnsupportedQueryMethod},
	{"K008/empty", []string{"q="}, dkim.UnsupportedQueryMethod},

	{"K009/rsa-sha1", []string{"a=rsa-sha1"}, dkim.UnsupportedAlgorithm},
	{"K009/unknown", []string{"a=rsa-sha512"}, dkim.UnsupportedAlgorithm},
	{"K009/no hash", []string{"a=rsa"}, dkim.UnsupportedAlgorithm},
	{"K009/letter case", []string{"a=RSA-SHA256"}, ""},

	{"K010/all of it", []string{"l=2"}, ""},
	{"K010/more than the body", []string{"l=3"}, dkim.BodyTooShort},
	{"K010/more than any body", []string{"l=" + strings.Repeat("9", 76)}, dkim.BodyTooShort},
	{"K010/too many digits", []string{"l=" + strings.Repeat("0", 77)}, dkim.Malformed},
	{"K010/not a number", []string{"l=2x"}, dkim.Malformed},

	{"K011/letter case", []string{"d=Ex.TEST", "s=RSA2048"}, ""},
	{"K011/space", []string{"d=ex_test/x"}, dkim.Malformed},
	{"K011/empty label", []string{"d=ex..test"}, dkim.Malformed},
	{"K011/dot at the end", []string{"d=ex.test."}, dkim.Malformed},
	{"K011/long label", []string{"s=" + strings.Repeat("a", 64)}, dkim.Malformed},
	{"K011/long name", []string{"d=" + strings.Repeat("a.", 125) + "test"}, dkim.Malformed},
	{"K011/U-label in an ASCII message", []string{"d=b\u00fccher.test"}, dkim.Malformed},
	{"K011/U-label in i=", []string{"i=@b\u00fccher.ex.test"}, dkim.Malformed},
	{"K011/backslash", []string{`s=a\.b`}, dkim.Malformed},

	{"K012/z", []string{"z=From:somebody|Subject:else=20and=zz"}, ""},

	{"K013/too large", []string{"foo=" + strings.Repeat("x", 66000)}, dkim.TooLarge},
	{"K013/too many names", []string{"h=From" + strings.Repeat(":a", 1000)}, dkim.TooLarge},

	{"K014/tag that ends in b", []string{"zb=xyz"}, ""},
	{"K014/tag that ends in b, behind", []string{"b=; zb=xyz"}, ""},
	{"K014/b in a value", []string{"z=b=xyz", "foo=bb=b="}, ""},
	{"K014/Diagnostics", []string{"z=From:=20Bob=20Smith=20<b@ex.test>"}, ""},
	{"K014/white space", []string{"b=\r\n\t"}, ""},
}

type signatureCase struct {
	name string
	tags []string
	want dkim.Cause
}

func (c signatureCase) message(t testing.TB) string {
	s := basic().with(c.tags...)
	fix(&s)
	return message(s.sign(t))
}

// TestSignature holds the reading of a signature to the rules.
func TestSignature(t *testing.T) {
	for _, c := range signatureCases {
		t.Run(c.name, func(t *testing.T) {
			want(t, one(t, world(t), c.message(t)), c.want)
		})
	}
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "; foo%d=x", i)
	}
	return b.String()
}

// fix makes templates whose last tag is not b= what sign can fill.
func fix(s *template) {
	for i, tag := range s.tags {
		if name, rest, ok := strings.Cut(tag, "; zb="); ok {
			s.tags[i] = name
			s.tags = append(s.tags, "zb="+rest)
		}
	}
}

// TestK001_ListsEnd: a semicolon at the end, and nothing else.
func TestK001_ListsEnd(t *testing.T) {
	for end, cause := range map[string]dkim.Cause{";": "", " ; ": "", ";\r\n ": "", ";;": dkim.Malformed, "; ;": dkim.Malformed, "; x": dkim.Malformed} {
		want(t, one(t, world(t), message(basic().signBetween(t, "DKIM-Signature:", end))), cause)
	}
	want(t, one(t, world(t), "DKIM-Signature:\r\n"+testHeader+"\r\n"), dkim.Malformed)
	want(t, one(t, world(t), "DKIM-Signature: ;\r\n"+testHeader+"\r\n"), dkim.Malformed)
}

// TestFieldName: the field is found whatever its letter case, with white space
// before the colon or none behind it.
func TestFieldName(t *testing.T) {
	for _, start := range []string{"dkim-signature:", "DKIM-SIGNATURE:\t", "DKIM-Signature : ", "DKIM-Signature:\r\n "} {
		want(t, one(t, world(t), message(basic().signBetween(t, start, ""))), "")
	}
	if got := verify(t, &dkim.Verifier{Lookup: world(t).lookup}, "X-DKIM-Signature: v=1\r\n"+testHeader+"\r\n", 100); len(got) != 0 {
		t.Errorf("another field was taken for a signature: %v", got)
	}
}

// TestNotes holds what passes here and might not elsewhere.
func TestNotes(t *testing.T) {
	for _, c := range []struct {
		name  string
		tags  []string
		note  string
		class dkim.Class
	}{
		{"K004/letter case of i=", []string{"i=ann@EX.test"}, dkim.NoteLetterCase, dkim.Weak},
		{"K005/digits", []string{"x=1111111111111111"}, dkim.NoteDigits, dkim.Weak},
		{"K006/digits", []string{"t=1111111111111111"}, dkim.NoteFuture, dkim.Weak},
		{"K007/simple", nil, dkim.NoteSimpleHeader, dkim.Info},
		{"K007/letter case of c=", []string{"c=Simple"}, dkim.NoteLetterCase, dkim.Weak},
		{"K008/letter case of q=", []string{"q=DNS/TXT"}, dkim.NoteLetterCase, dkim.Weak},
		{"K009/letter case of a=", []string{"a=Rsa-Sha256"}, dkim.NoteLetterCase, dkim.Weak},
		{"K009/white space in a=", []string{"a=rsa- sha256"}, dkim.NoteWhiteSpace, dkim.Weak},
		{"K010/l", []string{"l=2"}, dkim.NoteBodyLimit, dkim.Weak},
		{"K010/without Content-Type", []string{"l=2"}, dkim.NoteBodyLimitType, dkim.Grave},
		{"K003/empty name", []string{"h=From::Subject"}, dkim.NoteEmptyName, dkim.Weak},
		{"K011/white space in d=", []string{"d=ex.\r\n test"}, dkim.NoteWhiteSpace, dkim.Weak},
		{"K013/large", []string{"foo=" + strings.Repeat("x", 4096)}, dkim.NoteLarge, dkim.Info},
		{"K014/go-msgauth", []string{"z=Bob=20Smith"}, dkim.NoteLooksLikeB, dkim.Info},
		{"K014/name ends in b", []string{"zb=x"}, dkim.NoteLooksLikeB, dkim.Weak},
		{"K001/8 bits", []string{"foo=\xe4"}, dkim.NoteEightBit, dkim.Weak},
		{"K024/unsigned", nil, dkim.NoteUnsigned, dkim.Weak},
		{"K024/From once", nil, dkim.NoteOversign, dkim.Weak},
		{"K025/Received", []string{"h=From:Subject:Received"}, dkim.NoteFragile, dkim.Weak},
		{"K025/Resent", []string{"h=From:Subject:Resent-To"}, dkim.NoteFragile, dkim.Weak},
		{"K025/DKIM-Signature", []string{"h=From:Subject:DKIM-Signature"}, dkim.NoteFragile, dkim.Weak},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := one(t, world(t), message(basic().with(c.tags...).sign(t)))
			want(t, r, "")
			wantNote(t, r, c.note, c.class)
		})
	}
}

// TestK011_OneLabel: most verifiers take it, though nobody owns such a domain.
func TestK011_OneLabel(t *testing.T) {
	z := zone{"rsa2048._domainkey.localhost": {record(t, "rsa2048")}}
	r := one(t, z, message(basic().with("d=localhost").sign(t)))
	want(t, r, "")
	wantNote(t, r, dkim.NoteOneLabel, dkim.Weak)
}

// TestNotesAreBounded: what is repeated is noted once.
func TestNotesAreBounded(t *testing.T) {
	r := one(t, world(t), message(basic().with("h=From"+strings.Repeat(": :X Y", 400)).sign(t)))
	if len(r.Notes) > 10 {
		t.Errorf("%d notes: %v", len(r.Notes), r.Notes)
	}
}

func TestK010_LimitOfZero(t *testing.T) {
	s := basic().with("l=0", "bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
	r := one(t, world(t), s.sign(t)+testHeader+"\r\nanything\r\n")
	want(t, r, "")
	wantNote(t, r, dkim.NoteBodyLimit, dkim.Weak)
	if n, _ := hasNote(r, dkim.NoteBodyLimit); !strings.Contains(n.Detail, "nothing of the body") {
		t.Errorf("no reason of its own: %s", n.Detail)
	}
	if !r.Limit.Present || r.Limit.Octets != 0 || r.Limit.Uncovered != 10 || r.BodyOctets != 10 {
		t.Errorf("%+v, %d octets", r.Limit, r.BodyOctets)
	}
}

// TestK010_Limits: several lengths of one body, before, in and behind the line
// ends that canonicalization holds back.
func TestK010_Limits(t *testing.T) {
	const body, simple, relaxed = "a \t b \r\n\r\nc \r\n\r\n", "a \t b \r\n\r\nc \r\n", "a b\r\n\r\nc\r\n"
	for _, chunk := range []int{1, 3, 100} {
		for canonical, c := range map[string]string{simple: "c=simple/simple", relaxed: "c=simple/relaxed"} {
			var all string
			var n int
			for at := 0; at <= len(canonical)+1 && n < 20; at++ {
				s := basic().with(c, fmt.Sprintf("l=%d", at))
				s.body = canonical[:min(at, len(canonical))]
				all += s.sign(t)
				n++
			}
			results := verify(t, &dkim.Verifier{Lookup: world(t).lookup, MaxSignatures: 20}, all+testHeader+"\r\n"+body, chunk)
			for at, r := range results {
				if at > len(canonical) {
					want(t, r, dkim.BodyTooShort)
					continue
				}
				want(t, r, "")
				if r.Limit.Uncovered != int64(len(canonical)-at) {
					t.Errorf("l=%d: %d octets uncovered", at, r.Limit.Uncovered)
				}
			}
		}
	}
}

func TestK005_K006_Clock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().Unix() // in a bubble time begins in 2000
		result := func(tags ...string) dkim.Result {
			return one(t, world(t), message(basic().with(tags...).sign(t)))
		}
		tag := func(name string, ahead time.Duration) string {
			return fmt.Sprintf("%s=%d", name, now+int64(ahead/time.Second))
		}
		for ahead, soon := range map[time.Duration]bool{0: true, time.Hour: true, 5*24*time.Hour - time.Second: true, 5 * 24 * time.Hour: false} {
			r := result(tag("x", ahead))
			want(t, r, "")
			if _, ok := hasNote(r, dkim.NoteExpiresSoon); ok != soon {
				t.Errorf("x= in %v: noted: %v", ahead, ok)
			}
		}
		for ahead, future := range map[time.Duration]bool{-time.Hour: false, 5 * time.Minute: false, 5*time.Minute + time.Second: true, 48 * time.Hour: true} {
			r := result(tag("t", ahead))
			want(t, r, "")
			if _, ok := hasNote(r, dkim.NoteFuture); ok != future {
				t.Errorf("t= in %v: noted: %v", ahead, ok)
			}
			if r.Time.Unix() != now+int64(ahead/time.Second) || !r.Expiry.IsZero() {
				t.Errorf("t=%v x=%v", r.Time, r.Expiry)
			}
		}
		want(t, result(tag("x", -time.Second)), dkim.Expired)
		signature := basic().with(tag("x", time.Minute)).sign(t)
		time.Sleep(2 * time.Minute)
		want(t, one(t, world(t), message(signature)), dkim.Expired)
	})
}

func TestK011_Internationalized(t *testing.T) {
	z := world(t)
	s := basic().with("d=b\u00dccher.test", "s=sel\u00ebktor", "i=\u00e4@sub.b\u00fccher.test")
	names := func(signature, header string) []string {
		fields, _ := split(t, signature+header+"\r\n")
		return (&dkim.Verifier{Lookup: z.lookup}).Begin(fields).Keys()
	}
	utf8 := "X-Name: J\u00f6rg\r\n" + testHeader
	got := names(s.sign(t), utf8)
	if len(got) != 1 || !strings.HasSuffix(got[0], "._domainkey.xn--bcher-kva.test") {
		t.Fatalf("looks up %q", got)
	}
	z[got[0]] = []string{record(t, "rsa2048")}
	r := one(t, z, s.sign(t)+utf8+"\r\n")
	want(t, r, "")
	wantNote(t, r, dkim.NoteULabel, dkim.Weak)
	if r.Domain != "xn--bcher-kva.test" || r.RawDomain != "b\u00dccher.test" || r.Identity != "\u00e4@sub.b\u00fccher.test" {
		t.Errorf("%q %q %q", r.Domain, r.RawDomain, r.Identity)
	}
	// Not internationalized: no UTF-8, or none but in the signature.
	want(t, one(t, z, s.sign(t)+"X-Name: J\xf6rg\r\n"+testHeader+"\r\n"), dkim.Malformed)
	want(t, one(t, z, s.sign(t)+testHeader+"\r\n"), dkim.Malformed)
	// An A-label is right in both.
	want(t, one(t, z, basic().with("d=XN--bcher-kva.test", "s="+r.Selector).sign(t)+utf8+"\r\n"), "")
}

func TestK013_K050_TopmostAndOurs(t *testing.T) {
	z := world(t)
	ours := basic().sign(t)
	foreign := strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=foreign.test; s=a; h=From; bh=AAAA; b=AAAA\r\n", 30)
	v := &dkim.Verifier{Lookup: z.lookup}
	fields, _ := split(t, foreign+ours+testHeader+"\r\n")

	m := v.Begin(fields)
	results := m.Finish(t.Context())
	if len(results) != 10 || m.Skipped() != 21 {
		t.Fatalf("%d results, %d skipped", len(results), m.Skipped())
	}
	for i, r := range results {
		if r.Index != i || r.Domain != "foreign.test" {
			t.Errorf("result %d is %d %s", i, r.Index, r.Domain)
		}
	}

	v.Prefer = func(domain string) bool { return domain == "ex.test" }
	m = v.Begin(fields)
	results = m.Finish(t.Context())
	if len(results) != 10 || m.Skipped() != 21 || results[9].Index != 30 {
		t.Fatalf("%d results, %d skipped, last %d", len(results), m.Skipped(), results[9].Index)
	}
	want(t, results[9], "")
	want(t, results[0], dkim.Malformed)

	v.MaxSignatures = 1
	if results = v.Begin(fields).Finish(t.Context()); len(results) != 1 || results[0].Index != 30 {
		t.Errorf("%v", results)
	}
	v.MaxSignatures = 100
	if results = v.Begin(fields).Finish(t.Context()); len(results) != 31 {
		t.Errorf("%d results", len(results))
	}
}

func TestK050_SignaturesAreIndependent(t *testing.T) {
	z := world(t)
	good, other := basic().sign(t), basic().with("s=ed25519", "a=ed25519-sha256")
	other.key = "ed25519"
	broken := strings.Replace(good, "b=", "b=A", 1)
	results := verify(t, &dkim.Verifier{Lookup: z.lookup}, broken+good+good+other.sign(t)+testHeader+"\r\n", 10)
	if len(results) != 4 || results[0].Status == dkim.Pass {
		t.Fatalf("%v", results)
	}
	for _, r := range results[1:] {
		want(t, r, "")
	}
}

func TestK024_K025_Coverage(t *testing.T) {
	header := testHeader + "Cc: c@b.test\r\nList-Id: <a.b>\r\nList-Unsubscribe: <https://u.test>\r\nX-Other: x\r\nSubject: another\r\n" +
		"Content-Type: text/plain\r\nReceived: from a\r\n"
	message := signed(t, header+"\r\n"+testBody, msgauth.SignOptions{HeaderKeys: []string{
		"From", "from", "To", "Subject", "List-Unsubscribe", "Content-Type", "Content-Type", "Content-Type", "Date"}})
	r := one(t, world(t), message)
	want(t, r, "")
	for name, w := range map[string]struct {
		instances  int
		oversigned bool
	}{
		"FROM": {1, true}, "to": {1, false}, "Subject": {1, false}, "Content-Type": {1, true}, "Received": {0, false},
		"List-Unsubscribe": {1, false}, "list-id": {0, false}, "": {0, false},
	} {
		if n, over := r.Covers(name); n != w.instances || over != w.oversigned {
			t.Errorf("%s: %d, %v", name, n, over)
		}
	}
	n, _ := hasNote(r, dkim.NoteUnsigned)
	if want := "h= leaves out what is in the header: subject (1 of 2), cc, message-id, list-id"; n.Detail != want {
		t.Errorf("%q, want %q", n.Detail, want)
	}
	for _, name := range []string{dkim.NoteOversign, dkim.NoteFragile, dkim.NoteBodyLimitType} {
		if _, ok := hasNote(r, name); ok {
			t.Errorf("note %s", name)
		}
	}
	if want := []string{"from", "from", "to", "subject", "list-unsubscribe", "content-type", "content-type", "content-type", "date"}; !slices.Equal(r.Names, want) {
		t.Errorf("%q", r.Names)
	}
}

// TestK021_BottomUp: of fields that are there several times the lowest are
// signed; one added on top does not count until it is over-signed.
func TestK021_BottomUp(t *testing.T) {
	header := "X-A: 1\r\nx-a: 2\r\nX-A : 3\r\n" + testHeader
	for _, c := range []struct {
		h      string
		fields string
	}{
		{"From:X-A", "X-A : 3\r\n"},
		{"From:X-A:X-A", "X-A : 3\r\nx-a: 2\r\n"},
		{"From:x-a:X-A:X-a", "X-A : 3\r\nx-a: 2\r\nX-A: 1\r\n"},
		{"From:x-a:X-A:X-a:X-A:X-B", "X-A : 3\r\nx-a: 2\r\nX-A: 1\r\n"},
	} {
		s := basic().with("h=" + c.h)
		s.fields = []string{"From: Ann <ann@ex.test>\r\n", c.fields}
		want(t, one(t, world(t), s.sign(t)+header+"\r\n"), "")
	}
	s := basic().with("h=From:X-A:X-A:X-A:X-A")
	s.fields = []string{"From: Ann <ann@ex.test>\r\n", "X-A : 3\r\nx-a: 2\r\nX-A: 1\r\n"}
	want(t, one(t, world(t), "X-A: 0\r\n"+s.sign(t)+header+"\r\n"), dkim.HeaderChanged)
}

// TestOwnSignatureIsNotPicked: DKIM-Signature in h= means the other ones.
func TestOwnSignatureIsNotPicked(t *testing.T) {
	first := basic().sign(t)
	second := basic().with("h=From:Subject:DKIM-Signature:DKIM-Signature")
	second.fields = append(second.fields, first)
	for _, all := range []string{second.sign(t) + first, first + second.sign(t)} {
		for _, r := range verify(t, &dkim.Verifier{Lookup: world(t).lookup}, all+testHeader+"\r\n", 10) {
			want(t, r, "")
		}
	}
}
