package align

import (
	"strings"
	"testing"
	"time"
)

// broken is a signature that does not pass.
func broken(domain string, cause Cause) Signature {
	s := fine(domain)
	s.Status, s.Cause = Failed, cause
	return s
}

// with changes a copy.
func with(s Signature, change func(s *Signature)) Signature {
	change(&s)
	return s
}

func sign(all ...Signature) func(m *Message) {
	return func(m *Message) { m.Signatures = all }
}

// Changes of a message that more than one table needs.
var (
	third     = with(broken("esp.test", CauseSignature), func(s *Signature) { s.Ours = false })
	noRecord  = func(m *Message) { m.DMARC = DMARC{} }
	own       = func(m *Message) { m.DomainsConfigured, m.AuthorOurs = true, true }
	forwarded = func(m *Message) { m.Forwarded = true }
)

// both makes several changes.
func both(all ...func(m *Message)) func(m *Message) {
	return func(m *Message) {
		for _, change := range all {
			change(m)
		}
	}
}

func TestCheckSignatures(t *testing.T) {
	temp := with(fine("ex.test"), func(s *Signature) { s.Status = TempError })
	tempOther := with(fine("esp.test"), func(s *Signature) { s.Status, s.Ours = TempError, false })
	none := func(m *Message) { m.set("DKIM-Signature"); m.Signatures = nil }
	checkAll(t, []verdictCase{
		{"all is well", nil, ""},
		{"BLK001 unsigned", none, "unsigned=fail"},
		{"unsigned, no record", both(none, noRecord), "unsigned=fail dmarc-missing=weak"},
		{"unsigned from forwarders", both(none, forwarded), "unsigned=fail"},
		{"unsigned, header cut", both(none, func(m *Message) { m.HeaderCut = true }), "unsigned=fail size-limit=weak"},
		{"signatures cut", both(none, func(m *Message) { m.HeaderCut, m.SignaturesCut = true, true }), "size-limit=weak"},
		{"a field that nothing is known of is not unsigned", sign(), ""},

		{"K050 only one, broken", sign(broken("ex.test", CauseSignature)), "signature-invalid=fail"},
		{"K050 only one, broken, no record", both(sign(broken("ex.test", CauseSignature)), noRecord), "signature-invalid=fail dmarc-missing=weak"},
		{"K050 only one, malformed", sign(Signature{Status: PermError}), "signature-invalid=fail"},
		{"K050 all broken", sign(broken("ex.test", CauseSignature), broken("mail.ex.test", CauseKeyMissing)), "signature-invalid=fail key-missing=fail"},
		{"K050 broken third party beside good", sign(third, fine("ex.test")), "signature-invalid=info"},
		{"K050 good first", sign(fine("ex.test"), third), "signature-invalid=info"},
		{"K050 broken third party only", sign(third), "signature-invalid=fail unaligned=fail"},
		{"K051 own broken beside good", sign(broken("ex.test", CauseSignature), fine("ex.test")), "signature-invalid=weak"},
		{"K051 own of another domain broken beside good", both(own, sign(broken("ex2.test", CauseKeyRevoked), fine("ex.test"))), "key-revoked=weak"},
		{"K051 aligned one broken beside a third party's", sign(broken("ex.test", CauseSignature), fine("esp.test")), "unaligned=fail signature-invalid=weak"},
		{"key missing", sign(broken("ex.test", CauseKeyMissing)), "key-missing=fail"},
		{"key revoked", sign(broken("ex.test", CauseKeyRevoked)), "key-revoked=fail"},
		{"key mismatch", sign(broken("ex.test", CauseKeyMismatch)), "key-mismatch=fail"},
		{"key invalid", sign(broken("ex.test", CauseKeyInvalid)), "key-invalid=fail"},
		{"BLK002 key under 1024", sign(broken("ex.test", CauseKeyWeak)), "key-weak=fail"},
		{"expired", sign(broken("ex.test", CauseExpired)), "signature-expires=fail"},
		{"K053 no answer for the key", sign(temp), "dns-trouble=info"},
		{"K053 no answer beside a broken one", sign(temp, broken("ex.test", CauseSignature)), "signature-invalid=weak dns-trouble=info"},
		{"K053 no answer beside a third party's that passes", sign(temp, fine("esp.test")), "dns-trouble=info"},
		{"K053 no answer for a third party's beside a broken one", sign(tempOther, broken("ex.test", CauseSignature)), "signature-invalid=weak dns-trouble=info"},
		{"K053 no answer for a third party's alone", sign(tempOther), "unaligned=fail dns-trouble=info"},
		{"K013 too many", sign(fine("ex.test"), Signature{Domain: "ex.test"}), "signature-fragile=info"},
		{"body cut", both(sign(Signature{Domain: "ex.test"}), func(m *Message) { m.BodyCut = true }), "size-limit=weak"},
		{"body cut, broken", both(sign(broken("ex.test", CauseSignature)), func(m *Message) { m.BodyCut = true }), "signature-invalid=weak size-limit=weak"},
	})
}

func TestCheckUnaligned(t *testing.T) {
	checkAll(t, []verdictCase{
		{"forwarded, another's broken", both(forwarded, own, sign(third)), "signature-invalid=weak unaligned=weak"},
		{"forwarded, ours broken", both(forwarded, own, sign(broken("ex.test", CauseSignature))), "signature-invalid=fail"},
		{"forwarded, unaligned", both(forwarded, sign(fine("esp.test"))), "unaligned=weak"},

		{"BLK003 unaligned", sign(fine("ex2.test")), "unaligned=fail"},
		{"BLK003 unaligned without record", both(noRecord, sign(fine("ex2.test"))), "unaligned=weak dmarc-missing=weak"},
		{"DM013 SPF does not save it", both(sign(fine("ex2.test")), func(m *Message) { m.SPF = []SPF{{Result: "pass", Domain: "ex.test"}} }), "unaligned=fail"},
		{"DM014 policy reject", both(sign(fine("ex2.test")), func(m *Message) { m.DMARC.Policy = "reject" }), "unaligned=fail"},
		{"DM014 policy none", both(sign(fine("ex2.test")), func(m *Message) { m.DMARC.Policy = "none" }), "unaligned=fail"},
		{"DM034 record not known", both(sign(fine("ex2.test")), func(m *Message) { m.DMARC = DMARC{Temp: true} }), "unaligned=weak dns-trouble=info"},
		{"DM015 null sender", both(sign(fine("ex2.test")), func(m *Message) { m.NullSender, m.MailFrom = true, "" }), "unaligned=fail"},
	})
}

func TestCheckWeaknesses(t *testing.T) {
	ed := with(fine("ex.test"), func(s *Signature) { s.Algorithm, s.KeyBits = "ed25519-sha256", 256 })
	rsa := func(bits int) Signature { return with(fine("ex.test"), func(s *Signature) { s.KeyBits = bits }) }
	testing := with(fine("ex.test"), func(s *Signature) { s.Testing = true })
	expires := func(in time.Duration) Signature {
		return with(fine("ex.test"), func(s *Signature) { s.Expires = now.Add(in) })
	}
	limit := func(length int64) Signature {
		return with(fine("ex.test"), func(s *Signature) { s.HasLength, s.Length = true, length })
	}
	headers := func(names ...string) Signature {
		return with(fine("ex.test"), func(s *Signature) { s.Headers = names })
	}
	noted := with(fine("ex.test"), func(s *Signature) {
		s.Notes = []Note{{"letter-case", Weak, "a= in capitals"}, {"key-short", Weak, "short"}, {"from-not-oversigned", Weak, "once"}, {"simple-header", Info, "simple"}}
	})
	typed := func(m *Message) {
		m.set("Content-Type", "Content-Type: text/plain")
		m.Signatures = []Signature{limit(10)}
	}
	checkAll(t, []verdictCase{
		{"BLK002 1023 bits cannot pass", sign(rsa(1024)), "key-weak=weak"},
		{"BLK002 2047 bits", sign(rsa(2047)), "key-weak=weak"},
		{"2048 bits", sign(rsa(2048)), ""},
		{"4096 bits", sign(rsa(4096)), ""},
		{"4097 bits", sign(rsa(4097)), "key-weak=weak"},
		{"weak key beside a good one", sign(rsa(1024), rsa(2048)), "key-weak=info"},
		{"weak key beside a third party's good one", sign(rsa(1024), fine("esp.test")), "key-weak=weak"},
		{"a third party's weak key", sign(fine("ex.test"), with(fine("esp.test"), func(s *Signature) { s.KeyBits = 1024 })), ""},
		{"Ed25519 alone", sign(ed), "ed25519-only=weak"},
		{"Ed25519 twice", sign(ed, ed), "ed25519-only=weak"},
		{"Ed25519 and RSA", sign(ed, fine("ex.test")), ""},
		{"Ed25519 and a third party's RSA", sign(ed, fine("esp.test")), "ed25519-only=weak"},
		{"testing", sign(testing), "key-testing=weak"},
		{"testing beside another", sign(testing, fine("ex.test")), "key-testing=info"},
		{"expires in an hour", sign(expires(time.Hour)), "signature-expires=weak"},
		{"expires in 5 days less a second", sign(expires(5*24*time.Hour - time.Second)), "signature-expires=weak"},
		{"expires in 5 days", sign(expires(5 * 24 * time.Hour)), ""},
		{"made in an hour", sign(with(fine("ex.test"), func(s *Signature) { s.SignedAt = now.Add(61 * time.Minute) })), "signature-fragile=weak"},
		{"made in 59 minutes", sign(with(fine("ex.test"), func(s *Signature) { s.SignedAt = now.Add(59 * time.Minute) })), ""},
		{"l=", sign(limit(10)), "body-length-limit=weak"},
		{"l=0", sign(limit(0)), "body-length-limit=weak"},
		{"l= beside one without", sign(limit(10), fine("ex.test")), "body-length-limit=weak"},
		{"l= and Content-Type unsigned", typed, "body-length-limit=fail headers-unsigned=weak"},
		{"From not over-signed", sign(headers("from", "to", "subject", "date", "message-id")), "headers-unsigned=weak"},
		{"Subject unsigned", sign(headers("from", "from", "to", "date", "message-id")), "headers-unsigned=weak"},
		{"unsigned beside another", sign(headers("from"), fine("ex.test")), "headers-unsigned=info"},
		{"notes", sign(noted), "signature-fragile=weak"},
		{"List- field unsigned", func(m *Message) { m.set("List-Help", "List-Help: <mailto:a@ex.test>") }, "headers-unsigned=weak"},
		{"second instance unsigned", func(m *Message) { m.set("To", "To: a@ex.test", "To: b@ex.test") }, "header-duplicate=weak headers-unsigned=weak"},
	})
}

func TestMLT01_UnsignedNamesTheOrder(t *testing.T) {
	m := message(func(m *Message) { m.set("DKIM-Signature"); m.Signatures = nil })
	if d := Check(m)[0].Detail; !strings.Contains(d, "before postseal") {
		t.Errorf("never seen signed: %s", d)
	}
	m.SignedBefore = true
	if d := Check(m)[0].Detail; !strings.Contains(d, "is the signer running") {
		t.Errorf("seen signed: %s", d)
	}
}

func TestBodyLengthReasons(t *testing.T) {
	for length, want := range map[int64]string{0: "signs nothing", 5: "append"} {
		m := message(sign(with(fine("ex.test"), func(s *Signature) { s.HasLength, s.Length = true, length })))
		if d := Check(m)[0].Detail; !strings.Contains(d, want) {
			t.Errorf("l=%d: %s", length, d)
		}
	}
}
