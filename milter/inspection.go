package milter

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter/align"
	"github.com/postseal/postseal/milter/dkim"
)

// Envelope is what is known of a message before its header.
type Envelope struct {
	Client sender.Client
	Helo   string
	// MailFrom is the envelope sender without angle brackets, empty for the null
	// sender. Over SMTP it is what the client said.
	MailFrom string
	// Mailer is the same after Postfix has rewritten it ({mail_addr}); empty: MailFrom.
	Mailer string
	UTF8   align.UTF8
	// Hostname of the mail system, for the Authentication-Results field.
	Hostname string
	// FromAuthor: the envelope sender is not known; the author's address stands for it.
	FromAuthor bool
	// File: this is check-message. Nothing is remembered about the message, and its
	// SPF result is waited for.
	File bool
}

// Inspection is one message going by: Recipient, Field, EndOfHeader, Write and
// End, in this order. It keeps the header, and nothing of the body.
type Inspection struct {
	// QueueID stands in the log line.
	QueueID string

	inspector *Inspector
	state     *state
	envelope  Envelope

	domains    map[string]int // of the recipients, and how many each has
	recipients int
	remote     bool // at least one is not delivered on this host

	fields [][]byte
	header int // bytes of all fields, the ones over the limit included
	late   int // bytes of fields beyond the limit that were kept
	// What is not there because of a limit: some of the header, and of that some
	// From or DKIM-Signature field; some of the body.
	headerCut, fromCut, signaturesCut, bodyCut bool

	author   align.Author
	dkim     *dkim.Verification
	spfKnown []align.SPF // when the header ended
	body     body

	spent time.Duration // in our code
}

// Begin begins a message; nil: it is not outgoing and passes unseen.
func (i *Inspector) Begin(e Envelope) *Inspection {
	s := i.state.Load()
	if !e.File && !s.Senders.Outgoing(e.Client) {
		i.metrics.messages.WithLabelValues("unseen").Inc()
		return nil
	}
	if e.Mailer == "" {
		e.Mailer = e.MailFrom
	}
	return &Inspection{inspector: i, state: s, envelope: e}
}

// localMailers are Postfix's transports that deliver on this host or to its own
// mail store.
var localMailers = map[string]bool{"local": true, "virtual": true, "lmtp": true, "dovecot": true, "maildrop": true, "discard": true}

// Recipient takes an accepted recipient and the transport that Postfix has chosen
// for it ({rcpt_mailer}), empty where that is not known.
func (x *Inspection) Recipient(address, mailer string) {
	x.recipients++
	if localMailers[mailer] {
		return
	}
	x.remote = true
	_, domain, ok := cutLast(address, '@')
	if !ok || domain == "" {
		return
	}
	domain = strings.ToLower(domain)
	if x.domains == nil {
		x.domains = map[string]int{}
	}
	if _, known := x.domains[domain]; !known {
		if len(x.domains) >= maxDomains {
			return
		}
		if d := x.inspector.destinations; d != nil {
			d.Warm(domain)
		}
	}
	x.domains[domain]++
}

// local: all recipients are known to be delivered on this host.
func (x *Inspection) local() bool { return x.recipients > 0 && !x.remote }

// Field takes a header field as it stands in the message: name, colon, value,
// CRLF. It keeps raw.
func (x *Inspection) Field(raw []byte) {
	if x.local() {
		return
	}
	if x.header += len(raw); x.header > maxHeader {
		x.late += len(raw)
		if named := name(raw); x.late > maxLate || named != nameFrom && named != nameSignature {
			x.late -= len(raw)
			x.missing(named)
			return
		}
		x.headerCut = true
	}
	x.fields = append(x.fields, raw)
}

// Names of the fields that are kept beyond the limit.
const (
	nameFrom      = "from"
	nameSignature = "dkim-signature"
)

// name is that of a field, in lower case.
func name(raw []byte) string {
	n, _, _ := bytes.Cut(raw[:min(len(raw), 100)], []byte{':'})
	return strings.ToLower(string(bytes.TrimRight(n, " \t")))
}

// missing notes that a field of a name was too much to be kept.
func (x *Inspection) missing(named string) {
	x.headerCut = true
	x.fromCut = x.fromCut || named == nameFrom
	x.signaturesCut = x.signaturesCut || named == nameSignature
}

// Missing says that a field was too large to be taken, by its name in any case.
func (x *Inspection) Missing(named string) { x.missing(strings.ToLower(named)) }

// EndOfHeader parses what is known now and begins the look-ups that the end will need.
func (x *Inspection) EndOfHeader() {
	defer x.clock()()
	if x.local() {
		return
	}
	x.author = align.ParseAuthor(x.fields)
	if x.envelope.FromAuthor && len(x.author.Addresses) > 0 {
		x.envelope.MailFrom = x.author.Addresses[0].String()
		x.envelope.Mailer = x.envelope.MailFrom
	}
	if x.envelope.File {
		// A file has no envelope to tell: only an address in UTF-8 needs SMTPUTF8.
		x.envelope.UTF8 = align.UTF8No
		if !isASCII(x.envelope.MailFrom) {
			x.envelope.UTF8 = align.UTF8Yes
		}
	}
	v := dkim.Verifier{Lookup: x.inspector.key, Prefer: x.prefer}
	x.dkim = v.Begin(x.fields)
	x.warm()
}

// Write takes some of the body. Lines end in CRLF.
func (x *Inspection) Write(p []byte) {
	defer x.clock()()
	if x.dkim == nil || x.bodyCut {
		return
	}
	if x.body.size+int64(len(p)) > maxBody {
		x.bodyCut = true
		return
	}
	x.body.write(p)
	_, _ = x.dkim.Write(p) // never fails
}

// End judges the message. The look-ups that are missing are waited for as long as
// ctx lasts; what is not known then is temporary trouble, which refuses no mail.
func (x *Inspection) End(ctx context.Context) *Report {
	began := time.Now()
	if x.local() {
		x.inspector.metrics.messages.WithLabelValues("local").Inc()
		return &Report{}
	}
	if x.dkim == nil {
		x.EndOfHeader() // the peer has left it out
	}
	r := x.judge(ctx)
	x.spent += time.Since(began)
	x.inspector.tell(x, r)
	return r
}

// clock counts the time until the function that it returns is called.
func (x *Inspection) clock() func() {
	began := time.Now()
	return func() { x.spent += time.Since(began) }
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 0x7f }) < 0
}

// cutLast cuts s around the last sep: a quoted local part may hold another.
func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}
