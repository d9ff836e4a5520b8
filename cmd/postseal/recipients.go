package main

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/delegation"
)

// recipients answers policy delegation: a recipient of outgoing mail that has no
// chance is refused while its sender is still there. What nobody answers for in time
// is no reason to refuse.
//
// Postfix asks for every recipient of every message. So what is known is answered
// without allocating, waiting or asking; the texts of refusals are made once.
type recipients struct {
	config func() *Config
	// verdict says what rules and evidence come to, and sees to it that the policy for
	// the domain is known soon. It does not wait.
	verdict func(sender, domain []byte, now time.Time) policy.RecipientVerdict
	nullMX  nullMX
	// complete writes a sender without a domain as Postfix will.
	complete func(address string) string
	// count is told which destinations are refused or deferred because of a rule; nil:
	// nobody is. It does not wait.
	count     func(domain string, a policy.RecipientAction)
	log       *slog.Logger
	answers   *answers
	domains   mailDomains
	envelopes *cache.Memory[envelope]
}

// maxEnvelopes bounds the senders remembered, some 4 MB of them.
const maxEnvelopes = 1 << 13

func newRecipients(h recipients, r prometheus.Registerer) *recipients {
	h.answers, h.domains = newAnswers(r), newMailDomains()
	h.envelopes = cache.NewMemory(cache.Options[envelope]{Limit: maxEnvelopes})
	return &h
}

// envelope is what is made of a client and the sender that it names.
type envelope struct {
	policy   *sender.Policy // that says so
	sender   []byte         // with a domain, see complete
	reserved *opinion       // for others; noOpinion if it is not
	domain   *mailDomain    // of the sender; nil without one
}

// maxEnvelope is the longest client and sender that are remembered, in bytes.
const maxEnvelope = 512

// ServePolicy is a delegation.Handler.
func (h *recipients) ServePolicy(ctx context.Context, r *delegation.Request) delegation.Action {
	if r.State() != delegation.Rcpt {
		// What is known at END-OF-MESSAGE is for the milter to say, which sees the message.
		return h.pass(notAsked)
	}
	c, now := h.config(), r.Received()
	e := h.envelope(c.Senders.Policy, r, now)
	if e == nil {
		return h.pass(unseen) // strangers' mail costs no look-up
	}
	to := h.domains.of(r.Recipient(), now)
	o := h.judge(ctx, e, to, now)
	if o.passes() {
		return h.pass(o)
	}
	held := c.Mode == policy.ModeMonitor || o.held
	h.answers.count(o, held)
	h.tell(ctx, r, o, held)
	if held {
		return delegation.Dunno()
	}
	if o.reason == reasonRule && h.count != nil {
		h.count(to.name, o.does)
	}
	return o.action
}

func (h *recipients) pass(o *opinion) delegation.Action {
	h.answers.count(o, false)
	return delegation.Dunno()
}

// envelope returns what is made of client and sender; nil: it is no outgoing mail.
func (h *recipients) envelope(p *sender.Policy, r *delegation.Request, now time.Time) *envelope {
	// As it stands in the request: whatever is the same there is judged the same.
	var space [maxEnvelope]byte
	key := append(space[:0], r.SASLUsername()...)
	key = append(append(key, 0), r.Get(delegation.ClientAddress)...)
	key = append(append(key, 0), r.Sender()...)
	if e := h.envelopes.Get(key); e != nil && e.policy == p {
		return e
	}
	client, from := clientOf(r), r.Sender()
	if !p.Outgoing(client) {
		return nil
	}
	completed := h.complete(string(from))
	e := &envelope{policy: p, sender: []byte(completed), reserved: noOpinion, domain: h.domains.of(from, now)}
	// Foreign is no reason here: forwarded mail and bounces have an envelope of others,
	// and the From, which the recipient sees, has the milter's from-foreign.
	if p.MayUse(client, completed).Use == sender.Reserved {
		e.reserved = reserved(client, string(from))
	}
	// What Postfix makes of a sender without a domain changes with main.cf.
	if len(key) <= maxEnvelope && (len(from) == 0 || bytes.IndexByte(from, '@') >= 0) {
		name := string(key)
		h.envelopes.Delete(name) // one that another policy has judged
		h.envelopes.LoadOrStore(name, func() *envelope { return e })
	}
	return e
}

func clientOf(r *delegation.Request) sender.Client {
	return sender.Client{Login: string(r.SASLUsername()), Addr: r.ClientAddress()}
}

// judge looks at the envelope of outgoing mail. Of several reasons the first one
// counts, in this order:
//
//   - the sender is reserved for others: who may not send learns nothing of partners,
//     and it is so for every recipient;
//   - a rule refuses: that is known without asking anybody;
//   - a domain takes no mail: no reason to defer what will never be taken;
//   - a rule defers. What is not known by then is not asked: it could only turn
//     one refusal into another, and the client comes back.
func (h *recipients) judge(ctx context.Context, e *envelope, to *mailDomain, now time.Time) *opinion {
	rule := noOpinion
	if to != nil {
		v := h.verdict(e.sender, to.bytes, now) // first of all: it begins look-ups
		if v.Doubt != "" && v.Withheld == policy.RecipientPass && v.Rule != nil && h.log.Enabled(ctx, slog.LevelDebug) {
			h.log.Debug("recipient not refused: in doubt", "domain", to.name, "rule", v.Rule.Source, "seen", v.Seen, "doubt", v.Doubt)
		}
		rule = to.byRule(v)
	}
	if !e.reserved.passes() {
		return e.reserved
	}
	acts := !rule.passes() && !rule.held
	if acts && rule.does == policy.RecipientRefuse {
		return rule
	}
	switch o := h.judgeNullMX(ctx, e, to, now, !acts); {
	case !o.passes():
		return o
	case rule.passes():
		return o.or(rule)
	}
	return rule
}

// judgeNullMX says whether the sender's or the recipient's domain takes no mail. What
// is not known is asked for, where there is patience.
func (h *recipients) judgeNullMX(ctx context.Context, e *envelope, to *mailDomain, now time.Time, patience bool) *opinion {
	all := noOpinion
	var unknown [roles]*mailDomain
	ask := false
	for r, d := range [roles]*mailDomain{asSender: e.domain, asRecipient: to} {
		if d == nil {
			continue
		}
		x := d.known(now)
		if x != nil && !x.null {
			all = all.or(x.opinions[r])
			continue
		}
		// A domain of ours may be delivered here, whatever the DNS tells others.
		if role(r) == asRecipient && e.policy.Restricted() && e.policy.Ours(d.name) {
			continue
		}
		if x != nil {
			return x.opinions[r]
		}
		unknown[r], ask = d, true
	}
	if !ask || !patience {
		return all
	}
	return h.askNullMX(ctx, unknown, all)
}

// askNullMX asks about all at once and gives the first refusal that is known: a domain
// for which nobody answers does not keep that of another back.
func (h *recipients) askNullMX(ctx context.Context, domains [roles]*mailDomain, all *opinion) *opinion {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got := make(chan *opinion, roles)
	asked := 0
	for r, d := range domains {
		if d == nil {
			continue
		}
		asked++
		go func() { got <- d.ask(ctx, h.nullMX).opinions[r] }()
	}
	for range asked { // nothing goes on behind the answer
		if all = all.or(<-got); !all.passes() {
			cancel()
		}
	}
	return all
}

// tell logs a refusal or a deferral, done or held.
func (h *recipients) tell(ctx context.Context, r *delegation.Request, o *opinion, held bool) {
	if !h.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attributes := []any{"reason", o.reason.String(), "answer", o.action.String(), "instance", string(r.Instance()),
		"client", clientText(clientOf(r)), "sender", string(r.Sender()), "recipient", string(r.Recipient())}
	if o.rule != nil {
		attributes = append(attributes, "rule", o.rule.Source)
	}
	h.log.Info(decisionOf(o.does, held).message(), attributes...)
}
