// Package dane finds out what RFC 7672 §2 demands of a destination: it looks up
// the mail exchangers (LookupMX), and per mail host the addresses and TLSA
// records (LookupHost), and sums them up as one of the classes of the decision
// table (Evidence.Class).
//
// The package is a classifier. Postfix evaluates DANE itself, with its own
// look-ups; the class only picks the level that Postfix is told. Where the RFC
// leaves a choice, the one that Postfix makes is taken, since a class that
// Postfix does not share makes mail wait or weakens it.
//
// Nothing is kept between calls. All functions may be called from many
// goroutines at once.
//
// # Security
//
// A missing AD bit means "insecure" only when the server has shown that it
// validates (resolver.Answer.Proven). From any other server the answer is an
// error: otherwise whoever overloads the validating server switches DANE off.
//
// Names and numbers come from strangers. Every set has a bound, and beyond it
// the host or the rest of the set counts as failed; the first N are never
// taken for the whole.
//
// # Limits
//
// Certificates are not compared with TLSA records: Postfix does it, and with it
// the name checks of DANE-TA(2) (RFC 7672 §3.2.2) and digest agility (RFC 7671
// §9), which choose among usable records and do not change a host's Status.
// SRV records (RFC 7673) are not used.
package dane
