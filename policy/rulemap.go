package policy

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Limits of a rule map. Postfix has none but its memory.
const (
	maxRuleMap       = 16 << 20 // octets
	maxRuleMapErrors = 20       // how many findings one reading reports
)

// ParseRuleMap reads an existing smtp_tls_policy_maps file in texthash form (the
// input of postmap(1)) as rules. Each line is the operator's own and explicit,
// so may, none and dane need no other reason than "rule_map NAME".
//
// Postfix looks for the exact key first and then for the nearest parent, wherever
// they stand in the file; the rules come back in an order in which the first
// match is the same one. Lines that Postfix would reject, skip or never reach
// are refused, with name and line. Source: postfix/src/util/dict_thash.c,
// readlline.c.
func ParseRuleMap(name string, r io.Reader, v tlspolicy.Version) ([]Rule, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxRuleMap+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxRuleMap {
		return nil, fmt.Errorf("%s: more than %d octets", name, maxRuleMap)
	}
	m := ruleMap{name: name, version: v}
	m.read(string(data))
	if len(m.errs) > 0 {
		if m.more > 0 {
			m.errs = append(m.errs, fmt.Errorf("%s: and %d more", name, m.more))
		}
		return nil, errors.Join(m.errs...)
	}
	slices.SortStableFunc(m.entries, func(a, b ruleMapEntry) int { return a.rank - b.rank })
	rules := make([]Rule, len(m.entries))
	for i := range m.entries {
		rules[i] = m.entries[i].rule
	}
	return rules, nil
}

type ruleMap struct {
	name    string
	version tlspolicy.Version
	entries []ruleMapEntry
	errs    []error
	more    int // errors beyond maxRuleMapErrors
}

type ruleMapEntry struct {
	rule Rule
	rank int
}

// read puts logical lines together: a line that begins with white space goes on
// with the one before; comments and empty lines may stand between them.
func (m *ruleMap) read(text string) {
	var logical strings.Builder
	number, start := 0, 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimRight(line, "\r")
		bare := strings.TrimLeft(line, " \t")
		switch {
		case bare == "" || bare[0] == '#':
		case len(bare) < len(line) && logical.Len() == 0:
			m.refuse(number, "white space before the first key", "begin the line with the key")
		case len(bare) < len(line):
			logical.WriteString(" " + bare)
		default:
			m.line(start, logical.String())
			logical.Reset()
			logical.WriteString(line)
			start = number
		}
	}
	m.line(start, logical.String())
}

func (m *ruleMap) line(number int, text string) {
	text = strings.TrimRight(text, " \t")
	if text == "" {
		return
	}
	end := strings.IndexAny(text, " \t")
	if end < 0 {
		m.refuse(number, fmt.Sprintf("%.100q: a key without a value", text), "write KEY LEVEL, for example example.com encrypt")
		return
	}
	key, value := text[:end], strings.Trim(text[end:], " \t")
	if strings.HasSuffix(key, ":") {
		m.refuse(number, fmt.Sprintf("%.100q: a key with a colon after it, as in an alias file", key), "leave the colon out")
		return
	}
	if len(key) > 3 && strings.EqualFold(key[:3], "mx:") {
		m.refuse(number, fmt.Sprintf("%.100q: Postfix does not know mx: patterns", key), "write a [[rule]] in the configuration")
		return
	}
	if strings.EqualFold(firstWord(value), exempt) {
		m.refuse(number, "exempt is no level of Postfix", "write a [[rule]] in the configuration")
		return
	}
	rule, err := ParseRule(RuleText{
		Match: []string{key}, Level: value, Reason: "rule_map " + m.name,
		Source: fmt.Sprintf("%s:%d", m.name, number),
	}, m.version)
	for e := range ruleErrors(err) {
		m.refuse(number, e.What, e.Fix)
	}
	if err == nil {
		m.entries = append(m.entries, ruleMapEntry{rule, rank(rule.Match[0])})
	}
}

func (m *ruleMap) refuse(line int, what, fix string) {
	if len(m.errs) >= maxRuleMapErrors {
		m.more++
		return
	}
	if fix != "" {
		what += "; " + fix
	}
	m.errs = append(m.errs, fmt.Errorf("%s:%d: %s", m.name, line, what))
}

// rank is the place of a key in the order in which Postfix tries them: as it
// stands, without the port (which Postfix does not try), parents from the
// nearest to the farthest.
func rank(match string) int {
	const exactKey, domain, nearest = 0, 1, 2
	switch {
	case strings.HasPrefix(match, "."):
		// A name has at most 127 labels.
		return nearest + 128 - strings.Count(match, ".")
	case strings.ContainsAny(match, "[:"):
		return exactKey
	}
	return domain
}

// ruleErrors yields each finding of ParseRule.
func ruleErrors(err error) func(yield func(*RuleError) bool) {
	return func(yield func(*RuleError) bool) {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			return
		}
		for _, err := range joined.Unwrap() {
			var e *RuleError
			if errors.As(err, &e) && !yield(e) {
				return
			}
		}
	}
}
