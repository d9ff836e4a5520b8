package dane

import (
	"fmt"
	"iter"
)

var classNames = [...]string{DX: "DX", D4: "D4", D5: "D5", D0: "D0", D3: "D3", D1: "D1", D2: "D2", D2u: "D2u"}

// String gives the name that the decision table uses: "D0", "D2u", "DX".
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("Class(%d)", uint8(c))
}

var statusNames = [...]string{
	Failed: "failed", Unreachable: "unreachable", None: "none", Unusable: "unusable", Usable: "usable",
}

// String gives one word: "failed", "unreachable", "none", "unusable", "usable".
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Status is that of the i-th host of MX.Hosts. A host that was not looked up,
// or not in time, is Failed (CMB-17).
func (e Evidence) Status(i int) Status {
	if i < 0 || i >= len(e.Hosts) || e.Hosts[i] == nil {
		return Failed
	}
	return e.Hosts[i].Status
}

// All iterates over the mail exchangers, most preferred first, with their status.
func (e Evidence) All() iter.Seq2[Exchanger, Status] {
	return func(yield func(Exchanger, Status) bool) {
		for i, x := range e.MX.Hosts {
			if !yield(x, e.Status(i)) {
				return
			}
		}
	}
}

// Class sums the evidence up: the first row that applies, in the order of the
// constants (docs/decision-table.md).
func (e Evidence) Class() Class {
	if e.Suspended {
		return DX
	}
	if e.MX.Failure() != "" {
		return D4
	}
	var failed, usable, unusable, none int
	for _, s := range e.All() {
		switch s {
		case Usable:
			usable++
		case Unusable:
			unusable++
		case None:
			none++
		case Unreachable: // DANE-021: neither has TLSA records nor lacks them
		default:
			failed++
		}
	}
	if !e.MX.Secure {
		// RFC 7672 §2.1.2 holds for hosts of a secure MX set: here a failed
		// host, or an unknown remainder, decides nothing.
		if usable+unusable > 0 {
			return D5
		}
		return D0
	}
	switch {
	case failed > 0 || e.MX.Truncated: // DANE-016
		return D3
	case usable > 0 && unusable+none == 0:
		return D1
	case usable > 0:
		return D2
	case unusable > 0:
		return D2u
	default:
		return D0
	}
}
