package align

import (
	"fmt"
	"slices"
	"strings"
)

// Check judges a message by what is known about it. The findings come worst
// class first, then in a fixed order of names; there is at most one of a name.
// The same evidence gives the same findings. It needs time linear in the header.
func Check(m *Message) []Finding {
	c := checker{Message: m, header: parseHeader(m.Fields), names: map[*Signature]map[string]int{}}
	c.sort()
	c.author()
	c.signatures()
	c.dmarc()
	c.spf()
	c.structure()
	c.identity()
	c.bulk()
	c.journey()
	c.trouble()
	return c.found.sorted()
}

// checker is one judgement.
type checker struct {
	*Message
	header *header
	found  findings

	// what passes, and whether it speaks for the author
	passing []*Signature
	good    []*Signature // passing and aligned, for some receivers at least
	// maybe: a signature may be good that could not be verified. temp: one may
	// pass, in whatever name, for whose key nobody answered.
	maybe, temp bool
	// names counts the names in h= of each signature, in lower case.
	names map[*Signature]map[string]int
}

func (c *checker) add(name string, class Class, format string, args ...any) {
	c.found.add(name, class, fmt.Sprintf(format, args...))
}

// sort finds the signatures that count.
func (c *checker) sort() {
	c.maybe = c.HeaderCut || c.BodyCut || len(c.Signatures) == 0 && c.header.count("dkim-signature") > 0
	for i := range c.Signatures {
		s := &c.Signatures[i]
		switch s.Status {
		case Pass:
			c.passing = append(c.passing, s)
			if a := c.alignment(s); a == IsAligned || a == Differs {
				c.good = append(c.good, s)
			}
		case TempError, NotVerified:
			c.temp = c.temp || s.Status == TempError
			c.maybe = c.maybe || c.alignment(s) != NotAligned || c.Author.Domain == "" || s.Domain == ""
		}
	}
}

// alignment of a signature with the author.
func (c *checker) alignment(s *Signature) Alignment {
	return c.Alignment(s.Domain, c.DMARC.StrictDKIM)
}

// author: who the message says it is from, and whether that is allowed.
func (c *checker) author() {
	for _, p := range c.Author.Problems {
		if p.Name == FromMissing && c.FromCut {
			continue // told below
		}
		c.found.add(p.Name, p.Class, p.Detail)
	}
	if c.FromCut {
		// Whoever hides From behind a limit must not get past what it is asked for.
		c.add(FromInvalid, Fail, "a From field is over the limit of what is looked at: no mail program writes such a one")
	}
	if c.Sender.Denied {
		c.add(SenderNotAllowed, Fail, "%s", oneLine(c.Sender.Detail))
	}
	if c.Author.Domain == "" {
		return
	}
	switch c.AuthorHost {
	case HostNonexistent:
		// DM-006: receivers want a From that can be answered.
		c.add(FromUnresolvable, Weak, "the domain %s of From does not exist in the DNS: use one that takes mail", c.Author.Domain)
	case HostNoAddress:
		c.add(FromUnresolvable, Info, "the domain %s of From takes no mail: it has neither MX nor address, so that nobody can answer", c.Author.Domain)
	}
	switch {
	case c.Forwarded: // DM-007: by who sends it, never by headers
	case c.DomainsConfigured && !c.AuthorOurs:
		c.add(FromForeign, Fail, "the domain %s of From is none of ours: write from an own address, or list the domain or the sender", c.Author.Domain)
	case !c.DomainsConfigured && slices.Contains(mailboxProviders, c.Author.Domain) && len(c.good) == 0 && !c.maybe:
		// BLK-008
		c.add(FromForeign, Weak, "only its provider can send as %s: write from an own address, with Reply-To if need be", c.Author.Domain)
	}
}

// dmarc: what the author's domain publishes.
func (c *checker) dmarc() {
	switch {
	case c.Author.Domain == "" || c.DMARC.Temp:
	case c.DMARC.Found && c.DMARC.Invalid != "":
		c.add(DMARCInvalid, Weak, "%s", oneLine(c.DMARC.Invalid))
	case c.DMARC.Found:
	case c.Forwarded && !(c.DomainsConfigured && c.AuthorOurs): // somebody else's to publish
	default:
		class := Weak
		if c.Bulk {
			class = Fail // BLK-004, DM-035
		}
		if c.DMARC.Invalid != "" {
			c.add(DMARCMissing, class, "%s", oneLine(c.DMARC.Invalid))
			return
		}
		c.add(DMARCMissing, class, "no DMARC record applies to %s: publish TXT \"v=DMARC1; p=none\" at _dmarc.%s or at its organizational domain", c.Author.Domain, c.Author.Domain)
	}
}

// spf: DM-012. What a receiver will find when mail leaves from our addresses.
// Bounces rest on DKIM alone (DM-015), and so does forwarded mail as far as
// alignment goes.
func (c *checker) spf() {
	if c.NullSender {
		return
	}
	for _, s := range c.SPF {
		switch s.Result {
		case "temperror", "":
			continue
		case "pass":
		case "none":
			c.add(SPFEgress, Weak, "%s has no SPF record: publish one that allows %s", quote(s.Domain), s.Address)
			continue
		case "permerror":
			c.add(SPFEgress, Weak, "the SPF record of %s cannot be evaluated: mend its syntax, or bring it under 10 look-ups", quote(s.Domain))
			continue
		default:
			c.add(SPFEgress, Weak, "SPF of %s gives %s for %s: add the address to the record", quote(s.Domain), quote(s.Result), s.Address)
			continue
		}
		if s.Weak != "" {
			c.add(SPFEgress, Weak, "the SPF record of %s passes but is doubtful: %s", quote(s.Domain), oneLine(s.Weak))
		}
		// DM-013: DKIM is demanded, SPF is not.
		if c.Author.Domain != "" && !c.Forwarded && c.Alignment(s.Domain, c.DMARC.StrictSPF) == NotAligned {
			c.add(SPFEgress, Weak, "SPF passes for %s, which is not aligned with the domain %s of From: use an envelope sender of that domain", quote(s.Domain), c.Author.Domain)
		}
	}
}

// journey: what may happen to the message after us.
func (c *checker) journey() {
	// K-026: smtp(8) rewrites after all milters.
	if c.EightBitBody {
		c.add(Fragile8Bit, Weak, "8bit body may be converted to quoted-printable for a server without 8BITMIME, which breaks signatures: sign after encoding as 7bit")
	}
	if c.LongLine > maxLine {
		c.add(FragileLongLine, Weak, "a line of %d octets will be folded by smtp_line_length_limit, which breaks signatures: keep lines to %d octets (RFC 5322 §2.1.1)", c.LongLine, maxLine)
	}
	if c.BodyInvalid {
		c.add(BodyInvalid, Weak, "the body has a NUL, or a CR or LF that stands alone (RFC 5321 §2.3.8): receivers refuse or rewrite it")
	}
	if c.HeaderCut || c.BodyCut {
		part := "body"
		if c.HeaderCut {
			part = "header"
		}
		c.add(SizeLimit, Weak, "the %s is over the limit and was not judged to its end", part)
	}
	if n := c.header.count("tls-required"); n > 0 {
		// RFC 8689 §5: the one value is "No".
		if value, _ := c.header.first("tls-required"); n > 1 {
			c.add(TLSRequiredNo, Info, "TLS-Required stands there %d times: it is malformed (RFC 8689 §5)", n)
		} else if strings.EqualFold(value, "no") {
			c.add(TLSRequiredNo, Info, "TLS-Required: No asks to ignore DANE and MTA-STS for this message (RFC 8689)")
		}
	}
}

// trouble: what could not be asked. Nothing is held against the message.
func (c *checker) trouble() {
	if c.DMARC.Temp {
		c.add(DNSTrouble, Info, "nobody answered for the DMARC record of %s", c.Author.Domain)
	}
	for i := range c.Signatures {
		if s := &c.Signatures[i]; s.Status == TempError {
			c.add(DNSTrouble, Info, "nobody answered for the key of the signature of %s, selector %s", quote(s.Domain), quote(s.Selector))
		}
	}
	for _, s := range c.SPF {
		if s.Result == "temperror" {
			c.add(DNSTrouble, Info, "nobody answered for the SPF record of %s", quote(s.Domain))
		}
	}
	if c.Organizations[c.Author.Domain].Temp {
		c.add(DNSTrouble, Info, "nobody answered for the organizational domain of %s", c.Author.Domain)
	}
}

// oneLine makes a sentence of another package fit for a log line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return ' '
		}
		return r
	}, s[:min(len(s), maxDetail)])
}
