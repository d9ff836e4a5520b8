package milter

import "time"

// What comes from outside has an end. The numbers of the peer stand beside ours.
const (
	// maxPacket bounds one packet. Postfix sends bodies in chunks of 65,535 bytes
	// and a header field in one packet; header_size_limit is 102,400. go-milter
	// itself would allocate 1 MiB on announcement.
	maxPacket = 512 << 10
	// maxField is up to where a header field beyond maxPacket is read over.
	maxField = 64 << 20
	// maxOversize is how many of those are told apart, and maxName how many bytes
	// of one are looked at for its name.
	maxOversize = 1000
	maxName     = 100
	// packetTimeout is how long a packet may take from its first byte to its last.
	// Postfix writes it in one go; milter_command_timeout is 30 s.
	packetTimeout = 30 * time.Second
	// idleTimeout is how long a connection may say nothing, in a message or between
	// two. It is libmilter's own (7,210 s), above Postfix's smtpd_timeout (300 s): a
	// connection cut in mid-session costs the rest of its mail (default_action).
	idleTimeout = 7210 * time.Second
	// writeTimeout is how long Postfix may take to take a reply.
	writeTimeout = 30 * time.Second

	// DefaultMaxConns is how many connections are served at once. Postfix opens one
	// per SMTP session and one per message of sendmail(1); default_process_limit is 100.
	DefaultMaxConns = 2000
	// DefaultDrain is how long messages in flight get after the end was asked for.
	DefaultDrain = 100 * time.Second
	// idleGrace is how long a connection without a message in flight gets then.
	idleGrace = 5 * time.Second

	// maxHeader bounds the header section that is looked at, in bytes. Beyond it only
	// From and DKIM-Signature fields are, up to maxLate bytes: whoever pads a header
	// must not get past the rules about senders. The message goes on, with a finding.
	maxHeader = 1 << 20
	maxLate   = 256 << 10
	// maxBody bounds the body that is hashed. message_size_limit is 10,240,000; zero
	// there means no limit.
	maxBody = 1 << 30

	// maxDomains bounds the recipient domains of a message that are told apart.
	maxDomains = 200

	// judgeTimeout is how long the look-ups of one message may take at its end. It
	// lies below content_timeout=20s, which the documentation recommends for
	// main.cf; afterwards what is not known counts as temporary trouble.
	judgeTimeout = 10 * time.Second
)
