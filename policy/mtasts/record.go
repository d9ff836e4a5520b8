package mtasts

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Why there is no usable record. In each case the domain has no policy that
// could be discovered now; a cached one that has not expired stays in force
// (RFC 8461 §3.1, §5.1).
var (
	// ErrNoRecord: none of the strings resembles an MTA-STS record.
	ErrNoRecord = errors.New("no MTA-STS record")
	// ErrManyRecords: more than one record begins with "v=STSv1;".
	ErrManyRecords = errors.New("more than one MTA-STS record")
	// ErrInvalidRecord: the one record, or what was meant to be one, is not valid.
	ErrInvalidRecord = errors.New("invalid MTA-STS record")
)

const (
	recordVersion = "v=STSv1"
	maxID         = 32 // RFC 8461 §3.1, sts-id
	maxExtName    = 32 // RFC 8461 §3.1 sts-ext-name, §3.2 sts-policy-ext-name
)

const wsp = " \t" // RFC 5234, appendix B.1

// Record is the TXT record of a domain.
type Record struct {
	// ID tells the versions of the policy apart: 1 to 32 ASCII letters and
	// digits. It has no order, and its case counts.
	ID string
}

// ParseRecords picks the MTA-STS record among the TXT records of one name and
// reads it, RFC 8461 §3.1. Each string is a whole record: its character-strings
// joined without separators, and bytes as on the wire, not in the escaped form
// of zone files. Equal strings are one record (RFC 2181 §5).
//
// The error wraps ErrNoRecord, ErrManyRecords or ErrInvalidRecord.
func ParseRecords(txts []string) (Record, []Note, error) {
	var n notes
	// RFC 8461 §3.1: records that do not begin with "v=STSv1;" are discarded.
	found := distinct(txts, func(s string) bool { return strings.HasPrefix(s, recordVersion+";") })
	if len(found) == 0 {
		// Erratum 6285 of RFC 8461: the grammar allows white space before the
		// semicolon, the rule above does not. Only when the rule leaves none.
		if found = distinct(txts, beginsLoosely); len(found) == 1 {
			n.add("white space before the first semicolon (RFC 8461 erratum 6285)")
		}
	}
	switch len(found) {
	case 0:
		return Record{}, nil, none(txts)
	case 1:
		r, err := parseRecord(found[0], &n)
		return r, n.all(), err
	}
	// RFC 8461 §3.1: unless exactly one remains, there is no policy.
	return Record{}, nil, fmt.Errorf("%w: %d begin with %q", ErrManyRecords, len(found), recordVersion)
}

func distinct(txts []string, keep func(string) bool) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range txts {
		if keep(s) && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func beginsLoosely(s string) bool {
	rest, ok := strings.CutPrefix(s, recordVersion)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, wsp), ";")
}

// none tells a domain without a record from one that tried: a record that is
// discarded for its beginning is the commonest slip, and the owner wants to know.
func none(txts []string) error {
	i := slices.IndexFunc(txts, func(s string) bool {
		s = strings.TrimSpace(s)
		return len(s) >= 5 && strings.EqualFold(s[:5], "v=sts")
	})
	if i < 0 {
		return ErrNoRecord
	}
	return fmt.Errorf("%w: %s does not begin with %q", ErrInvalidRecord, quote(txts[i]), recordVersion+";")
}

// parseRecord reads a record that is known to begin with the version.
func parseRecord(txt string, n *notes) (Record, error) {
	var r Record
	// RFC 8461 §3.1: the record is US-ASCII.
	if !isASCII(txt) {
		return Record{}, fmt.Errorf("%w: %s is not ASCII", ErrInvalidRecord, quote(txt))
	}
	_, rest, _ := strings.Cut(txt, ";")
	seen := false
	for more := true; more; {
		var field string
		field, rest, more = strings.Cut(rest, ";")
		trimmed := strings.Trim(field, wsp)
		switch {
		case trimmed == "" && more:
			return Record{}, fmt.Errorf("%w: empty field in %s", ErrInvalidRecord, quote(txt))
		case trimmed == "":
			continue // behind the optional last delimiter
		case !more && strings.TrimRight(field, wsp) != field:
			n.add("white space at the end of the record")
		}
		// RFC 8461 §3.1: %s"id=" is case-sensitive.
		value, isID := strings.CutPrefix(trimmed, "id=")
		if !isID {
			checkExtension(trimmed, n)
			continue
		}
		// RFC 8461 §3.2: of duplicate fields the first counts.
		if seen {
			n.add("another id ignored: %s", quote(value))
			continue
		}
		seen = true
		if why := badID(value); why != "" {
			return Record{}, fmt.Errorf("%w: %s in %s", ErrInvalidRecord, why, quote(txt))
		}
		r.ID = value
	}
	if !seen {
		return Record{}, fmt.Errorf("%w: no id in %s", ErrInvalidRecord, quote(txt))
	}
	return r, nil
}

func badID(id string) string {
	switch {
	case id == "":
		return "empty id"
	case len(id) > maxID:
		return fmt.Sprintf("id of more than %d characters", maxID)
	}
	for i := range len(id) {
		if !isAlnum(id[i]) {
			return fmt.Sprintf("id %s with other characters than letters and digits", quote(id))
		}
	}
	return ""
}

// checkExtension notes extensions that violate the grammar. They are ignored as
// the good ones are: the id is what counts, and a record refused for the sake of
// an extension would leave the mail unprotected.
func checkExtension(field string, n *notes) {
	name, value, ok := strings.Cut(field, "=")
	if !ok || !isExtName(name) || !isExtValue(value) {
		n.add("malformed extension %s ignored", quote(field))
	}
}

// isExtName: RFC 8461 §3.1 sts-ext-name, the same as §3.2 sts-policy-ext-name.
func isExtName(name string) bool {
	if name == "" || len(name) > maxExtName || !isAlnum(name[0]) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !isAlnum(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// isExtValue: RFC 8461 §3.1 sts-ext-value, no "=", ";", spaces and controls.
func isExtValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c >= 0x7F || c == '=' || c == ';' {
			return false
		}
	}
	return value != ""
}
