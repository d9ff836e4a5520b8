package policy

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// AlarmKind names what an operator should look at before mail suffers. The texts
// are a label of postseal_alarms and part of the log.
type AlarmKind string

// The alarms.
const (
	AlarmTLSLost     AlarmKind = "tls-lost"            // a destination under a rule offered TLS and no longer does
	AlarmCertificate AlarmKind = "certificate-expires" // under a verify or secure rule, within 14 days
	AlarmRule        AlarmKind = "rule-expires"        // within 7 days
	AlarmUnmatched   AlarmKind = "mx-rule-unmatched"   // an mx: pattern that matches nothing any more
	AlarmPath        AlarmKind = "path-suspect"        // nothing proves that our own path lets STARTTLS through
)

// alarms are those that stand. Each is told once when it begins and once when it
// ends.
type alarms struct {
	log   *slog.Logger
	gauge *prometheus.GaugeVec // by kind: how many stand

	mu       sync.Mutex
	standing map[alarm]bool
}

// alarm is what makes two of them the same.
type alarm struct {
	kind    AlarmKind
	subject string
}

// raise begins an alarm about a subject, with what to say in the log.
func (a *alarms) raise(kind AlarmKind, subject, text string, attrs ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := alarm{kind, subject}
	if a.standing[key] {
		return
	}
	if a.standing == nil {
		a.standing = map[alarm]bool{}
	}
	a.standing[key] = true
	a.gauge.WithLabelValues(string(kind)).Inc()
	a.log.Warn(text, append([]any{"alarm", string(kind), "subject", subject}, attrs...)...)
}

// subjects are those of the alarms of a kind that stand.
func (a *alarms) subjects(kind AlarmKind) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []string
	for key := range a.standing {
		if key.kind == kind {
			list = append(list, key.subject)
		}
	}
	return list
}

// clear ends an alarm, if it stands.
func (a *alarms) clear(kind AlarmKind, subject string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := alarm{kind, subject}
	if !a.standing[key] {
		return
	}
	delete(a.standing, key)
	a.gauge.WithLabelValues(string(kind)).Dec()
	a.log.Info("alarm is over", "alarm", string(kind), "subject", subject)
}
