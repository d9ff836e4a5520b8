// Package delegation serves Postfix's SMTP access policy delegation
// (SMTPD_POLICY_README). A Server reads one request at a time from a connection,
// hands it to a Handler and sends back the Action that the Handler gives.
//
// # Protocol
//
// A request is a list of lines `name=value` that ends with an empty line; its
// first attribute is request=smtpd_access_policy. Order does not matter, names that
// are not known are ignored, of a name that comes twice the first value counts.
// The answer is `action=ACTION` and an empty line. Postfix keeps the connection,
// sends a request and waits; requests that arrive together are answered in their
// order. A byte beyond the answer would make Postfix drop the connection
// (src/util/attr_clnt.c), so there never is one.
//
// # Promises
//
// Trouble of ours is answered with DUNNO, never with silence: Postfix would ask
// again after a second and then refuse the recipient, with
// smtpd_policy_service_default_action. A Handler that is late, one that panics, an
// Action that cannot be given, a request that is malformed: each is DUNNO and a log
// line, at most one of a kind in ten seconds. Only a peer that does not bring its
// request to an end, or does not take its answers, is cut.
//
// The deadline holds whatever the Handler does. When it passes, DUNNO goes out, the
// Handler's context ends, and the connection goes on without waiting for the
// Handler.
//
// Remote text in an Action never becomes a second line, another action or another
// enhanced status code. OK is not among the actions: it would end the list
// of restrictions, and with it the protection against relaying.
//
// The server never closes an idle connection, except the one idle longest, for
// more than MinIdle, and only when MaxConns connections are open and another one
// knocks. After the end of its context Serve goes on accepting and answering, see
// Server.Drain.
//
// # Repeated requests
//
// With smtpd_delay_reject, Postfix asks once per restriction list that names the
// service, all at RCPT and all with the same attributes. A request that has an
// instance, and repeats byte for byte one of the last few seconds, is answered as
// that was, from a bounded memory that all connections share; the Handler does not
// see it. What differs in anything, were it the policy_context, is another request. A
// late Handler's action replaces the DUNNO there, and so reaches the next list. A DUNNO
// for which the Handler did not wait is remembered by its own connection only, and only
// until the next request.
//
// # Security
//
// The protocol knows no authentication. Listen on loopback or on a unix socket.
// Values are what remote peers chose; only NUL and line breaks cannot be in them.
package delegation

import "time"

// Limits, with Postfix's own beside them.
const (
	// MaxRequest is the longest request in bytes, with its empty line. Postfix's
	// has 700 to 1,200; the longest values come from SMTP commands, which
	// line_length_limit cuts at 2,048.
	MaxRequest = 16 << 10
	// MaxText is how much of the text of an Action is sent, in bytes. With code and
	// `<recipient>: Recipient address rejected: ` it shall fit into the 512 octets
	// of RFC 5321 §4.5.3.1.5.
	MaxText = 300
	// MaxField is the longest header field of PREPEND in bytes (RFC 5322 §2.1.1).
	MaxField = 998
	// MinIdle is how long a connection must have been idle before it may be closed
	// to make room. Postfix closes after 300 s (smtpd_policy_service_max_idle).
	MinIdle = 310 * time.Second
	// MaxLate is how many calls of the Handler may be running past their deadline.
	// When there are as many, requests are answered with DUNNO at once.
	MaxLate = 1024
	// RepeatLifetime is how long an answer is remembered. The restriction lists of
	// one RCPT command follow each other in milliseconds, if no blocklist is slow.
	RepeatLifetime = 5 * time.Second

	// DefaultDeadline is below the timeout=3s that the documentation recommends for
	// main.cf. Postfix's own default is 100 s (smtpd_policy_service_timeout).
	DefaultDeadline = 2 * time.Second
	// DefaultMaxConns is well above smtpd(8)'s default_process_limit of 100 per
	// service; each process has one connection per way in which the service is
	// written in main.cf.
	DefaultMaxConns = 4096
	// DefaultDrain is above the 100 s (max_idle) after which an smtpd(8) without a
	// client ends. One that loses its connection logs nothing, but waits a second
	// before it asks again (smtpd_policy_service_retry_delay).
	DefaultDrain = 105 * time.Second
	// DefaultRequestTimeout is the time between the first byte of a request and
	// its last. Postfix writes a request at once.
	DefaultRequestTimeout = 10 * time.Second
	// DefaultWriteTimeout is the least time that a peer gets to take an answer; it
	// may get twice as much. Postfix waits in read(2) for it.
	DefaultWriteTimeout = 10 * time.Second

	finishTimeout = 10 * time.Second // after the drain, for what is being answered
	readSize      = 2048             // an idle connection's buffer: all but strange requests
	readGrowth    = 1024             // how much more than it has sent a half-sent request may hold
	maxSkipped    = 1 << 20          // how much of a request beyond MaxRequest is read to find its end

	// The memory for repeated requests: a thousand of them, some 1 MB as Postfix
	// sends them and 5 MB at most.
	memorySets    = 256
	memorySlots   = 4
	maxRemembered = 4 << 10 // longer requests are not remembered
)
