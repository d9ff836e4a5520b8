package align

// Alignment tells whether a domain that a check vouches for belongs to the
// author's, RFC 9989 §4.4 and RFC 7489 §3.1.
type Alignment uint8

// The answers. Unknown: the organizational domains that it depends on are not
// known. Differs: by the public suffix list and by the tree walk the answers are
// opposite, and so are the receivers'.
const (
	NotAligned Alignment = iota
	AlignmentUnknown
	Differs
	IsAligned
)

// Aligned compares the author's domain with an authenticated one, both A-labels
// in lower case; strict is adkim=s or aspf=s, author and other what is known of
// the organizational domains. Without a DMARC record nobody walks the tree: leave
// Walk empty then.
func Aligned(authorDomain, domain string, strict bool, author, other Organization) Alignment {
	same := authorDomain == domain
	switch {
	case authorDomain == "" || domain == "":
		return NotAligned
	case author.Suffix == ICANNSuffix || other.Suffix == ICANNSuffix:
		// RFC 7489 §3.1.1: "d=com" is never aligned; nobody is all of a registry.
		return NotAligned
	case same:
		return IsAligned
	case strict, author.Suffix == PrivateSuffix, other.Suffix == PrivateSuffix:
		// The names below a private suffix belong to somebody else, whatever
		// record the suffix publishes.
		return NotAligned
	case author.PSL == "" || other.PSL == "":
		return AlignmentUnknown
	}
	list := author.PSL == other.PSL
	if author.Walk == "" || other.Walk == "" {
		if !list && (author.Temp || other.Temp) {
			return AlignmentUnknown // the walk might have said yes
		}
		return of(list)
	}
	// RFC 9989 §4.10.2; receivers of both kinds are about for years.
	if walk := author.Walk == other.Walk; walk != list {
		return Differs
	}
	return of(list)
}

func of(yes bool) Alignment {
	if yes {
		return IsAligned
	}
	return NotAligned
}

// Alignment of a domain with the author of the message. Where no DMARC record
// applies, the walk has no meaning (RFC 9989 §4.10.2) and the list decides.
func (m *Message) Alignment(domain string, strict bool) Alignment {
	author, other := m.Organizations[m.Author.Domain], m.Organizations[domain]
	if !m.DMARC.Found && !m.DMARC.Temp {
		author.Walk, author.Temp, other.Walk, other.Temp = "", false, "", false
	}
	return Aligned(m.Author.Domain, domain, strict, author, other)
}
