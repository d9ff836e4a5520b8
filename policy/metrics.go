package policy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics have fixed label sets: no domain is ever a label.
type metrics struct {
	answers          *prometheus.CounterVec // level, source
	would            *prometheus.CounterVec // level
	senders          [senderAnswers]prometheus.Counter
	latency          prometheus.Histogram
	failures         *prometheus.CounterVec // look-up
	fetches          *prometheus.CounterVec // result
	mismatches       prometheus.Counter
	testingWouldFail prometheus.Counter
	unknownMap       prometheus.Counter
	outboundBlocked  prometheus.Gauge
	alarms           *prometheus.GaugeVec // alarm
}

func newMetrics(r prometheus.Registerer, e *Engine) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postseal_answers_total",
			Help: "Answers given to Postfix, by level and by what they rest on."}, []string{"level", "source"}),
		would: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postseal_withheld_answers_total",
			Help: "Answers that mode monitor held back, by the level that would have been answered."}, []string{"level"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "postseal_answer_seconds",
			Help: "Time from question to answer.", Buckets: []float64{10e-6, 100e-6, 1e-3, 10e-3, 0.1, 0.5, 1, 2.5, 5, 10}}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postseal_lookup_failures_total",
			Help: "Look-ups that nobody answered."}, []string{"lookup"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postseal_policy_fetches_total",
			Help: "Fetches of MTA-STS policies by result, in the words of RFC 8460."}, []string{"result"}),
		mismatches: prometheus.NewCounter(prometheus.CounterOpts{Name: "postseal_sts_mx_mismatches_total",
			Help: "Decisions about destinations whose enforced policy names none of their mail hosts."}),
		testingWouldFail: prometheus.NewCounter(prometheus.CounterOpts{Name: "postseal_sts_testing_would_fail_total",
			Help: "Decisions about destinations whose policy in mode testing names none of their mail hosts, where these are known."}),
		unknownMap: prometheus.NewCounter(prometheus.CounterOpts{Name: "postseal_unknown_map_total",
			Help: "Questions for a map name that does not exist."}),
		outboundBlocked: prometheus.NewGauge(prometheus.GaugeOpts{Name: "postseal_policy_fetches_blocked",
			Help: "1 when all policy fetches have failed for want of a connection."}),
		alarms: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postseal_alarms",
			Help: "Alarms that stand, by kind; the log says about what."}, []string{"alarm"}),
	}
	senders := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postseal_sender_answers_total",
		Help: "Answers about envelope senders: to the transport that enforces TLS, none of a rule, or withheld by mode monitor."}, []string{"answer"})
	for a := range m.senders {
		m.senders[a] = senders.WithLabelValues(senderAnswerNames[a])
	}
	for _, kind := range []AlarmKind{AlarmTLSLost, AlarmCertificate, AlarmRule, AlarmUnmatched, AlarmPath} {
		m.alarms.WithLabelValues(string(kind)) // 0 is shown too
	}
	if r == nil {
		return m
	}
	r.MustRegister(m.answers, m.would, senders, m.latency, m.failures, m.fetches, m.mismatches, m.testingWouldFail, m.unknownMap, m.outboundBlocked, m.alarms)
	registerHeld(r, e)
	return m
}

// registerHeld registers what is known of the engine's memory when it is asked.
func registerHeld(r prometheus.Registerer, e *Engine) {
	count := func(name, help string, labels prometheus.Labels, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
	}
	const entries, help = "postseal_cache_entries", "Entries in memory by kind."
	count(entries, help, prometheus.Labels{"kind": "name"}, func() float64 { return float64(e.domains.Len()) })
	count(entries, help, prometheus.Labels{"kind": "host"}, func() float64 { return float64(e.hosts.Len()) })
	count(entries, help, prometheus.Labels{"kind": "policy"}, func() float64 { return float64(e.held.len()) })
	count("postseal_policy_nearest_expiry_seconds", "Seconds until the first enforced policy expires; 0 without one.", nil, func() float64 {
		now := time.Now().Round(0)
		if at, _ := e.held.times(now); !at.IsZero() {
			return at.Sub(now).Seconds()
		}
		return 0
	})
	count("postseal_policy_oldest_age_seconds", "Seconds since the least recent successful fetch of an enforced policy that is held; 0 without one.", nil, func() float64 {
		now := time.Now().Round(0)
		if _, at := e.held.times(now); !at.IsZero() {
			return now.Sub(at).Seconds()
		}
		return 0
	})
	count("postseal_store_failing", "1 when the store cannot be written.", nil, func() float64 {
		if e.writer.failing.Load() {
			return 1
		}
		return 0
	})
}

func (m *metrics) answered(d Decision) prometheus.Counter {
	return m.answers.WithLabelValues(d.Level(), string(d.Source))
}

func (m *metrics) wouldAnswer(d Decision) prometheus.Counter {
	return m.would.WithLabelValues(d.Level())
}
