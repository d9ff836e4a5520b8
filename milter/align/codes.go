package align

// Refusal is how one kind of receiver answers to a message.
type Refusal struct {
	// Receiver is "Gmail", "Yahoo", "Microsoft", or the RFC that others follow.
	Receiver string
	Code     string // reply and enhanced status code
	Text     string // what it is about, in few words
}

// The receivers.
const (
	gmail     = "Gmail"
	yahoo     = "Yahoo"
	microsoft = "Microsoft"
	rfc7372   = "RFC 7372"
	rfc3463   = "RFC 3463"
	rfc6531   = "RFC 6531"
)

// noDKIM is what all findings provoke that leave the message without a passing
// signature.
var noDKIM = []Refusal{
	{gmail, "550 5.7.26", "neither SPF nor DKIM passes, or the DMARC policy says so"},
	{gmail, "550 5.7.30", "bulk mail without a passing DKIM signature; 421 4.7.30 at first"},
	{yahoo, "554 5.7.9", "not accepted for policy reasons: authentication"},
	{microsoft, "550 5.7.515", "the domain does not meet the required authentication level"},
	{rfc7372, "550 5.7.20", "no passing DKIM signature"},
}

// noFrom is what a From that cannot be evaluated provokes.
var noFrom = []Refusal{
	{gmail, "550 5.7.1", "not compliant with RFC 5322: From is missing, invalid or repeated"},
	{microsoft, "550 5.7.512", "the message must comply with RFC 5322 §3.6.2"},
	{yahoo, "554 5.7.9", "not accepted for policy reasons"},
}

// notCompliant is for the rest of RFC 5322.
var notCompliant = []Refusal{{gmail, "550 5.7.1", "not compliant with RFC 5322"}}

// refusals by finding, the most telling first. Bulk mail without one-click
// unsubscribe is not here: it is filtered as spam, not refused. Providers change numbers and
// words; this table is the one place to mend. Sources: the providers' pages for
// senders and on SMTP errors, RFC 7372 §3.
var refusals = map[string][]Refusal{
	Unsigned:         noDKIM,
	SignatureInvalid: noDKIM,
	KeyMissing:       noDKIM,
	KeyMismatch:      noDKIM,
	KeyRevoked:       noDKIM,
	KeyInvalid:       noDKIM,
	KeyWeak: {
		{rfc7372, "550 5.7.21", "no acceptable DKIM signature"},
		{gmail, "550 5.7.30", "bulk mail without a passing DKIM signature"},
	},
	KeyTesting:       {{rfc7372, "550 5.7.20", "no passing DKIM signature"}},
	Ed25519Only:      {{gmail, "550 5.7.26", "neither SPF nor DKIM passes"}, {rfc7372, "550 5.7.21", "no acceptable DKIM signature"}},
	SignatureExpires: {{rfc7372, "550 5.7.20", "no passing DKIM signature"}},
	SignatureFragile: {{rfc7372, "550 5.7.21", "no acceptable DKIM signature"}},
	BodyLengthLimit:  {{rfc7372, "550 5.7.21", "no acceptable DKIM signature"}},
	HeadersUnsigned:  {{rfc7372, "550 5.7.21", "no acceptable DKIM signature"}},

	Unaligned: {
		{gmail, "550 5.7.26", "unauthenticated mail is not accepted due to the domain's DMARC policy"},
		{gmail, "550 5.7.32", "bulk mail whose From is not aligned; 421 4.7.32 at first"},
		{microsoft, "550 5.7.509", "the domain does not pass DMARC and has a policy of reject"},
		{microsoft, "550 5.7.515", "the domain does not meet the required authentication level"},
		{yahoo, "554 5.7.9", "not accepted for policy reasons: DMARC"},
		{rfc7372, "550 5.7.22", "no valid author-matched DKIM signature"},
	},
	AlignmentDiffers: {{rfc7372, "550 5.7.22", "no valid author-matched DKIM signature"}},
	DMARCMissing: {
		{gmail, "550 5.7.40", "bulk mail of a domain without a DMARC record; 421 4.7.40 at first"},
		{microsoft, "550 5.7.515", "the domain does not meet the required authentication level"},
		{yahoo, "554 5.7.9", "not accepted for policy reasons"},
	},
	DMARCInvalid: {{gmail, "550 5.7.40", "bulk mail of a domain without a DMARC record or policy"}},
	SPFEgress: {
		{gmail, "550 5.7.27", "bulk mail that does not pass SPF; 421 4.7.27 at first"},
		{microsoft, "550 5.7.515", "the domain does not meet the required authentication level"},
		{rfc7372, "550 5.7.23", "SPF validation failed"},
	},

	FromMissing:      noFrom,
	FromMultiple:     noFrom,
	FromInvalid:      noFrom,
	FromAmbiguous:    noFrom,
	FromAuthors:      {{gmail, "550 5.7.1", "several addresses in From"}, {microsoft, "550 5.7.512", "the message must comply with RFC 5322 §3.6.2"}},
	SenderMissing:    {{microsoft, "550 5.7.512", "the message must comply with RFC 5322 §3.6.2"}},
	FromForeign:      {{gmail, "550 5.7.26", "unauthenticated mail is not accepted due to the domain's DMARC policy"}, {yahoo, "554 5.7.9", "not accepted for policy reasons: DMARC"}},
	FromUnresolvable: {{rfc3463, "550 5.1.8", "bad sender's system address"}},

	DateMissing:      notCompliant,
	DateInvalid:      notCompliant,
	MessageIDMissing: {{gmail, "550 5.7.1", "messages without a valid Message-ID are not accepted"}},
	MessageIDInvalid: {{gmail, "550 5.7.1", "messages without a valid Message-ID are not accepted"}},
	HeaderDuplicate:  {{gmail, "550 5.7.1", "not compliant with RFC 5322: several fields of one name"}},
	HeaderInvalid:    {{gmail, "550 5.6.0", "the message is malformed"}},
	Header8Bit:       {{rfc6531, "550 5.6.7", "non-ASCII header without SMTPUTF8"}},
	BodyInvalid:      {{microsoft, "550 5.6.11", "bare line feeds are not accepted"}},
	FragileLongLine:  {{rfc7372, "550 5.7.20", "no passing DKIM signature, after folding"}},
	Fragile8Bit:      {{rfc7372, "550 5.7.20", "no passing DKIM signature, after conversion"}},
}

// mailboxProviders are domains whose owners refuse mail in their name from
// elsewhere, BLK-008.
var mailboxProviders = []string{
	"gmail.com", "googlemail.com", "yahoo.com", "ymail.com", "aol.com", "outlook.com", "hotmail.com", "live.com",
	"msn.com", "icloud.com", "me.com", "gmx.de", "gmx.net", "web.de", "mail.ru", "yandex.ru", "proton.me", "protonmail.com",
}

// Refusals returns what receivers answer to a message with that finding, the
// most telling first; nil when nobody has a word of its own for it. The slice is
// the caller's.
func Refusals(name string) []Refusal { return append([]Refusal(nil), refusals[name]...) }

// code is the first of them.
func code(name string) string {
	if all := refusals[name]; len(all) > 0 {
		return all[0].Code
	}
	return ""
}
