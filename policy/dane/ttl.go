package dane

import "time"

// How long evidence is kept. RFC 7671 §13 wants no TLSA record used beyond its
// TTL; the lower clamp deviates from that for TTLs below 30 s, for load. The
// class only picks a level, Postfix looks the records up itself.
const (
	MinTTL = 30 * time.Second
	MaxTTL = time.Hour
	// FailureTTL is how long a failed look-up is believed.
	FailureTTL = 30 * time.Second
	// unprovenTTL bounds an answer from a server that may prove itself any moment.
	unprovenTTL = time.Minute
)

// Clamp brings a TTL into [MinTTL, MaxTTL].
func Clamp(ttl time.Duration) time.Duration { return min(max(ttl, MinTTL), MaxTTL) }
