package main

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/milter"
	"github.com/postseal/postseal/policy/delegation"
	"github.com/postseal/postseal/policy/socketmap"
)

// registerSocketmap exports the counts of the socketmap server.
func registerSocketmap(r prometheus.Registerer, s *socketmap.Server) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postseal_socketmap_connections", Help: "Connections of Postfix that are open.",
	}, func() float64 { return float64(s.Conns()) }))
	for name, c := range map[string]struct {
		help string
		get  func(socketmap.Stats) uint64
	}{
		"connections_total":   {"Connections accepted.", func(s socketmap.Stats) uint64 { return s.Accepted }},
		"evicted_total":       {"Idle connections closed to make room.", func(s socketmap.Stats) uint64 { return s.Evicted }},
		"requests_total":      {"Requests answered.", func(s socketmap.Stats) uint64 { return s.Requests }},
		"malformed_total":     {"Connections closed because of wrong framing.", func(s socketmap.Stats) uint64 { return s.Malformed }},
		"timeouts_total":      {"Connections closed because the peer was too slow.", func(s socketmap.Stats) uint64 { return s.TimedOut }},
		"bad_replies_total":   {"Replies that were held back because Postfix would have misread them.", func(s socketmap.Stats) uint64 { return s.BadReplies }},
		"panics_total":        {"Questions whose answer failed.", func(s socketmap.Stats) uint64 { return s.Panics }},
		"accept_errors_total": {"Connections that could not be accepted at first.", func(s socketmap.Stats) uint64 { return s.AcceptErrors }},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postseal_socketmap_" + name, Help: c.help},
			func() float64 { return float64(c.get(s.Stats())) }))
	}
}

// print writes the state for people.
func (r readiness) print(w io.Writer) {
	word := "ready"
	if !r.Ready {
		word = "not ready"
	}
	fmt.Fprintln(w, word)
	for _, d := range r.Detail {
		fmt.Fprintln(w, "-", d)
	}
}

// registerDelegation exports the counts of the policy delegation server.
func registerDelegation(r prometheus.Registerer, s *delegation.Server) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postseal_delegation_connections", Help: "Connections of Postfix that are open.",
	}, func() float64 { return float64(s.Conns()) }))
	for name, c := range map[string]struct {
		help string
		get  func(delegation.Stats) uint64
	}{
		"connections_total":   {"Connections accepted.", func(s delegation.Stats) uint64 { return s.Accepted }},
		"evicted_total":       {"Idle connections closed to make room.", func(s delegation.Stats) uint64 { return s.Evicted }},
		"requests_total":      {"Requests answered, in whatever way.", func(s delegation.Stats) uint64 { return s.Requests }},
		"repeated_total":      {"Requests answered from memory.", func(s delegation.Stats) uint64 { return s.Repeated }},
		"malformed_total":     {"Requests that were none, answered with DUNNO or by closing.", func(s delegation.Stats) uint64 { return s.Malformed }},
		"timeouts_total":      {"Connections closed because the peer was too slow.", func(s delegation.Stats) uint64 { return s.TimedOut }},
		"late_total":          {"Requests answered with DUNNO because of the deadline.", func(s delegation.Stats) uint64 { return s.Late }},
		"overloaded_total":    {"Requests answered with DUNNO because too many were late.", func(s delegation.Stats) uint64 { return s.Overloaded }},
		"bad_actions_total":   {"Answers that Postfix would misread, DUNNO was sent.", func(s delegation.Stats) uint64 { return s.BadActions }},
		"panics_total":        {"Requests whose answer failed, DUNNO was sent.", func(s delegation.Stats) uint64 { return s.Panics }},
		"accept_errors_total": {"Connections that could not be accepted at first.", func(s delegation.Stats) uint64 { return s.AcceptErrors }},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postseal_delegation_" + name, Help: c.help},
			func() float64 { return float64(c.get(s.Stats())) }))
	}
}

// registerMilter exports the counts of the milter server.
func registerMilter(r prometheus.Registerer, s *milter.Server) {
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postseal_milter_connections", Help: "Connections of Postfix that are open."},
			func() float64 { return float64(s.Stats().Conns) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postseal_milter_connections_total", Help: "Connections accepted."},
			func() float64 { return float64(s.Stats().Accepted) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postseal_milter_panics_total", Help: "Messages that went on unjudged because judging them failed."},
			func() float64 { return float64(s.Stats().Panics) }),
	)
}
