package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/delegation"
)

// recipients answers policy delegation: a recipient of outgoing mail that has no
// chance is refused while its sender is still there. What nobody answers for in time
// is no reason to refuse.
type recipients struct {
	config func() *Config
	// warm sees to it that the policy for a domain is known soon, without waiting.
	warm func(domain string)
	// nullMX asks whether a domain takes no mail, and remembers.
	nullMX  func(ctx context.Context, domain string) (bool, error)
	log     *slog.Logger
	answers *prometheus.CounterVec // by action and reason
}

// newAnswers counts what the handler has decided.
func newAnswers(r prometheus.Registerer) *prometheus.CounterVec {
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postseal_delegation_answers_total", Help: "Decisions about recipients, by action and reason.",
	}, []string{"action", "reason"})
	if r != nil {
		r.MustRegister(answers)
	}
	return answers
}

// The reasons of an answer, in the log and in metrics.
const (
	reasonNone            = "none"       // nothing stands against it
	reasonNotAsked        = "not-asked"  // another stage than RCPT
	reasonUnseen          = "unseen"     // not outgoing
	reasonUnanswered      = "unanswered" // by the DNS
	reasonSenderReserved  = "sender-not-allowed"
	reasonSenderNullMX    = "sender-null-mx"
	reasonRecipientNullMX = "recipient-null-mx"
)

// opinion is an action with its reason. The zero action is DUNNO.
type opinion struct {
	action delegation.Action
	reason string
}

func (a opinion) refuses() bool { return a.action != delegation.Dunno() }

// ServePolicy is a delegation.Handler.
func (h *recipients) ServePolicy(ctx context.Context, r *delegation.Request) delegation.Action {
	if r.State() != delegation.Rcpt {
		// What is known at END-OF-MESSAGE is for the milter to say, which sees the message.
		return h.give("dunno", opinion{reason: reasonNotAsked})
	}
	c := h.config()
	client := sender.Client{Login: string(r.SASLUsername()), Addr: r.ClientAddress()}
	if !c.Senders.Policy.Outgoing(client) {
		return h.give("dunno", opinion{reason: reasonUnseen}) // strangers' mail costs no look-up
	}
	from, to := string(r.Sender()), string(r.Recipient())
	a := h.decide(ctx, c.Senders.Policy, client, from, to)
	if !a.refuses() {
		return h.give("dunno", a)
	}
	action, message := "reject", "recipient refused"
	if c.Mode == policy.ModeMonitor {
		action, message = "monitor", "recipient would be refused"
	}
	h.log.Info(message, "reason", a.reason, "answer", a.action.String(), "instance", string(r.Instance()),
		"client", clientText(client), "sender", from, "recipient", to)
	if action == "monitor" {
		a.action = delegation.Dunno()
	}
	return h.give(action, a)
}

func (h *recipients) give(action string, a opinion) delegation.Action {
	h.answers.WithLabelValues(action, a.reason).Inc()
	return a.action
}

// decide looks at the envelope of outgoing mail.
func (h *recipients) decide(ctx context.Context, p *sender.Policy, client sender.Client, from, to string) opinion {
	toDomain, toKnown := mailDomain(to)
	if toKnown {
		h.warm(toDomain)
	}
	// Foreign is no reason here: forwarded mail and bounces have an envelope of others,
	// and the From, which the recipient sees, has the milter's from-foreign.
	if v := p.MayUse(client, from); v.Use == sender.Reserved {
		// RFC 5321 §4.2.3: 550, rejected for policy reasons. RFC 3463 §3.8: X.7.1. The
		// milter says the same about From. Who may is not for the client to know.
		return opinion{delegation.Reject(550, "5.7.1", fmt.Sprintf("postseal: %s: %s may not use the sender %s",
			reasonSenderReserved, clientText(client), from)), reasonSenderReserved}
	}
	var asked []nullMXQuestion
	if domain, ok := mailDomain(from); ok {
		// RFC 7505 §4.2 and §6: the sender's domain could take neither replies nor bounces.
		asked = append(asked, nullMXQuestion{domain, opinion{delegation.Reject(550, "5.7.27",
			fmt.Sprintf("postseal: the sender's domain %s takes no mail (null MX, RFC 7505)", domain)), reasonSenderNullMX}})
	}
	// A domain of ours may be delivered here, whatever the DNS tells others.
	if toKnown && (!p.Restricted() || !p.Ours(toDomain)) {
		// RFC 7505 §4.1 and §6.
		asked = append(asked, nullMXQuestion{toDomain, opinion{delegation.Reject(556, "5.1.10",
			fmt.Sprintf("postseal: the domain %s takes no mail (null MX, RFC 7505)", toDomain)), reasonRecipientNullMX}})
	}
	return h.askAll(ctx, asked)
}

// nullMXQuestion is a domain, and the opinion if it takes no mail.
type nullMXQuestion struct {
	domain  string
	refusal opinion
}

// askAll asks about all at once and gives the first refusal that is known: a domain
// for which nobody answers does not keep that of another back.
func (h *recipients) askAll(ctx context.Context, asked []nullMXQuestion) opinion {
	var asking sync.WaitGroup
	defer asking.Wait() // nothing goes on behind the answer
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got := make(chan opinion, len(asked))
	for _, q := range asked {
		asking.Go(func() {
			switch null, err := h.nullMX(ctx, q.domain); {
			case err != nil:
				got <- opinion{reason: reasonUnanswered}
			case null:
				got <- q.refusal
			default:
				got <- opinion{reason: reasonNone}
			}
		})
	}
	worst := opinion{reason: reasonNone}
	for range asked {
		a := <-got
		if a.refuses() {
			return a
		}
		if a.reason == reasonUnanswered {
			worst = a
		}
	}
	return worst
}

// mailDomain returns the domain of an address that mail is delivered to by the DNS,
// in A-labels; false where there is none: an address literal, a local name, the null
// sender, what no domain can be.
func mailDomain(address string) (string, bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return "", false
	}
	domain := address[at+1:]
	if strings.ContainsAny(domain, "[]:") { // RFC 5321 §4.1.3; a domain of mail has no port
		return "", false
	}
	k, err := policy.ParseKey(domain)
	return k.Name, err == nil && !k.Literal
}

// clientText names a client for people.
func clientText(c sender.Client) string {
	if c.Login != "" {
		return "login " + c.Login
	}
	return "client " + c.Addr.String()
}
