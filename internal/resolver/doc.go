// Package resolver asks validating name servers and says what they vouched for:
// the records, the canonical name, whether the answer was authentic, and for how
// long it may be believed. Absence is an answer; an error means that nobody
// answered.
//
// # Which server is asked
//
// Every question goes to one server at a time, over UDP with EDNS (1232 octets,
// DO and AD set) and over TCP when the answer was truncated. Three tiers are
// tried in turn: servers whose AD bit counts, those that have proved it first;
// then the others; then those that kept silent several times in a row. Within a
// tier the configured order holds, a server that has just failed goes last. A
// tier gets two rounds, the second with twice the time and only for servers that
// kept silent: SERVFAIL, REFUSED and the like are final for that server and
// question. So a slow validating server is waited for before an answer that
// DANE cannot use is fetched elsewhere.
//
// SERVFAIL may mean that validation failed (bogus). The next server is still
// asked, and one that does not validate will answer; such an Answer has neither
// Authentic nor Proven, which is an error for DANE and good enough for MTA-STS
// and DKIM, whose records need no DNSSEC.
//
// # Whose AD bit counts
//
// TrustAD names the servers whose path is safe. Each of them is in one state:
//
//	unknown ── an answer with AD, to any question ──────────→ proven
//	unknown, proven ── two answers in a row to the probe,
//	                   both without AD ─────────────────────→ suspended
//	unknown, suspended ── an answer with AD to the probe ───→ proven
//
// Silence and failures move nothing: whoever overloads the validating server
// cannot make it look like one that does not validate. After a probe without AD
// the second follows at once, so that the state is settled before an insecure
// answer is believed. Without a probe, trusted servers count as proven. AD from
// other servers, and in answers with CD set, is ignored.
//
// # Security
//
// A reply counts only if it came from the server's address and port, to the port
// that asked, with the id and the question that were sent; anything else is read
// over until the time is up. Ids come from the system's random source. Sockets
// to servers that are not on this host are used for one question each, so that
// the source port cannot be guessed; those to loopback are reused, because
// nobody off the host can reach them.
//
// # Limits
//
// All of them stand in limits.go. There is no cache here, and no search list:
// names are absolute.
package resolver
