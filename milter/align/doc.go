// Package align judges outgoing mail as the receiving world will: is the message
// vouched for in its author's name, and does it reach the receiver unbroken?
//
// [ParseAuthor] reads who a message says it is from. [Check] takes a [Message],
// all that was found out about it (signatures, DMARC record, organizational
// domains, SPF), and returns findings. Both are pure: no look-up, no clock, no
// log, and the same evidence gives the same findings. They accept any bytes,
// need time linear in the header, and are safe for concurrent use.
//
// # Classes
//
// Fail: receivers that follow the rules refuse the message, or cannot tell whom
// it is from. Weak: some of them do, or will in some weather. Info: worth
// knowing.
//
//	unsigned            fail  no DKIM-Signature field at all
//	signature-invalid   fail  while no signature passes; weak for an own or aligned
//	key-missing               one beside one that passes, info for a third party's;
//	key-mismatch              weak too while a key that could save the message is
//	key-revoked               not known, and for signatures of others in mail of
//	key-invalid               forwarders, who cannot mend them
//	key-weak            as above under 1024 bits; weak for RSA of 1024 to 2047 and
//	                          over 4096 bits
//	signature-expires   as above when expired; weak while x= is less than 5 days ahead
//	key-testing         weak  t=y
//	ed25519-only        weak
//	signature-fragile   weak  what some verifiers refuse, by the notes of ours
//	body-length-limit   weak  l=; fail when Content-Type is not signed beside it
//	headers-unsigned    weak  a field that should be signed is not, or From is not
//	                          over-signed
//	unaligned           fail  where a DMARC record applies; weak without one, for
//	                          forwarders, and while something is not known
//	alignment-differs   weak  public suffix list and tree walk disagree
//	dmarc-missing       weak  fail for bulk senders
//	dmarc-invalid       weak  some receivers read the record otherwise
//	spf-egress          weak
//	from-missing        fail
//	from-multiple       fail  two From fields, or mailboxes of two domains
//	from-invalid        fail  no address, or a domain that the public DNS cannot have
//	from-foreign        fail  not of the configured domains; weak for a mailbox
//	                          provider's domain when none are configured; never
//	                          for forwarders
//	sender-not-allowed  fail
//	from-ambiguous      weak  two parsers disagree, or one must guess
//	from-unresolvable   weak  the domain does not exist; info without MX and address
//	sender-missing      weak  several authors without Sender
//	date-missing        fail
//	date-invalid        weak
//	date-skewed         weak  more than a week off
//	message-id-missing  weak  fail for bulk senders
//	message-id-invalid  weak
//	header-duplicate    weak  fail for Date
//	header-invalid      fail  NUL, bare CR or LF, a line that is no field
//	header-8bit         fail  raw octets that are not UTF-8, or UTF-8 without
//	                          SMTPUTF8; weak while that is not known
//	body-invalid        weak
//	oneclick-missing    weak  of mail that is bulk by its headers; fail for bulk
//	oneclick-unsigned         senders
//	fragile-8bit        weak
//	fragile-longline    weak  over 998 octets
//	size-limit          weak
//	from-authors, from-spoof-like, tls-required-no, dns-trouble  info
//
// Weaknesses of signatures count for those that pass and are aligned, and become
// info where another of them does not have the weakness; l= does not, since
// anybody may append to the message. One that is left out of the judgement
// because there are too many signatures is told as signature-fragile, info.
//
// Three rules stand above the table. Trouble in the DNS never makes a finding of
// class fail. Headers, which anybody can forge, excuse nothing: who is a
// forwarder or a bulk sender is known from the client, and bulk headers only ask
// for more. The null sender is judged like any other, but for SPF, which rests on
// HELO then, and one-click unsubscribe.
//
// # Author
//
// Receivers read From with parsers of all kinds. Each field is therefore read by
// two: one of ours, which knows the obsolete forms of RFC 5322 §4.4 and how to go
// on where the grammar does not, and net/mail. What they do not agree about is
// from-ambiguous, so that a forgery cannot hide in the difference.
//
// # Limits
//
// A message may have 100 authors, a From field may have 64 kB, and is read by both
// parsers up to 16 kB; beyond that there is a finding. Foreign text is quoted with at most 80
// octets, and a detail never has a line break.
package align
