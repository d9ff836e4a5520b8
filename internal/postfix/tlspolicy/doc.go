// Package tlspolicy knows the grammar of the right side of a line in
// smtp_tls_policy_maps, for each version of Postfix:
//
//	secure match=.example.net:mail.example.com servername=hostname { policy_string = version: STSv1 }
//
// A level comes first, then attributes, separated by spaces or commas. Since
// Postfix 3.10 an attribute may stand in braces, and its value may then hold
// spaces. What Postfix does not understand it refuses as a whole, and defers all mail to
// the destination ("4.7.5 client TLS configuration problem"); therefore every
// line that leaves the daemon and every rule that an operator writes is held to
// the grammar of the version that will read it.
//
// Parse accepts what smtp(8) of that version accepts, with main.cf otherwise at
// its defaults, less what it accepts without doing what the line says
// (ErrUnsafe). Line.String renders so that smtp(8) reads back the same level
// and attributes. The judges of both are package tlspolicytest, a
// transliteration of Postfix's own reader, and the tests here.
//
// Sources: postfix/src/smtp/smtp_tls_policy.c (tls_policy_lookup_one),
// util/mystrtok.c, util/extpar.c, util/split_nameval.c, util/valid_hostname.c,
// tls/tls_level.c, tls/tls_misc.c, tls/tlsrpt_wrapper.c.
//
// # Bugs
//
// Files named by tafile= and OpenSSL's opinion of exclude= are not looked at:
// only the host that runs smtp(8) can judge them.
package tlspolicy
