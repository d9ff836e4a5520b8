package tlspolicy

import (
	"fmt"
	"strings"
)

// Level is a TLS security level of smtp(8). Levels are ordered by what they
// demand of a destination about which nothing is known: dane stands below
// encrypt, because without TLSA records it is may (tls/tls_level.c orders
// otherwise, by what is reported).
type Level uint8

// The levels, from the weakest to the strongest.
const (
	None        Level = iota // no TLS
	May                      // TLS when it is offered, clear otherwise
	Dane                     // authenticated where TLSA records are published, else may
	Encrypt                  // TLS or not at all, certificates ignored
	Fingerprint              // the certificate is one of those named
	DaneOnly                 // authenticated by TLSA records or not at all
	Verify                   // certificate chain and name, names may come from DNS
	Secure                   // certificate chain and name, names do not come from DNS
)

var levelNames = [...]string{
	None: "none", May: "may", Dane: "dane", Encrypt: "encrypt",
	Fingerprint: "fingerprint", DaneOnly: "dane-only", Verify: "verify", Secure: "secure",
}

// String is the level's name in Postfix.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// ParseLevel reads a level's name, in any case, as Postfix does.
func ParseLevel(text string) (Level, error) {
	for l, name := range levelNames {
		if equalFold(name, text) {
			return Level(l), nil
		}
	}
	fix := "use one of " + strings.Join(levelNames[:], ", ")
	switch folded := strings.ToLower(text); folded {
	case "halfdane", "half-dane":
		// smtp(8) writes it into its log, and refuses it in a table.
		return 0, refuse(text, "stands only in Postfix's log", "use dane")
	case "dane_only", "daneonly":
		fix = "did you mean dane-only?"
	default:
		if guess := nearest(folded, levelNames[:]); guess != "" {
			fix = "did you mean " + guess + "?"
		}
	}
	return 0, refuse(clip(text), "is no TLS security level", fix)
}

// mustMatchName: the levels that compare the names of a certificate.
func (l Level) mustMatchName() bool { return l == Verify || l == Secure }

// equalFold is strcasecmp(3) in the C locale; strings.EqualFold would take
// "ſecure" for "secure", which Postfix refuses.
func equalFold(name, text string) bool {
	return len(name) == len(text) && strings.EqualFold(name, text)
}
