package main

import (
	"cmp"
	"fmt"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/delegation"
)

// reason is why a recipient is answered as it is, in the log and in metrics.
type reason uint8

const (
	reasonNone            reason = iota // nothing stands against it
	reasonNotAsked                      // another stage than RCPT
	reasonUnseen                        // not outgoing
	reasonUnanswered                    // by the DNS
	reasonDoubt                         // a rule would refuse, but the evidence is not beyond doubt
	reasonRule                          // the mail hosts do not offer what a rule demands
	reasonSenderReserved                // for others, by [[senders.allow]]
	reasonSenderNullMX                  // RFC 7505
	reasonRecipientNullMX               // RFC 7505

	reasons // how many there are
)

func (r reason) String() string {
	return [...]string{"none", "not-asked", "unseen", "unanswered", "doubt", "rule",
		"sender-not-allowed", "sender-null-mx", "recipient-null-mx"}[r]
}

// opinion is what is thought of a recipient. It never changes: it is made once and
// given to everybody.
type opinion struct {
	does   policy.RecipientAction
	action delegation.Action // that says so; DUNNO for RecipientPass
	reason reason
	rule   *policy.Rule // for reasonRule
	held   bool         // the rule is in mode monitor: only to be told
}

// The opinions that let a recipient pass.
var (
	noOpinion  = &opinion{reason: reasonNone}
	notAsked   = &opinion{reason: reasonNotAsked}
	unseen     = &opinion{reason: reasonUnseen}
	unanswered = &opinion{reason: reasonUnanswered}
	inDoubt    = &opinion{reason: reasonDoubt}
)

func (o *opinion) passes() bool { return o.does == policy.RecipientPass }

// or is the opinion that matters of two: the one that lets pass less, and of two that
// let pass the one with a reason.
func (o *opinion) or(other *opinion) *opinion {
	if other.does > o.does || other.does == o.does && other.reason > o.reason {
		return other
	}
	return o
}

func refuse(why reason, code int, status, text string) *opinion {
	return &opinion{does: policy.RecipientRefuse, action: delegation.Reject(code, status, text), reason: why}
}

// reserved: RFC 5321 §4.2.3: 550, rejected for policy reasons. RFC 3463 §3.8: X.7.1.
// The milter says the same about From. Who may is not for the client to know.
func reserved(c sender.Client, from string) *opinion {
	return refuse(reasonSenderReserved, 550, "5.7.1",
		fmt.Sprintf("postseal: %s: %s may not use the sender %s", reasonSenderReserved, clientText(c), from))
}

// senderNullMX: RFC 7505 §4.2 and §6: the domain could take neither replies nor bounces.
func senderNullMX(domain string) *opinion {
	return refuse(reasonSenderNullMX, 550, "5.7.27",
		fmt.Sprintf("postseal: the sender's domain %s takes no mail (null MX, RFC 7505)", domain))
}

// recipientNullMX: RFC 7505 §4.1 and §6.
func recipientNullMX(domain string) *opinion {
	return refuse(reasonRecipientNullMX, 556, "5.1.10",
		fmt.Sprintf("postseal: the domain %s takes no mail (null MX, RFC 7505)", domain))
}

// byRule says what a rule and the evidence come to. RFC 5248 registers X.7.10,
// encryption needed.
//
// The deferral is DEFER_IF_PERMIT: what a later restriction refuses for good is not to
// be tried for an hour first. Postfix holds on to it whatever permits the client later,
// in every restriction list (src/smtpd/smtpd_check.c: smtpd_check_rcpt).
func byRule(v policy.RecipientVerdict, domain string) *opinion {
	does, held := v.Action, false
	if does == policy.RecipientPass {
		does, held = v.Withheld, true
	}
	var a delegation.Action
	switch {
	case does == policy.RecipientRefuse:
		a = delegation.Reject(550, "5.7.10", ruleText(v, domain, "send it another way, or ask your postmaster"))
	case does == policy.RecipientDefer:
		a = delegation.DeferIfPermit("4.7.10", ruleText(v, domain, "try again later"))
	case v.Doubt != "":
		return inDoubt
	default:
		return noOpinion
	}
	return &opinion{does: does, action: a, reason: reasonRule, rule: v.Rule, held: held}
}

// minSeen is how much of what was seen is told at least, in bytes: a long text of the
// rule gives way.
const minSeen = 100

// ruleText tells a sender, whose mail program shows no more than this, what happened
// and what to do: the rule's own text, or the advice where it has none. The rule's
// reason is the operator's alone.
func ruleText(v policy.RecipientVerdict, domain, advice string) string {
	text := "postseal: mail to " + domain + " must be encrypted by our rule, and its mail hosts do not offer that"
	if v.Rule != nil {
		advice = cmp.Or(v.Rule.Text, advice)
	}
	room := delegation.MaxText - len(text) - len(": ; ") - len(advice)
	if seen := shorten(v.Seen, max(room, minSeen)); seen != "" {
		text += ": " + seen
	}
	return text + "; " + advice
}

// shorten cuts a text to a length in bytes, and shows that it did.
func shorten(text string, most int) string {
	const more = "..."
	if len(text) <= most {
		return text
	}
	return text[:most-len(more)] + more
}

// clientText names a client for people.
func clientText(c sender.Client) string {
	if c.Login != "" {
		return "login " + c.Login
	}
	return "client " + c.Addr.String()
}
