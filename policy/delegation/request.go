package delegation

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// ErrProtocol says that bytes are no request.
var ErrProtocol = errors.New("delegation: not a request")

// Why a request is malformed.
var (
	errTooLong = fmt.Errorf("longer than %d bytes", MaxRequest)
	errNUL     = errors.New("a NUL in it")
	errNoName  = errors.New("a line without name=")
	errNoEnd   = errors.New("no empty line at its end, or one before")
	errType    = errors.New("no request=smtpd_access_policy")
)

// Attribute is an attribute that Postfix sends.
type Attribute uint8

// The attributes of Postfix 3.7 to 3.11, in the order in which it sends them
// (src/smtpd/smtpd_check.c: check_policy_service). The last two came with 3.8.
const (
	RequestType Attribute = iota
	ProtocolState
	ProtocolName
	ClientAddress
	ClientName
	ClientPort
	ReverseClientName
	ServerAddress
	ServerPort
	HELOName
	Sender
	Recipient
	RecipientCount
	QueueID
	Instance
	Size
	ETRNDomain
	Stress
	SASLMethod
	SASLUsername
	SASLSender
	CCertSubject
	CCertIssuer
	CCertFingerprint
	CCertPubkeyFingerprint
	EncryptionProtocol
	EncryptionCipher
	EncryptionKeysize
	PolicyContext
	CompatibilityLevel
	MailVersion

	attributes // how many there are
)

var attributeNames = [attributes]string{
	"request", "protocol_state", "protocol_name",
	"client_address", "client_name", "client_port", "reverse_client_name", "server_address", "server_port",
	"helo_name", "sender", "recipient", "recipient_count", "queue_id", "instance", "size", "etrn_domain", "stress",
	"sasl_method", "sasl_username", "sasl_sender",
	"ccert_subject", "ccert_issuer", "ccert_fingerprint", "ccert_pubkey_fingerprint",
	"encryption_protocol", "encryption_cipher", "encryption_keysize",
	"policy_context", "compatibility_level", "mail_version",
}

var attributesByName = func() map[string]Attribute {
	m := make(map[string]Attribute, attributes)
	for a, name := range attributeNames {
		m[name] = Attribute(a)
	}
	return m
}()

// attributeBegins are the beginnings of lines.
var attributeBegins = func() (all [attributes]string) {
	for a, name := range attributeNames {
		all[a] = name + "="
	}
	return all
}()

// String returns the name that Postfix uses.
func (a Attribute) String() string {
	if a >= attributes {
		return fmt.Sprintf("Attribute(%d)", uint8(a))
	}
	return attributeNames[a]
}

// State is the stage of the SMTP dialogue at which Postfix asks (protocol_state).
type State string

// The states. With smtpd_delay_reject, which is the default, the client, HELO and
// sender restrictions are asked at RCPT too.
const (
	Connect      State = "CONNECT"
	EHLO         State = "EHLO"
	HELO         State = "HELO"
	Mail         State = "MAIL"
	Rcpt         State = "RCPT"
	Data         State = "DATA" // BDAT too
	EndOfMessage State = "END-OF-MESSAGE"
	VRFY         State = "VRFY"
	ETRN         State = "ETRN"
)

// span is where a value lies in a request. Offsets take a quarter of what slices
// would, and MaxRequest fits.
type span struct{ from, to uint16 }

// Request is a request. What its methods return lies in the buffer that the request
// was read into: it is valid only as long as that is, and must not be changed.
type Request struct {
	raw      []byte
	received time.Time
	values   [attributes]span
}

// ParseRequest reads a request, with the empty line that ends it. The Request keeps
// b. Errors wrap ErrProtocol.
func ParseRequest(b []byte) (*Request, error) {
	r := &Request{}
	size, err := r.parse(b)
	if err == nil && (size == 0 || size != len(b)) {
		err = errNoEnd
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	r.received = time.Now()
	return r, nil
}

// parse reads the request that b begins with, without allocating anything, and returns
// how many bytes it takes. When it has not come in full that is zero, without an error
// where what there is could be the beginning of a request.
func (r *Request) parse(b []byte) (size int, err error) {
	*r = Request{}
	expected, at := RequestType, 0
	for at < len(b) && b[at] != '\n' {
		begin := at // of what is looked through for the end of the line
		if expected.begins(b[at:]) {
			begin += len(attributeBegins[expected])
		}
		length := 0
		if begin == len(b) || b[begin] != '\n' { // every other value is empty
			if length = bytes.IndexByte(b[begin:], '\n'); length < 0 {
				return 0, nil
			}
		}
		end := begin + length
		if end > MaxRequest {
			return 0, errTooLong
		}
		a := expected
		if begin == at {
			var known bool
			if begin, a, known = cutName(b[:end], at); begin == at {
				return 0, errNoName
			} else if !known {
				at = end + 1
				continue
			}
		}
		// SMTPD_POLICY_README: the first or the last value may be kept.
		if r.values[a] == (span{}) {
			r.values[a] = span{uint16(begin), uint16(end)}
		}
		expected, at = a+1, end+1
	}
	if at == len(b) {
		return 0, nil
	}
	r.raw = b[:at+1]
	switch {
	case len(r.raw) > MaxRequest:
		return 0, errTooLong
	// SMTPD_POLICY_README: neither names nor values contain NUL or a line break.
	case bytes.IndexByte(r.raw, 0) >= 0:
		return 0, errNUL
	case string(r.Get(RequestType)) != "smtpd_access_policy":
		return 0, errType
	}
	return len(r.raw), nil
}

// begins tells whether b begins with an attribute of that name.
func (a Attribute) begins(b []byte) bool {
	if a >= attributes {
		return false
	}
	begin := attributeBegins[a]
	return len(b) >= len(begin) && string(b[:len(begin)]) == begin
}

// cutName returns where the value begins in the line that begins at a place and ends
// with b, and which attribute it is; that place where there is no name.
func cutName(b []byte, at int) (begin int, a Attribute, known bool) {
	length := bytes.IndexByte(b[at:], '=')
	if length <= 0 {
		return at, 0, false
	}
	a, known = attributesByName[string(b[at:at+length])]
	return at + length + 1, a, known
}

// Get returns the value of an attribute. It is empty when Postfix has no value, be it
// that the attribute is empty or that it was not sent, which mean the same.
func (r *Request) Get(a Attribute) []byte {
	if a >= attributes {
		return nil
	}
	v := r.values[a]
	return r.raw[v.from:v.to:v.to]
}

// Received returns when the request was read.
func (r *Request) Received() time.Time { return r.received }

// State returns the stage of the SMTP dialogue, which may be one that has no constant.
func (r *Request) State() State {
	v := r.Get(ProtocolState)
	for _, s := range [...]State{Rcpt, Data, EndOfMessage, Mail, Connect, EHLO, HELO, VRFY, ETRN} {
		if string(v) == string(s) {
			return s // without allocation
		}
	}
	return State(v)
}

// Sender returns the envelope sender in its own case; empty for the null sender, and
// before MAIL.
func (r *Request) Sender() []byte { return r.Get(Sender) }

// Recipient returns the recipient in its own case. At DATA and END-OF-MESSAGE it is
// empty when there are several.
func (r *Request) Recipient() []byte { return r.Get(Recipient) }

// SASLUsername returns the login; empty without one.
func (r *Request) SASLUsername() []byte { return r.Get(SASLUsername) }

// Instance returns what is the same in all requests about one message, and in no
// others; empty before RCPT.
func (r *Request) Instance() []byte { return r.Get(Instance) }

// QueueID returns the queue id; empty until the first recipient was accepted.
func (r *Request) QueueID() []byte { return r.Get(QueueID) }

// PolicyContext returns what main.cf says with policy_context= (Postfix 3.1).
func (r *Request) PolicyContext() []byte { return r.Get(PolicyContext) }

// MailVersion returns the version of Postfix; empty before 3.8.
func (r *Request) MailVersion() []byte { return r.Get(MailVersion) }

// RecipientCount returns the number of recipients at DATA and END-OF-MESSAGE; zero
// before, and when Postfix sent no number.
func (r *Request) RecipientCount() int { return int(min(number(r.Get(RecipientCount)), math.MaxInt32)) }

// Size returns the size of the message in bytes: what the client declared, at
// END-OF-MESSAGE what came; zero when it is not known.
func (r *Request) Size() int64 { return number(r.Get(Size)) }

// ClientAddress returns the address of the client; the zero Addr when Postfix does not
// know it. It allocates nothing for IPv4.
func (r *Request) ClientAddress() netip.Addr {
	v := r.Get(ClientAddress)
	if addr, ok := parseIPv4(v); ok {
		return addr
	}
	addr, err := netip.ParseAddr(string(v))
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

// parseIPv4 takes what netip.ParseAddr takes, as far as it is IPv4.
func parseIPv4(b []byte) (netip.Addr, bool) {
	var ip [4]byte
	for i := range ip {
		part := b
		if i < len(ip)-1 {
			dot := bytes.IndexByte(b, '.')
			if dot < 0 {
				return netip.Addr{}, false
			}
			part, b = b[:dot], b[dot+1:]
		}
		n := number(part)
		if len(part) == 0 || len(part) > 3 || n > math.MaxUint8 || part[0] == '0' && len(part) > 1 || n == 0 && part[0] != '0' {
			return netip.Addr{}, false
		}
		ip[i] = byte(n)
	}
	return netip.AddrFrom4(ip), true
}

// number reads decimal digits; zero for anything else, or beyond int64.
func number(b []byte) int64 {
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxInt64-9)/10 {
			return 0
		}
		n = 10*n + int64(c-'0')
	}
	return n
}
