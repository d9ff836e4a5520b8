package align

import (
	"fmt"
	"slices"
	"strings"
)

const (
	maxAuthors = 100 // mailboxes of all From fields; DM-001 asks for a bound
	// maxFrom is the length of a From value that is read at all: 100 mailboxes of
	// the longest kind (RFC 5321 §4.5.3.1) with names.
	maxFrom = 64 << 10
	// maxCompared is the length of a From value that the second parser is asked
	// about too; a longer one counts as ambiguous.
	maxCompared = 16 << 10
)

// Address is a mailbox of a From field.
type Address struct {
	// Local is the part before the last "@", quotes removed.
	Local string
	// Domain is an A-label name in lower case, or what was written when that is
	// no name at all.
	Domain string
}

// String returns local part, "@" and domain, without quoting.
func (a Address) String() string { return a.Local + "@" + a.Domain }

// Author is who a message says it is from: what its From fields hold.
type Author struct {
	// Fields is how many From fields there are; RFC 5322 §3.6 wants one.
	Fields int
	// Addresses are the mailboxes of all From fields, in order, at most 100.
	Addresses []Address
	// Others are further addresses that some reader could take for an author,
	// because a field is not by the grammar; at most 100.
	Others []Address
	// Domain is the one domain of all of them, RFC 9989 §4.7: A-labels, lower
	// case. Empty when there is none, when there are several, and when it can be
	// no name in the public DNS.
	Domain string
	// Problems are why not, and what receivers may read otherwise.
	Problems []Problem
}

// Problem is a finding about From.
type Problem struct {
	Name   string // of a finding
	Class  Class
	Detail string
}

func (a *Author) problem(name string, class Class, format string, args ...any) {
	if !slices.ContainsFunc(a.Problems, func(p Problem) bool { return p.Name == name && p.Class >= class }) {
		a.Problems = append(a.Problems, Problem{name, class, fmt.Sprintf(format, args...)})
	}
}

// ParseAuthor reads the From fields of a header (RFC 5322 §3.6.2), given as raw
// fields in wire order. It never fails: what cannot be read is among the
// problems. Two parsers read each field; where they disagree, or where one must
// guess, receivers will disagree too, and the author is ambiguous.
func ParseAuthor(fields [][]byte) Author {
	var a Author
	sender := false
	for _, raw := range fields {
		switch f, ok := splitField(raw); {
		case ok && f.name == "sender":
			sender = true
		case ok && f.name == "from":
			a.Fields++
			a.read(unfold(f.value))
		}
	}
	a.judge(sender)
	return a
}

// read adds the mailboxes of one From field.
func (a *Author) read(value string) {
	if len(value) > maxFrom {
		a.problem(FromInvalid, Fail, "From is longer than %d octets", maxFrom)
		return
	}
	list := parseAddresses(value)
	for _, m := range list.mailboxes {
		if len(a.Addresses) == maxAuthors {
			a.problem(FromInvalid, Fail, "From has more than %d mailboxes", maxAuthors)
			break
		}
		domain, err := aLabels(m.domain)
		if err != nil {
			domain = m.domain
		}
		a.Addresses = append(a.Addresses, Address{m.local, domain})
	}
	if len(list.mailboxes) == 0 {
		return // judge says so
	}
	if list.guess != "" {
		// DM-004: receivers need not guess as we do.
		a.problem(FromAmbiguous, Weak, "From %s can be read in several ways: %s; write it as \"name\" <address>", quote(value), list.guess)
	} else if other := disagreement(value, &list); other != "" {
		a.problem(FromAmbiguous, Weak, "From %s can be read in several ways: %s; write it as \"name\" <address>", quote(value), other)
	}
	for _, m := range candidates(value) {
		other := Address{m.local, Domain(m.domain)}
		if len(a.Others) < maxAuthors && !slices.Contains(a.Addresses, other) && !slices.Contains(a.Others, other) {
			a.Others = append(a.Others, other)
		}
	}
	for _, m := range list.mailboxes {
		if strings.Contains(m.local, "@") || strings.Contains(decodeWords(m.name), "@") {
			a.problem(FromSpoofLike, Info, "From %s shows an address besides the one that counts, as forgeries do", quote(value))
			break
		}
	}
}

// judge finds the one domain of all mailboxes.
func (a *Author) judge(sender bool) {
	switch {
	case a.Fields == 0:
		a.problem(FromMissing, Fail, "there is no From field: every message needs one (RFC 5322 §3.6)")
		return
	case a.Fields > 1:
		// RFC 5322 §3.6: at most one. Receivers pick the first or the last.
		a.problem(FromMultiple, Fail, "there are %d From fields: remove all but one (RFC 5322 §3.6)", a.Fields)
	}
	if len(a.Addresses) == 0 { // as long as no other reason is known
		// RFC 6854 allows a group here; it still has no domain to answer for it.
		a.problem(FromInvalid, Fail, "From holds no address: write one in a domain of yours")
		return
	}
	domains := a.domains()
	if len(domains) > 1 {
		// RFC 9989 §5.3.1: several domains cannot be evaluated.
		a.problem(FromMultiple, Fail, "From has mailboxes of %d domains, %s and %s: only one can be vouched for", len(domains), quote(domains[0]), quote(domains[1]))
		return
	}
	if why := badDomain(domains[0]); why != "" {
		a.problem(FromInvalid, Fail, "the domain %s of From %s: use a name that the public DNS has", quote(domains[0]), why)
		return
	}
	a.Domain = domains[0]
	if len(a.Addresses) > 1 && a.Fields == 1 {
		a.problem(FromAuthors, Info, "From has %d mailboxes of one domain; some receivers take one only", len(a.Addresses))
		if !sender {
			// RFC 5322 §3.6.2: several authors need a Sender.
			a.problem(SenderMissing, Weak, "From has %d mailboxes and there is no Sender field: add one (RFC 5322 §3.6.2)", len(a.Addresses))
		}
	}
}

// domains returns the different domains, in order.
func (a *Author) domains() []string {
	var all []string
	for _, address := range a.Addresses {
		if d := strings.ToLower(address.Domain); !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// disagreement asks the standard library's parser for a second opinion and says
// what it reads otherwise, empty when it agrees or cannot tell.
func disagreement(value string, list *addressList) string {
	if len(value) > maxCompared {
		return fmt.Sprintf("it is longer than %d octets", maxCompared)
	}
	theirs, err := secondOpinion(value)
	if err != nil {
		// It refuses what is legal but rare; without comments and with plain
		// words for names it has no reason to.
		if list.commentHasAt {
			return "a comment holds an address"
		}
		if theirs, err = secondOpinion(list.plain()); err != nil {
			return "one parser of two refuses it"
		}
	}
	if len(theirs) != len(list.mailboxes) {
		return fmt.Sprintf("one parser finds %d mailboxes, another one %d", len(list.mailboxes), len(theirs))
	}
	for i, m := range list.mailboxes {
		if !strings.EqualFold(m.domain, theirs[i]) {
			return fmt.Sprintf("one parser finds %s, another one %s", quote(m.domain), quote(theirs[i]))
		}
	}
	return ""
}
