package align

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// queueLifetime is how long Postfix tries (maximal_queue_lifetime, 5d).
	queueLifetime = 5 * 24 * time.Hour
	// maxSkew is how far t= may lie ahead before it is told, K-006.
	maxSkew = time.Hour

	minRSA, goodRSA, maxRSA = 1024, 2048, 4096 // bits, RFC 8301 §3.2
)

// signatures: is the message vouched for, and in the author's name?
func (c *checker) signatures() {
	if c.header.count("dkim-signature") == 0 && len(c.Signatures) == 0 {
		if !c.SignaturesCut {
			c.unsigned()
		}
		return
	}
	for i := range c.Signatures {
		switch s := &c.Signatures[i]; s.Status {
		case Failed, PermError:
			c.broken(s)
		case NotVerified:
			if !c.HeaderCut && !c.BodyCut {
				c.add(SignatureFragile, Info, "%s was not verified", s.title())
			}
		}
	}
	if c.Skipped > 0 {
		// K-013: receivers have their limits too.
		c.add(SignatureFragile, Info, "there are %d DKIM-Signature fields more than were verified, all of others: receivers have limits too", c.Skipped)
	}
	c.alignments()
	c.weaknesses()
}

// title names a signature in a sentence.
func (s *Signature) title() string {
	if s.Domain == "" {
		return "a DKIM-Signature" // too broken to say whose
	}
	return "the signature of " + bare(s.Domain) + ", selector " + bare(s.Selector) + ","
}

// bare is quote without the quotes, for what is a name unless somebody plays.
func bare(s string) string { return strings.Trim(quote(s), `"`) }

func (c *checker) unsigned() {
	if c.SignedBefore {
		c.add(Unsigned, Fail, "there is no DKIM-Signature although mail of %s is signed otherwise: is the signer running?", c.Author.Domain)
		return
	}
	// MLT-01: a signer behind us is the commonest reason.
	c.add(Unsigned, Fail, "there is no DKIM-Signature: check that the signer stands before postseal in smtpd_milters and non_smtpd_milters, runs, and signs for this domain")
}

// broken tells of a signature that does not pass.
func (c *checker) broken(s *Signature) {
	a := c.alignment(s)
	own := a == IsAligned || a == Differs || c.DomainsConfigured && s.Ours
	class := Fail
	switch {
	case len(c.good) > 0 && own:
		class = Weak // K-051: one of ours fails while another passes
	case len(c.good) > 0:
		class = Info // K-050: signatures are independent
	case len(c.passing) > 0 || c.maybe || c.temp:
		class = Weak
	case c.Forwarded && !(c.DomainsConfigured && s.Ours):
		class = Weak // broken on its way to us, by a list for instance
	}
	name, what := signatureFinding(s.Cause)
	detail := oneLine(s.Detail)
	if detail == "" {
		detail = what
	}
	c.add(name, class, "%s does not pass: %s", s.title(), detail)
}

// signatureFinding gives the name for a cause, and words where the verifier has
// none.
func signatureFinding(cause Cause) (name, what string) {
	switch cause {
	case CauseKeyMissing:
		return KeyMissing, "its key is not in the DNS"
	case CauseKeyMismatch:
		return KeyMismatch, "the published key is another one"
	case CauseKeyRevoked:
		return KeyRevoked, "its key is revoked"
	case CauseKeyInvalid:
		return KeyInvalid, "its key record cannot be used"
	case CauseKeyWeak:
		return KeyWeak, "its key is under 1024 bits"
	case CauseExpired:
		return SignatureExpires, "it has expired"
	}
	return SignatureInvalid, "header or body changed after signing"
}

// alignments: DM-010 to DM-014, DM-024.
func (c *checker) alignments() {
	if c.Author.Domain == "" {
		return // the findings about From say it
	}
	best, possible, temp := NotAligned, false, c.maybe || c.DMARC.Temp
	for i := range c.Signatures {
		s := &c.Signatures[i]
		a := c.alignment(s)
		if s.Status == Pass {
			best = max(best, a)
		} else if (a != NotAligned || s.Domain == "") && (s.Status == Failed || s.Status == PermError) {
			possible = true // mending it would do; broken says so
		}
	}
	switch {
	case best == IsAligned:
	case best == Differs:
		c.add(AlignmentDiffers, Weak, "receivers that walk the DNS tree (RFC 9989) and those that use the public suffix list (RFC 7489) disagree whether the signature is aligned with %s: sign with d=%s", c.Author.Domain, c.Author.Domain)
	case len(c.passing) == 0 && (possible || temp):
	case c.maybe || best == AlignmentUnknown:
		// What nobody answered for may be aligned: an action named for this
		// finding must not act on trouble of ours.
	default:
		class := Weak
		// DM-014: where a record exists, the message fails unless SPF saves it.
		if c.DMARC.Found && !c.Forwarded && !temp && best == NotAligned {
			class = Fail
		}
		policy := "no DMARC record applies"
		if c.DMARC.Found {
			policy = "DMARC policy " + c.DMARC.Policy
		}
		c.add(Unaligned, class, "no signature is aligned with the domain %s of From (%s; %s): sign with d=%s", c.Author.Domain, c.signers(), policy, c.Author.Domain)
	}
}

// signers names some domains that signed.
func (c *checker) signers() string {
	const most = 3
	var b strings.Builder
	for i, s := range c.Signatures {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(c.Signatures)-most)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("d=" + bare(s.Domain))
	}
	return b.String()
}

// weaknesses tells what some receivers will not like about the signatures that
// count: those that pass and are aligned, or all that pass when none is aligned.
func (c *checker) weaknesses() {
	counting := c.good
	if len(counting) == 0 {
		counting = c.passing
	}
	all := make([]findings, len(counting))
	for i, s := range counting {
		c.weak(s, &all[i])
	}
	for i := range all {
		for _, f := range all[i].list {
			// A weakness that another signature does not have hurts nobody, if all
			// receivers can verify that one; a length limit does, since anybody may
			// append to the message.
			excused := c.maybe
			for j := range all {
				excused = excused || !all[j].has(f.Name, f.Class) && (isRSA(counting[j]) || !isRSA(counting[i]))
			}
			if excused {
				f.Class = Info
				if f.Name == BodyLengthLimit {
					f.Class = Weak
				}
			}
			c.found.add(f.Name, f.Class, f.Detail)
		}
	}
	// K-035: RFC 8463 is not understood everywhere.
	if len(counting) > 0 && !c.maybe && !slices.ContainsFunc(counting, isRSA) {
		c.add(Ed25519Only, Weak, "there is no other signature than Ed25519, which large receivers do not verify: sign with RSA as well")
	}
}

// isRSA: RFC 8463 is not understood everywhere, RSA is.
func isRSA(s *Signature) bool { return !strings.HasPrefix(s.Algorithm, "ed25519") }

// has tells whether a finding of the name is there, of the class or worse.
func (f *findings) has(name string, class Class) bool {
	return slices.ContainsFunc(f.list, func(g Finding) bool { return g.Name == name && g.Class >= class })
}

// weak collects the weaknesses of one signature that passes.
func (c *checker) weak(s *Signature, to *findings) {
	add := func(name string, class Class, format string, args ...any) {
		to.add(name, class, s.title()+" "+fmt.Sprintf(format, args...))
	}
	if strings.HasPrefix(s.Algorithm, "rsa") && s.KeyBits > 0 {
		// K-034; a key under 1024 bits does not pass.
		switch {
		case s.KeyBits < goodRSA:
			add(KeyWeak, Weak, "has a key of %d bits: use 2048 (RFC 8301 §3.2)", s.KeyBits)
		case s.KeyBits > maxRSA:
			add(KeyWeak, Weak, "has a key of %d bits, which verifiers need not accept: use 2048 (RFC 8301 §3.2)", s.KeyBits)
		}
	}
	if s.Testing {
		add(KeyTesting, Weak, "has a key with t=y, and is treated as if it were not there: remove t=y from the key record")
	}
	if !s.Expires.IsZero() && s.Expires.Before(c.Now.Add(queueLifetime)) {
		add(SignatureExpires, Weak, "expires in %s, before the queue gives up: let x= lie 5 days ahead at least, or leave it out", c.until(s.Expires))
	}
	if !s.SignedAt.IsZero() && s.SignedAt.After(c.Now.Add(maxSkew)) {
		add(SignatureFragile, Weak, "was made in the future by its t=: check the signer's clock")
	}
	if s.HasLength {
		c.lengthLimit(s, add)
	}
	c.coverage(s, add)
	for _, n := range s.Notes {
		if slices.Contains(toldByFields, n.Name) {
			continue
		}
		if _, known := rank[n.Name]; !known {
			n.Name = SignatureFragile
		}
		add(n.Name, n.Class, "passes, but: %s", oneLine(n.Detail))
	}
}

// toldByFields are notes of verifiers about what the fields of Signature tell
// already.
var toldByFields = []string{
	KeyTesting, SignatureExpires, BodyLengthLimit, HeadersUnsigned, Ed25519Only,
	"key-short", "key-long", "time-in-future", "body-length-type", "from-not-oversigned", "ed25519",
}

// until is the time left in whole seconds, never negative.
func (c *checker) until(t time.Time) time.Duration {
	return max(0, t.Sub(c.Now)).Truncate(time.Second)
}

type adder func(name string, class Class, format string, args ...any)

// lengthLimit: K-010, RFC 6376 §8.2.
func (c *checker) lengthLimit(s *Signature, add adder) {
	signed, there := c.signed(s, "content-type")
	switch {
	case there > signed:
		// K-024: who appends may then choose what the reader is shown.
		add(BodyLengthLimit, Fail, "has l= and leaves Content-Type unsigned, so that its text can be replaced: remove l=")
	case s.Length == 0:
		add(BodyLengthLimit, Weak, "has l=0, so that it signs nothing of the body: remove l=")
	default:
		add(BodyLengthLimit, Weak, "has l=, so that anybody may append to the message: remove l=")
	}
}

// recommended fields: RFC 6376 §5.4.1 and those that a display depends on.
var recommended = []string{
	"subject", "date", "to", "cc", "reply-to", "message-id", "mime-version", "content-type",
	"content-transfer-encoding", "in-reply-to", "references",
}

// coverage: K-024.
func (c *checker) coverage(s *Signature, add adder) {
	var open []string
	for _, name := range recommended {
		if signed, there := c.signed(s, name); there > signed {
			open = append(open, name)
		}
	}
	for name := range c.header.byName {
		// RFC 8058 has findings of its own.
		if strings.HasPrefix(name, "list-") && name != listUnsubscribe && name != listUnsubscribePost {
			if signed, there := c.signed(s, name); there > signed {
				open = append(open, name)
			}
		}
	}
	const most = 8
	if len(open) > 0 {
		slices.Sort(open)
		if len(open) > most {
			open = append(open[:most], "…")
		}
		add(HeadersUnsigned, Weak, "leaves fields unsigned that anybody may change: add %s to those to sign", bare(strings.Join(open, " ")))
		return
	}
	// RFC 6376 §8.15: a second From in front would be shown and not noticed.
	if c.signs(s)["from"] <= c.header.count("from") {
		add(HeadersUnsigned, Weak, "does not over-sign From, so that another From may be added: sign From twice")
	}
}

// signed tells how many fields of a name a signature covers, and how many there
// are; RFC 6376 §5.4.2.
func (c *checker) signed(s *Signature, name string) (signed, there int) {
	there = c.header.count(name)
	return min(c.signs(s)[name], there), there
}

// signs counts the names in h=, once for each signature.
func (c *checker) signs(s *Signature) map[string]int {
	names, ok := c.names[s]
	if !ok {
		names = make(map[string]int, len(s.Headers))
		for _, name := range s.Headers {
			names[strings.ToLower(name)]++
		}
		c.names[s] = names
	}
	return names
}
