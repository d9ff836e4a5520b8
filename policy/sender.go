package policy

import "time"

// replySender is what Postfix is told about mail of a class: the transport, and
// no next hop, so that the recipient's domain, relayhost and
// sender_dependent_relayhost_maps decide about that as ever (resolve.c: only a
// next hop after the colon would override them).
const replySender = "OK " + EnforcedTransport + ":"

// serveSender answers one question of trivial-rewrite(8) for
// sender_dependent_default_transport_maps. All mail of this host waits for it,
// so there is nothing here to wait for.
func (e *Engine) serveSender(dst, key []byte, start time.Time) []byte {
	reply, count := e.senderReply(key, start)
	e.metrics.senders[count].Inc()
	e.metrics.latency.Observe(time.Since(start).Seconds())
	return append(dst, reply...)
}

func (e *Engine) senderReply(sender []byte, now time.Time) (string, senderAnswer) {
	p := e.plan.Load()
	f := p.Rules.FindSender(sender, now)
	switch {
	case f.Rule != nil && !p.Monitor:
		return replySender, senderEnforced
	case f.Rule != nil || f.Monitored != nil:
		return notFound, senderWithheld
	}
	return notFound, senderNone
}

// senderAnswer is a label of the metric.
type senderAnswer uint8

const (
	senderNone     senderAnswer = iota // no rule
	senderEnforced                     // to the transport
	senderWithheld                     // mode monitor holds it back
	senderAnswers
)

var senderAnswerNames = [...]string{senderNone: "none", senderEnforced: "enforced", senderWithheld: "withheld"}

// SenderExplanation tells what becomes of the mail of an envelope sender.
type SenderExplanation struct {
	Address string           `json:"address"`
	Reply   string           `json:"reply"`    // of the map name postseal-sender
	Rule    *RuleExplanation `json:"rule"`     // null: none
	Monitor bool             `json:"withheld"` // mode monitor holds the reply back
}

// ExplainSender tells what Postfix is told about an envelope sender, and why.
func (e *Engine) ExplainSender(address string) SenderExplanation {
	now := time.Now()
	f := e.plan.Load().Rules.FindSender([]byte(address), now)
	reply, answer := e.senderReply([]byte(address), now)
	x := SenderExplanation{Address: address, Reply: reply, Rule: explainRule(f.Rule), Monitor: answer == senderWithheld}
	if f.Rule == nil {
		x.Rule = explainRule(f.Monitored)
	}
	return x
}
