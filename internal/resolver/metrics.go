package resolver

import (
	"context"
	"errors"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what goes over the wire. All label values are fixed, but for
// the servers' addresses, which the configuration names.
type metrics struct {
	byType    [len(typeNames)]prometheus.Counter
	probed    prometheus.Counter
	byCause   [len(causeNames)]prometheus.Counter
	validates prometheus.Gauge
	state     *prometheus.GaugeVec
}

var typeNames = [...]string{"A", "AAAA", "CNAME", "MX", "TLSA", "TXT", "PTR"}

var causeNames = [...]string{"timeout", "unreachable", "servfail", "refused", "malformed", "truncated", "chain", "cancelled"}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	questions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postseal_dns_questions_total",
		Help: "Questions put to name servers, every attempt counted, by type of record.",
	}, []string{"type"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postseal_dns_failures_total",
		Help: "Questions that a name server did not answer, by cause.",
	}, []string{"cause"})
	m := &metrics{
		probed: questions.WithLabelValues("probe"),
		validates: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postseal_resolver_validates",
			Help: "1 while there is a trusted name server not known to be without validation, 0 while DANE is suspended.",
		}),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "postseal_resolver_server_state",
			Help: "Per name server: 0 its AD bit does not count, 1 it has not been seen yet, 2 proven to validate, 3 suspended.",
		}, []string{"server"}),
	}
	for i, name := range typeNames {
		m.byType[i] = questions.WithLabelValues(name)
	}
	for i, name := range causeNames {
		m.byCause[i] = failures.WithLabelValues(name)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{questions, failures, m.validates, m.state} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) asked(qtype uint16) {
	switch qtype {
	case dns.TypeA:
		m.byType[0].Inc()
	case dns.TypeAAAA:
		m.byType[1].Inc()
	case dns.TypeCNAME:
		m.byType[2].Inc()
	case dns.TypeMX:
		m.byType[3].Inc()
	case dns.TypeTLSA:
		m.byType[4].Inc()
	case dns.TypeTXT:
		m.byType[5].Inc()
	case dns.TypePTR:
		m.byType[6].Inc()
	}
}

// failed counts by the first cause that fits: a truncated answer may also have
// run out of time.
func (m *metrics) failed(err error) {
	causes := [len(causeNames)]error{
		ErrTimeout, ErrUnreachable, ErrServFail, ErrRefused, ErrMalformed, ErrTruncated, ErrChain, context.Canceled,
	}
	if errors.Is(err, ErrTruncated) {
		m.byCause[5].Inc()
		return
	}
	for i, cause := range causes {
		if errors.Is(err, cause) {
			m.byCause[i].Inc()
			return
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		m.byCause[0].Inc()
	}
}

// show sets the gauges.
func (m *metrics) show(ro *roster, s standing) {
	m.validates.Set(1)
	if s.suspended {
		m.validates.Set(0)
	}
	for _, s := range ro.servers {
		m.state.WithLabelValues(s.text).Set(float64(s.is()))
	}
}

// forget drops the gauge of a server that is gone.
func (m *metrics) forget(s *server) { m.state.DeleteLabelValues(s.text) }
