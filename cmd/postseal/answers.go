package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/policy"
)

// decision is what becomes of a recipient.
type decision uint8

const (
	decidedPass decision = iota
	decidedDefer
	decidedRefuse
	wouldDefer // but for mode = "monitor", of the configuration or the rule
	wouldRefuse

	decisions // how many there are
)

func decisionOf(does policy.RecipientAction, held bool) decision {
	switch {
	case does == policy.RecipientPass:
		return decidedPass
	case does == policy.RecipientDefer && held:
		return wouldDefer
	case does == policy.RecipientDefer:
		return decidedDefer
	case held:
		return wouldRefuse
	}
	return decidedRefuse
}

// label is the value of the label "action".
func (o decision) label() string {
	return [...]string{"dunno", "defer", "reject", "would-defer", "would-reject"}[o]
}

// message is what the log says.
func (o decision) message() string {
	return "recipient " + [...]string{"passed", "deferred", "refused", "would be deferred", "would be refused"}[o]
}

// answers counts what was decided about recipients. Its counters are there from the
// start, so that to count costs no look-up and a rate has a beginning.
type answers [decisions][reasons]prometheus.Counter

func newAnswers(r prometheus.Registerer) *answers {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postseal_delegation_answers_total", Help: "Decisions about recipients, by action and reason.",
	}, []string{"action", "reason"})
	if r != nil {
		r.MustRegister(vec)
	}
	var all answers
	for o := range decisions {
		for why := range reasons {
			if (o == decidedPass) != (why < reasonRule) || (o == decidedDefer || o == wouldDefer) && why != reasonRule {
				continue // there is no such decision
			}
			all[o][why] = vec.WithLabelValues(o.label(), why.String())
		}
	}
	return &all
}

func (a *answers) count(o *opinion, held bool) { a[decisionOf(o.does, held)][o.reason].Inc() }
