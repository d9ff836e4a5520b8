package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Exemption is the set of mechanisms that a rule of level "exempt" keeps out of
// the answer.
type Exemption uint8

// The mechanisms that a destination can be exempt from.
const (
	ExemptDANE Exemption = 1 << iota
	ExemptSTS
)

// String lists the mechanisms as the configuration does: "dane, sts".
func (e Exemption) String() string { return strings.Join(e.Names(), ", ") }

// Names lists the mechanisms as the configuration does.
func (e Exemption) Names() []string {
	var names []string
	if e&ExemptDANE != 0 {
		names = append(names, "dane")
	}
	if e&ExemptSTS != 0 {
		names = append(names, "sts")
	}
	return names
}

// Rule is what the operator says about some destinations. Its level is a
// minimum (CMB-00). A Rule is immutable once it is part of Rules.
type Rule struct {
	// Match holds the patterns, normalised: "example.com", ".example.com",
	// "example.com:587", "[host]:587", "mx:host.name", "mx:*.example.com".
	// The rule matches where one of them does.
	Match []string
	// Line is the level and its attributes; zero for an exemption.
	Line tlspolicy.Line
	// Exempt is not zero for level "exempt".
	Exempt Exemption
	// Reason is the operator's, for the operator; never shown outside.
	Reason string
	// Until is the first instant at which the rule no longer holds: local
	// midnight after its last day. Zero: it holds for ever.
	Until time.Time
	// Monitor: counted and logged, not answered.
	Monitor bool
	// Unreachable says what becomes of recipients none of whose mail hosts offers
	// what the rule demands.
	Unreachable Unreachable
	// RefuseAfter is how long UnreachableRefuse defers first, counted from the
	// first negative evidence.
	RefuseAfter time.Duration
	// Text is told to who wrote a mail that is refused; public, unlike Reason.
	Text string
	// Sender holds address patterns instead of Match: mail of these senders must be
	// encrypted wherever it goes. "user@example.com", "@example.com", "@.example.com".
	Sender []string
	// Source says where the rule stands, for people: "postseal.toml:12".
	Source string
	// text is the level as it was written, for the grammar of another version.
	text string
	// notes are what ParseRule allowed, but was hardly meant.
	notes []string
}

// Demands tells whether mail under the rule goes out with TLS or not at all.
func (r *Rule) Demands() bool { return r.Exempt == 0 && !lowering(r.Line.Level) }

// Lowers tells whether the rule can make an answer weaker than it would be
// without: exempt, none, may, dane (CMB-00).
func (r *Rule) Lowers() bool { return r.Exempt != 0 || lowering(r.Line.Level) }

func lowering(l tlspolicy.Level) bool {
	return l == tlspolicy.None || l == tlspolicy.May || l == tlspolicy.Dane
}

// Expired tells whether the rule no longer holds.
func (r *Rule) Expired(now time.Time) bool { return !r.Until.IsZero() && !now.Before(r.Until) }

// Level is the right side of the rule as it was written, or "exempt".
func (r *Rule) Level() string {
	if r.Exempt != 0 {
		return exempt
	}
	if r.text != "" {
		return r.text
	}
	return r.Line.String()
}

// permanent: where such a rule matches, no later rule is ever reached.
func (r *Rule) permanent() bool { return r.Until.IsZero() && !r.Monitor }

const exempt = "exempt"

// RuleText is a rule as it is written down. ParseRule reads it.
type RuleText struct {
	Match       []string
	Sender      []string // instead of Match
	Level       string   // the right side of a policy line, or "exempt"; with Sender it may be empty
	Exempt      []string // "dane", "sts"; nil: not given
	Reason      string
	Until       time.Time      // see Rule.Until
	Mode        string         // "enforce", "monitor"; empty: not given
	Unreachable string         // "queue", "defer", "refuse"; empty: not given
	RefuseAfter *time.Duration // nil: not given
	Text        string
	Source      string
}

// RuleError says what is wrong with a rule, where it stands and how to write it.
type RuleError struct {
	Source string // of the rule, as given
	Field  string // "match", "match[2]", "sender[0]", "level", "exempt", "reason", "mode", "unreachable", "refuse_after", "text"
	What   string // what is wrong
	Fix    string // what to write instead; may be empty
	Err    error  // the cause, nil without one
}

func (e *RuleError) Error() string {
	var b strings.Builder
	if e.Source != "" {
		b.WriteString(e.Source + ": ")
	}
	b.WriteString(e.Problem())
	return b.String()
}

// Problem is the error without the place.
func (e *RuleError) Problem() string {
	text := "rule: " + e.Field + ": " + e.What
	if e.Fix != "" {
		text += "; " + e.Fix
	}
	return text
}

func (e *RuleError) Unwrap() error { return e.Err }

// ParseRule reads a rule and refuses one that Postfix would reject, one that can
// never match, and one that lowers without a reason. Where the version is
// unknown, only what every supported Postfix understands is allowed. The error joins a
// *RuleError for each finding.
func ParseRule(t RuleText, v tlspolicy.Version) (Rule, error) {
	r := Rule{Reason: strings.TrimSpace(t.Reason), Until: t.Until, Source: t.Source, text: strings.TrimSpace(t.Level)}
	var errs []error
	refuse := func(e *RuleError) {
		if e != nil {
			e.Source = t.Source
			errs = append(errs, e)
		}
	}
	r.setMatch(t, refuse)
	r.setSender(t, refuse)
	level := r.setLevel(t, v)
	refuse(level)
	refuse(r.setExempt(t))
	if level == nil {
		refuse(r.setUnreachable(t))
	}
	refuse(r.setRefuseAfter(t))
	refuse(r.setText(t))
	if r.Reason == "" && (r.Exempt != 0 || len(errs) == 0 && r.Lowers()) {
		refuse(&RuleError{Field: "reason", What: "missing: " + firstWord(r.text) + " can weaken what is answered",
			Fix: `write why, for example reason = "their certificate expired, ticket 4711"`})
	}
	switch t.Mode {
	case "", "enforce":
	case "monitor":
		r.Monitor = true
	default:
		refuse(&RuleError{Field: "mode", What: fmt.Sprintf("%.100q is no mode of a rule", t.Mode), Fix: `write "enforce" or "monitor"`})
	}
	return r, errors.Join(errs...)
}

func (r *Rule) setMatch(t RuleText, refuse func(*RuleError)) {
	if len(t.Match) == 0 && len(t.Sender) == 0 {
		refuse(&RuleError{Field: "match", What: "missing", Fix: `write for example match = ["example.com"], or sender = ["@example.com"] for all that these send`})
	}
	for i, text := range t.Match {
		p, err := parsePattern(text)
		if err != nil {
			err.Field = fmt.Sprintf("match[%d]", i)
			refuse(err)
			continue
		}
		r.Match = append(r.Match, p.String())
	}
}

func (r *Rule) setLevel(t RuleText, v tlspolicy.Version) *RuleError {
	if len(t.Sender) > 0 {
		return r.setSenderLevel()
	}
	if r.text == "" {
		return &RuleError{Field: "level", What: "missing", Fix: `write for example level = "encrypt"`}
	}
	if strings.EqualFold(r.text, exempt) {
		return nil
	}
	if strings.EqualFold(firstWord(r.text), exempt) {
		return &RuleError{Field: "level", What: "exempt takes no attributes", Fix: `write level = "exempt"`}
	}
	line, err := tlspolicy.Parse(r.text, v)
	if err != nil {
		return levelError(r.text, v, err)
	}
	r.Line = line
	return nil
}

// levelError adds the cure that tlspolicy cannot know.
func levelError(text string, v tlspolicy.Version, err error) *RuleError {
	e := &RuleError{Field: "level", What: fmt.Sprintf("%.200q: %v", text, err), Err: err}
	var t *tlspolicy.Error
	if errors.As(err, &t) {
		e.What = fmt.Sprintf("%.200q: %s", text, strings.TrimSpace(t.Token+" "+t.What))
		e.Fix = t.Fix
	}
	if !v.Known && errors.Is(err, tlspolicy.ErrTooNew) {
		e.Fix += `; if your Postfix is new enough, say so: [tls_policy] postfix_version = what "postconf -h mail_version" shows`
	}
	return e
}

func (r *Rule) setExempt(t RuleText) *RuleError {
	is := strings.EqualFold(r.text, exempt)
	if is && t.Exempt == nil {
		r.Exempt = ExemptDANE | ExemptSTS
		return nil
	}
	for _, name := range t.Exempt {
		switch name {
		case "dane":
			r.Exempt |= ExemptDANE
		case "sts":
			r.Exempt |= ExemptSTS
		default:
			return &RuleError{Field: "exempt", What: fmt.Sprintf("%.100q is nothing to be exempt from", name), Fix: `write "dane", "sts" or both`}
		}
	}
	if !is {
		// The interface's own example has both: exempt only says from what level
		// "exempt" exempts. Without it nothing is lowered.
		r.Exempt = 0
		if len(t.Exempt) > 0 {
			r.notes = append(r.notes, fmt.Sprintf("exempt has no effect beside level %q; write level = \"exempt\", or leave exempt out", firstWord(r.text)))
		}
		return nil
	}
	if r.Exempt == 0 {
		return &RuleError{Field: "exempt", What: "empty: exempt from nothing", Fix: `write "dane", "sts" or both, or leave exempt out for both`}
	}
	return nil
}

// EndOfDay is the midnight that ends a day at a place: the value of Rule.Until
// for a rule that holds through that day.
func EndOfDay(year int, month time.Month, day int, loc *time.Location) time.Time {
	t := time.Date(year, month, day+1, 0, 0, 0, 0, loc)
	if last := time.Date(year, month, day, 12, 0, 0, 0, loc); t.Day() == last.Day() {
		// Clocks that go forward at midnight have no 00:00; time.Date may then
		// give the hour before it, and the rule would end too early.
		t = t.Add(time.Hour)
	}
	return t
}

func firstWord(text string) string {
	if words := strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" \t\r\n,", c) }); len(words) > 0 {
		return words[0]
	}
	return text
}

// clone copies what a caller could still change.
func (r Rule) clone() Rule {
	r.Match, r.Sender, r.notes = slices.Clone(r.Match), slices.Clone(r.Sender), slices.Clone(r.notes)
	return r
}
