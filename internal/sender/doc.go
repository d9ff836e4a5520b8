// Package sender knows who may send as whom: one list, which the milter asks
// about the From of a message and policy delegation about its envelope. A Policy
// is made once from the configuration and never changes. It answers four
// questions: is mail of this client outgoing at all, may it be foreign, is a
// domain ours, and may this client use this address.
//
// # Reservations
//
// An Allow reserves what its From names. Of all elements that name an address
// the closest one decides: the address itself, then its domain, then the longest
// ".domain" above it. Several entries may hold that element; one that matches
// the client is enough. So an address can be taken out of a domain that is
// reserved for others, as the full address comes before @domain in Postfix's
// smtpd_sender_login_maps. Who shall use both is named in both entries.
//
// What a matching entry names may be used even where its domain is not among
// Domains: the entry says so. What no entry names is free to every client, as
// far as its domain is ours.
//
// # Comparison
//
// Domains are compared as lower-case A-labels without the trailing dot, so that
// U-labels, either case and what UTS #46 ignores or maps give the same domain.
// "example.com" is that domain alone, ".example.com" its subdomains alone, at
// any depth.
//
// Local parts and logins are compared without case, as Postfix does
// (smtpd_check.c: smtpd_sender_login_maps has DICT_FLAG_FOLD_FIX, and the login
// is compared with strcasecmp_utf8), here by Unicode's simple folding. Quoting
// does not count: RFC 5321 §4.1.2 makes "news"@example.org and news@example.org
// one mailbox.
//
// IPv4 addresses in IPv6 form (::ffff:192.0.2.1) are the IPv4 addresses; a zone
// is left out. Mail of sendmail(1) has the address that Postfix gives it,
// 127.0.0.1, and networks hold it like any other.
//
// # Promises
//
// Every question is answered in time linear in its text, whatever the text is,
// and without allocation where it is in lower case and ASCII already. No method
// changes anything: all may be called at the same time.
//
// # Bugs
//
// An address with an extension (news+x@example.org) is another address: only
// Postfix knows its recipient_delimiter. Local parts beyond ASCII are not
// normalised: a letter with its accent composed differs from a decomposed one.
package sender

// Limits of a configuration. Postfix has none of its own for such lists.
const (
	// MaxElements is how many elements each list may have.
	MaxElements = 1000
	// MaxAllow is how many entries may reserve.
	MaxAllow = 1000

	maxLogin = 255  // octets; Postfix's line_length_limit is 2048, directories stay far below
	maxLocal = 255  // octets; RFC 5321 §4.5.3.1.1 says 64, which Postfix does not hold anybody to
	maxName  = 253  // octets of a domain in A-labels, RFC 1035 §2.3.4
	maxLabel = 63   // octets, RFC 1035 §2.3.4
	maxText  = 1024 // octets of a domain as it is written, above what U-labels of maxName can take
)
