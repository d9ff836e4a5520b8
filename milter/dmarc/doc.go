// Package dmarc finds out what DMARC demands of mail from a domain, as RFC 9989
// has it and as its predecessor RFC 7489 had it: receivers will be of both kinds
// for years.
//
// A domain's policy is a TXT record at _dmarc.<domain> ([ParseRecord]). When the
// author's domain publishes none, that of its organizational domain counts. The
// older standard takes the organizational domain from the public suffix list;
// the newer one walks up the DNS tree and looks at the records found there
// (RFC 9989 §4.10). [Discoverer.Discover] says what both find, and whether they
// differ. [Discoverer.Organization] gives both organizational domains of a
// domain, for alignment.
//
// The DNS is asked through functions, and nothing is kept between calls: they are
// to cache. All methods may be called from many goroutines at once.
//
// # Limits
//
// At most 8 records are looked for (RFC 9989 §4.10), and at most one more name is
// asked for, to learn whether the author's domain exists, where np= makes that
// matter. The public suffix list is the one compiled in; names below a top-level
// domain that it does not know are taken as registered directly below it.
//
// Who gets reports, and of which kind, is not looked at, but for whether rua=
// holds an address: that decides about a record whose policy is not valid. pct=
// of RFC 7489 is ignored: receivers of that kind apply the policy to a share of
// messages, and each message may be of it.
package dmarc
