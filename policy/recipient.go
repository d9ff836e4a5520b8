package policy

// RecipientAction is what RCPT is answered because of a rule.
type RecipientAction uint8

// The actions.
const (
	RecipientPass RecipientAction = iota
	RecipientDefer
	RecipientRefuse
)

// RecipientVerdict says what a rule and the evidence come to at RCPT.
type RecipientVerdict struct {
	Action RecipientAction
	// Rule is the one that demands it; nil where none has a say.
	Rule *Rule
	// Seen is what was seen of the mail hosts; it may be told to anybody.
	Seen string
	// Doubt says why nothing is refused although no mail host offers what the rule
	// demands; empty where there is no such doubt.
	Doubt string
}

// Recipient says what rules and evidence come to for a recipient of outgoing mail,
// and sees to it that the destination's policy is known before Postfix delivers. It
// does not wait.
func (e *Engine) Recipient(sender, domain []byte) RecipientVerdict {
	e.Warm(string(domain))
	return RecipientVerdict{}
}
