package policy

import (
	"time"
)

// RecipientAction is what RCPT is answered because of a rule.
type RecipientAction uint8

// The actions, the stronger the later.
const (
	RecipientPass RecipientAction = iota
	RecipientDefer
	RecipientRefuse
)

func (a RecipientAction) String() string { return [...]string{"pass", "defer", "refuse"}[a] }

// RecipientVerdict says what a rule and the evidence come to at RCPT.
type RecipientVerdict struct {
	Action RecipientAction
	// Rule is the one that demands it; nil where none has a say.
	Rule *Rule
	// Seen is what was seen of the mail hosts, printable ASCII of at most 160 bytes; it
	// may be told to anybody. Empty unless no mail host offers what the rule demands.
	Seen string
	// Doubt says why nothing is refused although no mail host offers what the rule
	// demands, or why nobody looks; empty where there is no such doubt.
	Doubt string
	// Withheld is what mode monitor of the rule keeps from being the Action.
	Withheld RecipientAction
}

// Recipient says what rules and evidence come to for a recipient of outgoing mail,
// and sees to it that the destination's policy is known before Postfix delivers. It
// does not wait: what is not known yet passes. sender is the envelope's, empty for
// a bounce; domain is the recipient's, in any spelling.
//
// The rule for the domain and the rule for the sender are judged each by itself; the
// stronger verdict is returned.
func (e *Engine) Recipient(sender, domain []byte, now time.Time) RecipientVerdict {
	var room [maxName]byte
	if name := fold(&room, domain); name != nil {
		if d := e.domains.Get(name); d != nil {
			return e.recipient(d, sender, now)
		}
	}
	k, err := ParseKey(string(domain))
	if err != nil {
		return RecipientVerdict{}
	}
	if k.Literal || k.Brackets || k.HasPort { // no domain of mail: nothing but the warming
		e.Warm(k.String())
		return RecipientVerdict{}
	}
	return e.recipient(e.domain(k.Name), sender, now)
}

// fold writes a domain in lower case and without its trailing dot into room; nil
// for what cannot be a name in A-labels.
func fold(room *[maxName]byte, domain []byte) []byte {
	n := len(domain)
	if n > 0 && domain[n-1] == '.' {
		n--
	}
	if n == 0 || n > len(room) {
		return nil
	}
	for i, c := range domain[:n] {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != '.' && !isNameByte(c) {
			return nil
		}
		room[i] = c
	}
	return room[:n]
}

func (e *Engine) recipient(d *domain, sender []byte, now time.Time) RecipientVerdict {
	p := e.plan.Load()
	d.touch(now)
	m := d.current(now.UnixNano(), p)
	if m == nil {
		e.warm(Key{Name: d.key, Port: 25}, &d.destination, now)
	}
	if e.reach == nil || p.watching == 0 {
		return RecipientVerdict{}
	}
	var bySender *Rule
	if p.watching&watchingSenders != 0 && len(sender) > 0 {
		f := p.Rules.FindSender(sender, now)
		if bySender = f.Rule; f.Rule == nil {
			bySender = f.Monitored // where an enforced rule is, it counts
		}
		if !bySender.watched() {
			bySender = nil
		}
	}
	w := e.watch.all.GetString(d.key)
	byDomain := w != nil
	if m != nil {
		byDomain = m.rule.watched() || m.monitored.watched()
	} else if w == nil {
		byDomain = p.mayWatch(d.key, now)
	}
	if !byDomain && bySender == nil {
		return RecipientVerdict{}
	}
	if w == nil {
		w = e.attend(d.key, now)
	}
	return w.recipient(e, p, byDomain, bySender, now)
}

// Rerouted says that Config.Route may tell something else from now on. Until it was
// asked anew no recipient is refused.
func (e *Engine) Rerouted() {
	e.watch.routes.Add(1)
	e.watch.changes.Add(1) // what was summed up is void
}
