// Package mtasts is the sending side of SMTP MTA Strict Transport Security,
// RFC 8461: it finds out whether a domain publishes a policy, fetches and reads
// it, and says which mail hosts it allows.
//
// A domain announces its policy in a TXT record at _mta-sts.<domain>
// ([Discover], [ParseRecords]) whose id changes whenever the policy does. The
// policy itself is a text file at
// https://mta-sts.<domain>/.well-known/mta-sts.txt ([Fetcher], [ParsePolicy]),
// trusted because of the certificate of its host. It names the mail hosts
// ([Policy.Match]) and how long it may be remembered.
//
// The package keeps nothing: caching, refreshing, coalescing and spacing of
// fetches (RFC 8461 §3.3, §5.1) belong to the caller. Package policy does that.
//
// # Leniency
//
// The RFC lets a sender ignore a policy as soon as one byte of it is not by the
// book, and the mail then leaves unprotected. Where a slip has only one meaning,
// and where dropping what is wrong can only make a policy stricter, this package
// keeps the policy and adds a [Note]: white space and blank lines, a byte order
// mark, a trailing dot or an underscore in a host name, one bad mx line among
// good ones, malformed extensions, an oversized max_age. It stays strict about
// the required fields, the case of their names and values, and the id.
//
// # Security
//
// Domain names come from mail, so anybody may choose which host is asked. The
// fetcher therefore speaks to port 443 only, follows no redirect, refuses
// networks that are not public (on the address dialled, see
// [Fetcher.AllowNetworks]), and bounds time, headers and body. Text from outside
// reaches notes and errors only quoted and shortened.
//
// One address has at most four connections at a time, and a fetch waits for one
// of them for 3 s at most ([ErrBusy]): a hoster of thousands of domains is not
// flooded, and a host that keeps its fetches hanging holds up four of them, not
// all. Who owns many addresses is bounded only by what the caller runs at once.
// Behind a proxy addresses are not known and not counted.
//
// # Bugs
//
// Certificates are not checked for revocation (RFC 8461 §3.3 makes that a MAY),
// and missing intermediates are not fetched. Only HTTP/1.1 is spoken, which
// every policy host understands.
package mtasts
