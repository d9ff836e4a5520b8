// Package dkim verifies DKIM signatures (RFC 6376, 8301, 8463, 8616) of mail
// that is about to leave, in one pass over a message that is not kept.
//
// [Verifier.Begin] takes the header and reads its DKIM-Signature fields; the body
// is then written in pieces of any size; [Verification.Finish] looks up the keys
// and returns a [Result] for each signature. The body is hashed once for each of
// the two canonicalizations in use, however many signatures there are; lengths
// of l= are sums taken on the way. Memory does not grow with the body, no
// goroutine is started, and time is linear in the message.
//
// A verifier at a receiver says whether to believe a signature. This one is
// asked before the message goes out, by those who can still mend it, so a Result
// says more: the [Cause], in words the most likely reason and the one thing to
// do, every fact that alignment and policy need, and as [Note] what passes here
// and would not pass everywhere.
//
// # Where verifiers differ
//
// What most verifiers accept and can mean only one thing is accepted and noted:
// letter case of a=, c=, q= and i=, white space within values that may have none,
// empty names in h=, a domain of one label, keys written as RSAPublicKey, l=. What
// RFC 6376 forbids and has no clear meaning fails: an empty tag, a tag twice, a
// v= of the key that is not first, several key records. SHA-1 fails, as RFC 8301
// demands. t= in the future passes with a note; RFC 6376 lets verifiers refuse
// it, and libopendkim does beyond five minutes. z= never counts for the verdict;
// it is read only to name the field that changed.
//
// The explanation of a failed signature is a guess that was tested where that is
// possible: without the appended octets, without the added field, with the other
// canonicalization the signature does fit.
//
// # Security
//
// Header, body and key records are foreign text. Each has a limit, and details
// quote and shorten what they repeat. [Result.Identity] and [Key.Notes] are given
// as they came. Names that are looked up consist of letters, digits, hyphens,
// underscores and dots.
//
// # Limits
//
// Nothing is cached; that is for whoever provides the Lookup. Alignment with From, and whether one signature makes up for another, are not judged here.
package dkim
