package align

import (
	"bytes"
	"net/mail"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxLine   = 998 // octets without CRLF, RFC 5322 §2.1.1
	maxDetail = 500 // octets of a sentence that comes from another package
	// maxDateSkew is BLK-023's.
	maxDateSkew = 7 * 24 * time.Hour
)

// atMostOnce are the fields that RFC 5322 §3.6 and RFC 2045 §3 allow once, in
// the order in which they are told. From has a finding of its own.
var atMostOnce = []string{
	"date", "subject", "to", "message-id", "sender", "reply-to", "cc", "bcc", "in-reply-to", "references",
	"mime-version", "content-type", "content-transfer-encoding",
}

// structure: BLK-007, BLK-021, BLK-024.
func (c *checker) structure() {
	for _, name := range atMostOnce {
		if n := c.header.count(name); n > 1 {
			class := Weak
			if name == "date" { // exactly one, like From
				class = Fail
			}
			c.add(HeaderDuplicate, class, "%s stands there %d times: remove all but one (RFC 5322 §3.6)", displayName(name), n)
		}
	}
	if c.header.malformed > 0 {
		c.add(HeaderInvalid, Fail, "%s is no header field: every line of the header needs a name and a colon (RFC 5322 §2.2)", quote(c.header.bad))
	}
	for _, raw := range c.Fields {
		if hasStray(raw) {
			c.add(HeaderInvalid, Fail, "a header field has a NUL, or a CR or LF that stands alone: %s", quote(string(raw[:min(len(raw), maxQuoted)])))
			break
		}
	}
	c.eightBit()
}

// eightBit: BLK-024. RFC 6532 allows UTF-8 in messages that travel by SMTPUTF8,
// and nothing else anywhere.
func (c *checker) eightBit() {
	worst, where := Info, []byte(nil)
	for _, raw := range c.Fields {
		if isASCII(raw) {
			continue
		}
		var class Class
		switch {
		case !utf8.Valid(raw), c.UTF8 == UTF8No:
			class = Fail
		case c.UTF8 == UTF8Unknown && isASCII(c.MailFrom): // such an envelope needs SMTPUTF8
			class = Weak
		}
		if class > worst {
			worst, where = class, raw
		}
	}
	if where == nil {
		return
	}
	name, _, _ := bytes.Cut(where[:min(len(where), maxQuoted)], []byte(":"))
	if !utf8.Valid(where) {
		c.add(Header8Bit, worst, "field %s has raw octets that are not UTF-8: encode them (RFC 2047)", quote(string(name)))
		return
	}
	c.add(Header8Bit, worst, "field %s has raw UTF-8, which needs SMTPUTF8 all the way: encode it (RFC 2047)", quote(string(name)))
}

// identity: Date and Message-ID.
func (c *checker) identity() {
	switch value, ok := c.header.first("date"); {
	case !ok && !c.HeaderCut:
		c.add(DateMissing, Fail, "there is no Date field: every message needs one (RFC 5322 §3.6)")
	case ok:
		c.date(value)
	}
	class := Weak
	if c.Bulk {
		class = Fail // BLK-021
	}
	switch value, ok := c.header.first("message-id"); {
	case !ok && !c.HeaderCut:
		c.add(MessageIDMissing, class, "there is no Message-ID field, and large receivers refuse mail without: let the sender add one, or set always_add_missing_headers")
	case ok:
		if why := badMessageID(value); why != "" {
			c.add(MessageIDInvalid, Weak, "Message-ID %s %s: write <something.unique@host.domain>", quote(value), why)
		}
	}
}

func (c *checker) date(value string) {
	date, err := mail.ParseDate(value[:min(len(value), maxLine)])
	if err != nil || len(value) > maxLine {
		c.add(DateInvalid, Weak, "Date %s is no date of RFC 5322 §3.3", quote(value))
		return
	}
	// BLK-023
	if skew := date.Sub(c.Now); !c.Now.IsZero() && (skew > maxDateSkew || skew < -maxDateSkew) {
		c.add(DateSkewed, Weak, "Date %s is more than a week off: check the sender's clock", quote(value))
	}
}

// badMessageID says what is wrong with a Message-ID, RFC 5322 §3.6.4: one pair
// of brackets, one "@", no white space; the right side is a full name or a
// literal (BLK-022). Comments and white space around it are allowed.
func badMessageID(value string) string {
	value = withoutComments(value)
	inside, open := strings.CutPrefix(value, "<")
	inside, closed := strings.CutSuffix(inside, ">")
	left, right, at := strings.Cut(inside, "@")
	switch {
	case !open || !closed:
		return "does not stand in angle brackets"
	case strings.ContainsAny(inside, "<>"):
		return "has more than one pair of angle brackets"
	case strings.ContainsAny(inside, " \t\r\n"):
		return "has white space"
	case !at || left == "" || right == "" || strings.Contains(right, "@"):
		return "has not one \"@\" with something on both sides"
	case right[0] == '[' && right[len(right)-1] == ']':
		return ""
	}
	name, err := aLabels(right)
	if err != nil {
		return "has a right side that is no name"
	}
	if why := badDomain(name); why != "" || strings.HasSuffix(right, ".") {
		return "has a right side that is no fully qualified name"
	}
	return ""
}

// withoutComments drops comments around a value.
func withoutComments(value string) string {
	for {
		value = strings.Trim(value, " \t")
		if !strings.HasPrefix(value, "(") {
			break
		}
		t := tokenizer{rest: value}
		if !t.comment() {
			return value
		}
		value = t.rest
	}
	if i := strings.IndexByte(value, '>'); i >= 0 {
		t := tokenizer{rest: strings.Trim(value[i+1:], " \t")}
		for t.rest != "" && t.rest[0] == '(' && t.comment() {
			t.rest = strings.TrimLeft(t.rest, " \t")
		}
		if t.rest == "" {
			return value[:i+1]
		}
	}
	return value
}

// displayName writes a lower-case field name as people do.
func displayName(name string) string {
	switch name {
	case "message-id":
		return "Message-ID"
	case "mime-version":
		return "MIME-Version"
	}
	parts := strings.Split(name, "-")
	for i, p := range parts {
		if p != "" {
			parts[i] = strings.ToUpper(p[:1]) + p[1:]
		}
	}
	return strings.Join(parts, "-")
}
