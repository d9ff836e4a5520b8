// Package reach finds out whether a mail host really offers what a TLS level
// demands. A Prober connects as smtp(8) would: greeting, EHLO, STARTTLS, the
// handshake with the server name that Postfix would send, the certificate judged
// for the level. There it stops: QUIT, never MAIL FROM. A Memory shares what was
// found and tells how the hosts of a destination stand together.
//
// The handshake never fails for the certificate's sake. Verification is off in
// crypto/tls, and the chain is judged afterwards: an untrusted, expired or
// misnamed certificate is a completed handshake that misses the level, with all
// its details, not an error.
//
// # Verdicts
//
// Positive: Postfix would deliver to this host at this level. Negative: it would
// not, and the host said so itself, either by answering EHLO with 250 and without
// STARTTLS, or by a completed handshake that fails the level. Everything else is
// Unknown: time-outs, refused connections, 4xx and 5xx replies, broken
// handshakes. Mail can be refused for a Negative, so whatever this package cannot
// judge as surely as Postfix is Unknown.
//
// Texts are Postfix's own words (smtp_proto.c, smtp_connect.c, tls_verify.c), so
// that they are found in the log that they foretell.
//
// # Security
//
// All that a host says is hostile: lines, replies and certificates are bounded,
// every step and the whole have a deadline that dripping bytes do not move, and
// texts are made printable before they are kept.
//
// Bytes that arrive between the reply to STARTTLS and the handshake were put
// there in clear by anybody (RFC 3207 §6, CVE-2011-0411). Postfix throws them
// away; here the attempt ends as Unknown.
//
// # Limits
//
// The TLS is Go's, not OpenSSL's. Hosts that offer only what crypto/tls cannot do
// (finite-field Diffie-Hellman, anonymous suites, CAMELLIA, ARIA, Ed448,
// Brainpool curves, RSA keys beyond 8192 bits) are Unknown, although Postfix may
// reach them. SHA-1 signatures, which OpenSSL 3 refuses at Postfix's security
// level for verified sessions, are refused as well.
//
// Client certificates, raw public keys (enable_rpk), session resumption, tafile=
// and wrapper mode (port 465) are not tried; nor are revocation lists, as in
// Postfix.
package reach

import "time"

// Limits, with Postfix's own beside them.
const (
	// MaxAddresses is how many addresses of a host are tried
	// (smtp_mx_address_limit is 5, for all hosts together). A host with more can
	// be Positive, and is Unknown otherwise.
	MaxAddresses = 16
	// DefaultMaxConns is how many connections a Prober has open at once.
	DefaultMaxConns = 32

	maxLine     = 2048 // octets of a reply's line with its end (line_length_limit)
	maxLines    = 128  // lines of a reply; Postfix keeps what fits into 2048 octets
	maxText     = 300  // characters of a reply that a text quotes
	maxChain    = 10   // certificates that are described (smtp_tls_scert_verifydepth is 9)
	maxNames    = 100  // names of a certificate that are described
	maxName     = 255  // characters of such a name, and of ours in EHLO
	maxFarewell = 4096 // octets that are read after QUIT

	// DefaultConnectTimeout is for the connection (smtp_connect_timeout, 30 s).
	DefaultConnectTimeout = 30 * time.Second
	// DefaultGreetingTimeout is for the greeting (smtp_helo_timeout, 300 s). Hosts
	// that let clients wait on purpose do so for up to half a minute.
	DefaultGreetingTimeout = 60 * time.Second
	// DefaultCommandTimeout is for each reply after it (300 s).
	DefaultCommandTimeout = 30 * time.Second
	// DefaultHandshakeTimeout is for the TLS handshake (smtp_starttls_timeout, 300 s).
	DefaultHandshakeTimeout = 30 * time.Second
	// DefaultQuitTimeout is for the reply to QUIT. Postfix does not wait for it
	// (smtp_skip_quit_response); a short time spares the host a reset connection.
	DefaultQuitTimeout = 2 * time.Second
	// DefaultAttemptTimeout is for everything at one address.
	DefaultAttemptTimeout = 120 * time.Second
)
