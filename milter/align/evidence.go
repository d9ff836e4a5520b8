package align

import (
	"net/netip"
	"time"
)

// Message is the evidence about one outgoing message: all that Check looks at.
// The zero value of each field means that nothing is known, never that something
// is well or wrong.
type Message struct {
	// Fields is the header in wire order: name, colon, value and CRLF each, folds
	// with CRLF inside. Bytes are as they will leave.
	Fields [][]byte
	// Author is ParseAuthor(Fields).
	Author Author
	// AuthorHost is what the DNS has for the author's domain (RFC 5321 §5.1).
	AuthorHost Host
	// Now is the time of judgement.
	Now time.Time

	// MailFrom is the envelope sender without brackets. NullSender is true for
	// the sender of bounces, whose MailFrom is empty.
	MailFrom   string
	NullSender bool
	// Forwarded: whoever sends this may send mail of others (a list, a forwarder).
	Forwarded bool
	// Bulk: the operator counts the message's sender among bulk senders. Bulk
	// headers alone ask for one-click unsubscribe too, but only weakly.
	Bulk bool

	// Sender is what the rules about who may use which address say.
	Sender Sender
	// DomainsConfigured: there is a list of own domains. AuthorOurs: the author's
	// domain is on it.
	DomainsConfigured, AuthorOurs bool
	// SignedBefore: mail of the author's domain with a passing aligned signature
	// has been seen on this system. Only the advice for unsigned mail differs.
	SignedBefore bool

	// Signatures are those verified, in any order. A DKIM-Signature field in
	// Fields without one of these is a signature about which nothing is known.
	Signatures []Signature
	// Skipped is how many DKIM-Signature fields were not looked at: there were too
	// many, and none of them by its d= the author's.
	Skipped int
	// DMARC is that of the author's domain.
	DMARC DMARC
	// Organizations by domain, as A-labels in lower case: of the author, of each
	// signature, and of each domain in SPF.
	Organizations map[string]Organization
	// SPF has one entry for each address that mail leaves from; empty while not
	// known.
	SPF []SPF

	// UTF8 tells whether the message travels by SMTPUTF8 (RFC 6531).
	UTF8 UTF8
	// EightBitBody: the body has octets over 127.
	EightBitBody bool
	// LongLine is the length of the longest line of header or body, in octets
	// without CRLF.
	LongLine int
	// BodyInvalid: the body has a NUL, or a CR or LF that stands alone.
	BodyInvalid bool
	// HeaderCut: Fields lacks some of the header, which was over a limit; the From
	// and DKIM-Signature fields are all there unless FromCut or SignaturesCut say
	// that some of these are missing too.
	FromCut, SignaturesCut bool
	// HeaderCut: see above.
	// BodyCut: the body was over a limit and not judged to its end.
	HeaderCut, BodyCut bool
}

// Sender is the verdict of the rules that reserve addresses for certain logins
// and clients.
type Sender struct {
	Denied bool
	// Detail names login or client, and the rule; one sentence.
	Detail string
}

// Host is what the DNS has for a domain that mail is to be answered to.
type Host uint8

// The states of a domain.
const (
	HostUnknown     Host = iota
	HostResolves         // it has MX or address records
	HostNoAddress        // it exists without either, or says with a null MX that it takes no mail
	HostNonexistent      // NXDOMAIN
)

// UTF8 is how much is known about SMTPUTF8.
type UTF8 uint8

// The states of knowledge.
const (
	UTF8Unknown UTF8 = iota
	UTF8No
	UTF8Yes
)

// Status is the result of one DKIM signature, RFC 8601 §2.7.1.
type Status uint8

// The results. NotVerified is a signature that was left out, for instance
// because there were too many.
const (
	NotVerified Status = iota
	Pass
	Failed
	TempError
	PermError
)

// Cause is why a signature does not pass, as far as findings differ by it.
type Cause uint8

// The causes. CauseSignature stands for everything that is wrong with the
// signature itself: broken hash, broken header, bad syntax.
const (
	CauseSignature Cause = iota
	CauseKeyMissing
	CauseKeyMismatch
	CauseKeyRevoked
	CauseKeyInvalid // malformed, several records, not for this use
	CauseKeyWeak    // RSA under 1024 bits, RFC 8301 §3.2
	CauseExpired
)

// Signature is what was found about one DKIM-Signature field.
type Signature struct {
	Domain    string // d=, A-label, lower case
	Selector  string
	Algorithm string // "rsa-sha256", "ed25519-sha256"
	KeyBits   int    // of the public key; 0 not known
	Status    Status
	// Cause and Detail say why it does not pass; Detail is one sentence with the
	// most likely reason.
	Cause  Cause
	Detail string
	// Ours: the domain is one of the configured ones.
	Ours bool
	// Headers are the names in h=, in order and with repetitions.
	Headers []string
	// SignedAt is t=, Expires is x=; zero when absent.
	SignedAt, Expires time.Time
	// HasLength: there is an l=. Uncovered is how many octets of the canonical
	// body it leaves out.
	HasLength bool
	Length    int64
	Uncovered int64
	// Testing: the key has t=y.
	Testing bool
	// Notes are weaknesses that the verifier saw. What the fields above tell is told
	// once; a note whose name is no finding's is told as signature-fragile.
	Notes []Note
}

// Note is a weakness of a signature that passes.
type Note struct {
	Name   string
	Class  Class
	Detail string
}

// DMARC is what applies to the author's domain.
type DMARC struct {
	// Found: a record applies, by the reading of RFC 9989 or of RFC 7489.
	Found bool
	// At is the domain that publishes it.
	At string
	// Policy is "none", "quarantine" or "reject", with sp=, np= and t= applied.
	Policy string
	// StrictDKIM is adkim=s, StrictSPF is aspf=s.
	StrictDKIM, StrictSPF bool
	// Invalid says why some receivers read the record otherwise, or why there is
	// text that looks like a record and none that applies; empty when all is well.
	Invalid string
	// Temp: nobody answered, so that Found may be false by accident.
	Temp bool
}

// Organization is what is known about the organizational domain of a domain.
type Organization struct {
	// PSL is by the public suffix list (RFC 7489 §3.2); empty for a public suffix,
	// and while not known.
	PSL string
	// Walk is by the tree walk (RFC 9989 §4.10); empty while not known.
	Walk string
	// Suffix: the domain is itself a public suffix.
	Suffix Suffix
	// Temp: the walk got no answer.
	Temp bool
}

// Suffix tells public suffixes from domains of somebody.
type Suffix uint8

// The kinds of public suffix.
const (
	NoSuffix      Suffix = iota
	ICANNSuffix          // a registry: com, co.uk
	PrivateSuffix        // names that belong to customers: github.io
)

// SPF is what a receiver finds when mail leaves from an address (RFC 7208).
type SPF struct {
	Address netip.Addr
	// Result is that of RFC 7208 §2.6: "pass", "fail", "softfail", "neutral",
	// "none", "temperror", "permerror".
	Result string
	// Domain is the one checked, A-label, lower case.
	Domain string
	// Weak says what is doubtful about a record that passes ("+all").
	Weak string
}
