package dkim_test

import (
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postseal/postseal/milter/dkim"
)

// TestExplanation: a failed signature names what happened to the message, for
// both kinds of key; and never passes.
func TestExplanation(t *testing.T) {
	names := []string{"From", "From", "To", "Subject", "Subject", "Cc", "Date"}
	base := testHeader + "\r\n" + testBody
	for _, c := range []struct {
		name   string
		change func(string) string
		cause  dkim.Cause
		says   string
	}{
		{"subject", replace("folded", "unfolded"), dkim.HeaderChanged, "something behind the signer changed"},
		{"folds", replace("folded\r\n\tsubject", "folded subject"), dkim.HeaderChanged, "c=relaxed"},
		{"Cc added", replace("\r\nSubject: A", "\r\nCc: c@b.test\r\nSubject: A"), dkim.HeaderChanged, "cc was added after signing"},
		{"From added on top", func(m string) string { return "From: x@y.test\r\n" + m }, dkim.HeaderChanged, "from was added after signing (h= names it 2 times, 2 are there)"},
		{"To added below", replace("\r\n\r\nHello", "\r\nTo: d@b.test\r\n\r\nHello"), dkim.HeaderChanged, "to was added below the one signed"},
		{"To removed", replace("To: bob@b.test\r\n", ""), dkim.HeaderChanged, "something behind the signer"},
		{"footer", func(m string) string { return m + "-- \r\nA footer.\r\nOf lines.\r\n" }, dkim.BodyChanged, "without its last"},
		{"word", replace("Bob,", "bob,"), dkim.BodyChanged, "a content filter or a converter"},
		{"body gone", func(m string) string { head, _, _ := strings.Cut(m, "\r\n\r\n"); return head + "\r\n\r\n" }, dkim.BodyChanged, "the body changed after signing, the header did not"},
		{"both", func(m string) string { return replace("folded", "unfolded")(m) + "x\r\n" }, dkim.BodyAndHeader, "body and header changed"},
	} {
		for _, selector := range []string{"rsa2048", "ed25519"} {
			for _, canonical := range []msgauth.Canonicalization{"simple", "relaxed"} {
				if c.name == "folds" && canonical == "relaxed" {
					continue // there it changes nothing
				}
				text := c.change(signed(t, base, msgauth.SignOptions{Selector: selector, HeaderKeys: names, HeaderCanonicalization: canonical, BodyCanonicalization: canonical}))
				r := one(t, world(t), text)
				want(t, r, c.cause)
				if r.Status != dkim.Fail || !strings.Contains(r.Detail, c.says) {
					t.Errorf("%s: %s, %s: %v %q, want %q", c.name, selector, canonical, r.Status, r.Detail, c.says)
				}
			}
		}
	}
}

func replace(old, by string) func(string) string {
	return func(m string) string { return strings.Replace(m, old, by, 1) }
}

// TestExplainCanonicalization: the signer does otherwise than it says in c=.
func TestExplainCanonicalization(t *testing.T) {
	s := basic()
	s.fields = []string{"from:Ann <ann@ex.test>\r\n", "subject:A folded subject\r\n"}
	s.header = dkim.Relaxed
	for _, key := range []string{"rsa2048", "ed25519"} {
		s := s.with("s="+key, "a="+strings.TrimSuffix(key, "2048")+"-sha256")
		s.key = key
		r := one(t, world(t), message(s.sign(t)))
		want(t, r, dkim.HeaderChanged)
		if !strings.Contains(r.Detail, "as relaxed it is the one signed, c= says simple") {
			t.Error(r.Detail)
		}
	}
	// The body's other hash is there only when another signature needs it.
	s = basic().with("c=simple/relaxed")
	s.body = " a \r\n"
	good := basic()
	good.body = " a \r\n"
	results := verify(t, &dkim.Verifier{Lookup: world(t).lookup}, s.sign(t)+good.sign(t)+testHeader+"\r\n a \r\n", 100)
	want(t, results[0], dkim.BodyChanged)
	if !strings.Contains(results[0].Detail, "correct c= at the signer") {
		t.Error(results[0].Detail)
	}
	want(t, results[1], "")
}

func TestExplainEmptyBody(t *testing.T) {
	r := one(t, world(t), basic().sign(t)+testHeader+"\r\n"+strings.Repeat("text\r\n", 2000))
	want(t, r, dkim.BodyChanged)
	if !strings.Contains(r.Detail, "the signer saw no body") {
		t.Error(r.Detail)
	}
}

// TestK012_CopiesTell: z= does not count, but names the field that changed.
func TestK012_CopiesTell(t *testing.T) {
	s := basic().with("z=From:=20Ann=20<ann@ex.test>|Subject:=20A=20=20folded=0D=0A=09subject=20|Junk|To:x=")
	r := one(t, world(t), message(s.sign(t)))
	want(t, r, "")
	changed := strings.Replace(message(s.sign(t)), "A  folded", "A  bent", 1)
	r = one(t, world(t), changed)
	want(t, r, dkim.HeaderChanged)
	if !strings.Contains(r.Detail, `"subject" differs from its copy in z=`) {
		t.Error(r.Detail)
	}
}

// TestAnotherKey: an RSA signature tells that the key is not its own.
func TestAnotherKey(t *testing.T) {
	z := world(t)
	z["rsa2048._domainkey.ex.test"] = z["other._domainkey.ex.test"]
	text := signed(t, testHeader+"\r\n"+testBody, msgauth.SignOptions{})
	r := one(t, z, text)
	want(t, r, dkim.AnotherKey)
	if !strings.Contains(r.Detail, "publish the signer's key") {
		t.Error(r.Detail)
	}
	want(t, one(t, z, text+"more\r\n"), dkim.BodyAnotherKey)
}

// TestBodyTooShort: what l= counts is not there any more.
func TestBodyTooShort(t *testing.T) {
	s := basic().with("l=6")
	s.body = "a\r\nb\r\n"
	want(t, one(t, world(t), s.sign(t)+testHeader+"\r\n"+"a\r\nb\r\nmore\r\n"), "")
	r := one(t, world(t), s.sign(t)+testHeader+"\r\n"+"a\r\n")
	want(t, r, dkim.BodyTooShort)
	if r.Status != dkim.Fail || !strings.Contains(r.Detail, "only 3 octets") {
		t.Error(r.Detail)
	}
}
