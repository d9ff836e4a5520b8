package resolver

import "time"

// Everything from outside has a limit; the peer's own number stands beside.
const (
	maxServers    = 8        // in the configuration
	maxNameserver = 3        // in resolv.conf: MAXNS of <resolv.h>
	maxResolvConf = 64 << 10 // octets of resolv.conf that are read
	maxNameWire   = 255      // octets of a name on the wire, RFC 1035 §2.3.4
	maxLabel      = 63       // octets of a label, RFC 1035 §2.3.4
	maxChain      = 10       // CNAME links; unbound follows 11, BIND 16
	maxInFlight   = 512      // questions at once; more wait
	udpPayload    = 1232     // announced by EDNS; DNS flag day 2020
	udpBuffer     = 4096     // read, for servers that do not keep to the above
	headerSize    = 12       // RFC 1035 §4.1.1
	optSize       = 11       // our OPT record, without options
	maxQuery      = headerSize + maxNameWire + 4 + optSize
	minTimeout    = 50 * time.Millisecond
	maxTimeout    = time.Minute
	rounds        = 2 // per tier; every earlier round gets half the time of the next

	defaultTimeout = 2 * time.Second  // one attempt; resolv.conf(5) has 5 s
	defaultTotal   = 10 * time.Second // one look-up whose context has no deadline

	failedFor = 5 * time.Second // a server that failed goes behind its equals
	downAfter = 5               // time-outs in a row after which it goes behind all
	idleFor   = 30 * time.Second
)

// schedule is when things are done without being asked.
type schedule struct {
	watch     time.Duration // resolv.conf is read again
	proven    time.Duration // probe of a server in this state
	unknown   time.Duration
	suspended time.Duration
}

func usualSchedule() schedule {
	return schedule{
		watch:     2 * time.Second,
		proven:    3 * time.Minute,
		unknown:   5 * time.Second,
		suspended: 30 * time.Second,
	}
}
