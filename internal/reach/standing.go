package reach

import (
	"net/netip"
	"slices"
	"time"
)

// Standing is how the hosts of a destination stand together, from what is kept:
// asking costs no network. The times are those at which probes began, zero where
// there is none.
type Standing struct {
	// Verdict is Positive when one host is, Negative when every host is, and
	// Unknown otherwise: also without hosts, when a host has no addresses, more
	// than MaxAddresses, or one that was not probed yet.
	Verdict Verdict
	// Hosts are the results, in the order of the targets; addresses that were not
	// probed are left out.
	Hosts []Result

	// LastSecured is when TLS as demanded was last seen at one of the addresses.
	// Beside a Negative it says that the destination has lost what it had.
	LastSecured time.Time

	// The following two are set when Verdict is Negative, and count from the address
	// that makes them latest or oldest, so that every address agrees.

	// LastNegative is when the oldest of the last results was obtained: all of the
	// evidence is at least that new.
	LastNegative time.Time
	// FirstNegative is since when all have been negative in an unbroken run. A
	// good result ends a run, and so do 30 minutes without a negative one.
	FirstNegative time.Time

	// OtherPositive is when TLS as demanded was last seen at a host that is none
	// of these, by name or address. Without it the fault may be on our own path.
	OtherPositive time.Time
}

// Standing sums up what is kept of the targets, one for each MX host.
func (m *Memory) Standing(targets ...Target) Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s Standing
	positive, negative := 0, 0
	for i := range targets {
		r := m.recall(&targets[i], &s)
		s.Hosts = append(s.Hosts, r)
		switch r.Verdict {
		case Positive:
			positive++
		case Negative:
			negative++
		}
	}
	switch {
	case positive > 0:
		s.Verdict = Positive
	case negative == len(targets) && negative > 0:
		s.Verdict = Negative
	}
	if s.Verdict != Negative {
		s.LastNegative, s.FirstNegative = time.Time{}, time.Time{}
	}
	s.OtherPositive = m.other(targets)
	return s
}

// recall folds what is kept of one host, and moves the times of s; m.mu is held.
func (m *Memory) recall(t *Target, s *Standing) Result {
	d, err := demandOf(t)
	if err != nil {
		return Result{Host: t.Host, Port: t.port(), Level: t.Level, Text: err.Error()}
	}
	var attempts []Attempt
	for _, ip := range t.Addresses[:min(len(t.Addresses), MaxAddresses)] {
		e := m.all[memoryKey(t, ip, d)]
		if e == nil || e.kept == 0 {
			continue
		}
		m.used.MoveToFront(e.place)
		attempts = append(attempts, e.last)
		if e.secured.After(s.LastSecured) {
			s.LastSecured = e.secured
		}
		if e.last.Verdict != Negative {
			continue
		}
		if s.LastNegative.IsZero() || e.negative.Before(s.LastNegative) {
			s.LastNegative = e.negative
		}
		if e.since.After(s.FirstNegative) {
			s.FirstNegative = e.since
		}
	}
	r := fold(t, attempts, len(attempts) == len(t.Addresses))
	if len(attempts) == 0 && len(t.Addresses) > 0 {
		r.Text = printable(t.Host) + " was not probed yet"
	}
	return r
}

// other returns when a host that is none of the targets was last good; m.mu is
// held.
func (m *Memory) other(targets []Target) time.Time {
	var latest time.Time
	for _, p := range m.proofs {
		if !p.when.After(latest) || slices.ContainsFunc(targets, func(t Target) bool {
			return t.name("hostname") == p.host || slices.ContainsFunc(t.Addresses, func(ip netip.Addr) bool { return ip.Unmap() == p.address.Addr() })
		}) {
			continue
		}
		latest = p.when
	}
	return latest
}
