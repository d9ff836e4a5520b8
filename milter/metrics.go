package milter

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics have fixed label sets: verdicts, names of findings, actions, results.
type metrics struct {
	messages *prometheus.CounterVec
	findings *prometheus.CounterVec
	actions  *prometheus.CounterVec
	keys     *prometheus.CounterVec
	time     prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, i *Inspector) *metrics {
	m := &metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postseal_milter_messages_total",
			Help: "Messages by verdict: pass, weak, fail; unseen (not outgoing), local (all recipients on this host).",
		}, []string{"verdict"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postseal_milter_findings_total",
			Help: "Findings by name and by what was done about the message because of them.",
		}, []string{"name", "action"}),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postseal_milter_actions_total",
			Help: "What was done with messages: monitor (they went on), hold, tempfail, reject.",
		}, []string{"action"}),
		keys: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postseal_milter_key_lookups_total",
			Help: "Look-ups of DKIM keys by result: found, none, error; answers from memory included.",
		}, []string{"result"}),
		time: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "postseal_milter_verify_seconds",
			Help:    "Time spent on one message, waiting for the DNS included.",
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10},
		}),
	}
	for _, v := range []string{"pass", "weak", "fail", "unseen", "local"} {
		m.messages.WithLabelValues(v)
	}
	for _, a := range actionNames {
		m.actions.WithLabelValues(a)
	}
	for _, k := range []string{"found", "none", "error"} {
		m.keys.WithLabelValues(k)
	}
	if r != nil {
		r.MustRegister(m.messages, m.findings, m.actions, m.keys, m.time, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "postseal_milter_breaker_open",
			Help: "Pairs of finding and From domain that the breaker has returned to monitoring.",
		}, func() float64 { return float64(i.state.Load().breaker.openCircuits()) }))
	}
	return m
}
