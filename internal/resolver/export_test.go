package resolver

import "time"

// Hurry makes Run do everything at short intervals; to be called before Run.
func (r *Resolver) Hurry(every time.Duration) {
	r.schedule = schedule{watch: every, proven: every, unknown: every, suspended: every}
}

// MaxInFlight is the bound of questions under way.
const MaxInFlight = maxInFlight
