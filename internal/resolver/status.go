package resolver

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// standing says whether DANE has anybody to believe.
type standing struct {
	suspended bool
	reason    string
}

// Status is what is known of the servers, for people.
type Status struct {
	Servers []ServerStatus `json:"servers"`
	// Source is the file that names the servers; empty: the configuration does.
	Source    string `json:"source,omitempty"`
	TrustAD   string `json:"trust_ad"`
	Probe     string `json:"probe"`
	Suspended bool   `json:"suspended"`
	Reason    string `json:"reason,omitempty"`
}

// ServerStatus is what is known of one server.
type ServerStatus struct {
	Address string `json:"address"`
	Trusted bool   `json:"trusted"`
	State   State  `json:"state"`
	// LastProbe is when the probe was last asked to the end; zero: never.
	LastProbe time.Time `json:"last_probe,omitzero"`
	// LastError is the last failure, of a probe or another question; empty when
	// a probe was answered with AD since.
	LastError string `json:"last_error,omitempty"`
}

// Status describes the servers in the configured order.
func (r *Resolver) Status() Status {
	ro := r.roster.Load()
	st := Status{Source: ro.source, TrustAD: ro.trust.String(), Probe: ro.probe.String()}
	st.Suspended, st.Reason = r.Suspended()
	for _, s := range ro.servers {
		s.mu.Lock()
		st.Servers = append(st.Servers, ServerStatus{s.text, s.trusted, s.is(), s.lastProbe, s.lastErr})
		s.mu.Unlock()
	}
	return st
}

// Suspended says that no server is trusted, or that all trusted ones are
// suspended (class DX: DANE has nobody to believe), and for people why, and what
// to do. The text changes only with the state. Servers that keep silent do not
// suspend anything: that is an error of each question.
func (r *Resolver) Suspended() (bool, string) {
	s := r.standing.Load()
	return s.suspended, s.reason
}

// moved tells of a server whose state changed.
func (r *Resolver) moved(s *server) {
	flipped := r.announce()
	switch state := s.is(); {
	case state == Suspended && !flipped:
		r.log.Warn("name server does not validate, its answers do not count for DANE",
			"server", s.text, "probe", s.probe.text, "causes", causes(s))
	case state == Proven:
		r.log.Info("name server validates", "server", s.text)
	}
}

// announce works out the standing, and tells when it has changed. It says
// whether it has.
func (r *Resolver) announce() (flipped bool) {
	r.told.Lock()
	defer r.told.Unlock()
	ro := r.roster.Load()
	next := ro.judge()
	old := r.standing.Swap(&next)
	r.metrics.show(ro, next)
	switch {
	case next.suspended && (old == nil || !old.suspended || old.reason != next.reason):
		r.log.Error("DANE is suspended, MTA-STS goes on: "+next.reason, "trust_ad", ro.trust.String())
		return true
	case !next.suspended && old != nil && old.suspended:
		r.log.Info("DANE is no longer suspended")
		return true
	}
	return false
}

// judge says whether nobody may be believed.
func (ro *roster) judge() standing {
	var suspended []*server
	for _, s := range ro.servers {
		switch s.is() {
		case Unknown, Proven:
			return standing{}
		case Suspended:
			suspended = append(suspended, s)
		}
	}
	if len(suspended) == 0 {
		return standing{true, ro.nobodyTrusted()}
	}
	var b strings.Builder
	for i, s := range suspended {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s answered the probe %s twice without AD, so it does not validate: %s", s.text, s.probe.text, causes(s))
	}
	b.WriteString("; check with: dig +dnssec . ns @" + suspended[0].addr.Addr().String() + " (flags must show ad)")
	return standing{true, b.String()}
}

func (ro *roster) nobodyTrusted() string {
	if ro.trust.text == "never" {
		return `trust_ad = "never": no name server is believed to validate`
	}
	var names []string
	for _, s := range ro.servers {
		names = append(names, s.text)
	}
	text := fmt.Sprintf("no name server counts as validating: %s not in trust_ad = %s; %s; or, where the path to the server is safe, "+
		"put its network into trust_ad", strings.Join(names, ", "), ro.trust, cure)
	if slices.ContainsFunc(ro.servers, func(s *server) bool { return s.addr.Addr() == docker }) {
		text += "; " + causeDocker
	}
	return text
}

// cure is what makes most hosts able to do DANE.
const cure = "run a validating resolver on this host (on Debian: apt install unbound, and nameserver 127.0.0.1 first in /etc/resolv.conf)"

// The usual causes of a missing AD bit (DANE-004).
const (
	causeDocker   = "127.0.0.11 is Docker's embedded DNS, which does not validate: give the container the address of a validating resolver"
	causeResolved = "systemd-resolved validates only with DNSSEC=yes in resolved.conf: set it, or run unbound"
	causeOther    = "its validation is switched off (unbound without trust anchor or validator module, dnsmasq without proxy-dnssec, " +
		"a forwarder such as blocky or Docker's that drops AD). Postfix needs the AD bit as well: " +
		"'options trust-ad' in resolv.conf with glibc 2.31 or newer; musl (Alpine) has no way to pass it on"
)

func causes(s *server) string {
	switch s.addr.Addr().String() {
	case "127.0.0.11":
		return causeDocker
	case "127.0.0.53", "127.0.0.54":
		return causeResolved
	}
	return causeOther
}
