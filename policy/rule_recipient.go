package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of the keys about recipients whose mail hosts do not offer what a rule
// demands.
const (
	// MaxRefuseAfter bounds Rule.RefuseAfter. Postfix gives up after
	// maximal_queue_lifetime, 5 d unless told otherwise: deferring at RCPT for
	// longer is what "defer" is for.
	MaxRefuseAfter = 7 * 24 * time.Hour
	// MaxRuleText bounds Rule.Text, in octets. It stands in one line of an SMTP
	// reply, of 512 octets at most (RFC 5321 §4.5.3.1.5), beside the name of a
	// domain (253) and what was seen.
	MaxRuleText = 150
)

var unreachableNames = [...]string{UnreachableQueue: "queue", UnreachableDefer: "defer", UnreachableRefuse: "refuse"}

// String is the word of the configuration.
func (u Unreachable) String() string { return unreachableNames[u] }

func (r *Rule) setUnreachable(t RuleText) *RuleError {
	if t.Unreachable == "" {
		return nil
	}
	n := slices.Index(unreachableNames[:], t.Unreachable)
	if n < 0 {
		return &RuleError{Field: "unreachable", What: fmt.Sprintf("%.100q is nothing that can be done with a recipient", t.Unreachable),
			Fix: `write "queue", "defer" or "refuse"`}
	}
	if r.Unreachable = Unreachable(n); r.Unreachable != UnreachableQueue && !r.Demands() {
		return &RuleError{Field: "unreachable", What: fmt.Sprintf("%s is for rules that demand TLS: at level %q mail may go in clear, so that nobody is unreachable", t.Unreachable, firstWord(r.Level())),
			Fix: `write level = "encrypt" or a stronger one, or leave unreachable out`}
	}
	return nil
}

func (r *Rule) setRefuseAfter(t RuleText) *RuleError {
	r.RefuseAfter = DefaultRefuseAfter
	if t.RefuseAfter == nil {
		return nil
	}
	if r.RefuseAfter = *t.RefuseAfter; r.RefuseAfter < 0 || r.RefuseAfter > MaxRefuseAfter {
		return &RuleError{Field: "refuse_after", What: fmt.Sprintf("%s is out of bounds", r.RefuseAfter), Fix: "write a duration from 0s to 168h"}
	}
	if t.Unreachable != UnreachableRefuse.String() {
		r.notes = append(r.notes, `refuse_after has no effect without unreachable = "refuse"`)
	}
	return nil
}

func (r *Rule) setText(t RuleText) *RuleError {
	r.Text = strings.TrimSpace(t.Text)
	if r.Text == "" {
		return nil
	}
	if at := strings.IndexFunc(r.Text, func(c rune) bool { return c < ' ' || c > '~' }); at >= 0 {
		return &RuleError{Field: "text", What: fmt.Sprintf("character %q: it is part of an SMTP reply, which is one line of printable ASCII", []rune(r.Text[at:])[0]),
			Fix: "write it on one line, without accents and other letters beyond ASCII"}
	}
	if len(r.Text) > MaxRuleText {
		return &RuleError{Field: "text", What: fmt.Sprintf("%d octets, at most %d: an SMTP reply has to hold more than that", len(r.Text), MaxRuleText),
			Fix: "write less, for example where to ask: \"see https://example.com/tls or call 555-0100\""}
	}
	if t.Unreachable == "" || t.Unreachable == UnreachableQueue.String() {
		r.notes = append(r.notes, `text is shown to nobody without unreachable = "defer" or "refuse"`)
	}
	return nil
}
