package milter

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	wire "github.com/emersion/go-milter"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter/align"
)

// Inspector judges outgoing messages as the receiving world will. One serves all
// connections; check-message uses it for a file.
type Inspector struct {
	lookups      *lookups
	destinations Destinations
	seen         Seen
	log          *slog.Logger
	metrics      *metrics
	state        atomic.Pointer[state]
}

// Config is what an Inspector is made from.
type Config struct {
	DNS DNS
	// Destinations is told of recipients and asked about them; nil: nobody is.
	Destinations Destinations
	// Seen remembers whose mail is signed; nil: unsigned mail is acted on at once.
	Seen       Seen
	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: metrics are kept nowhere
	Settings   Settings
}

// Settings are what a reload may change.
type Settings struct {
	Senders *sender.Policy
	// Egress are the addresses that mail leaves from.
	Egress []netip.Addr
	// Action is what is done about each finding of class fail. Actions, by name of
	// the finding, go before it and act whatever the class.
	Action  Action
	Actions map[string]Action
	// Monitor: whatever the actions say, every message goes on.
	Monitor bool
	// AddHeader adds an Authentication-Results field, for use inside only.
	AddHeader bool
	Breaker   Breaker
}

// Breaker says when findings are returned to monitoring: when more than Share
// (0 to 1) of the last Window messages of a From domain would be held or refused
// because of one. A Window of zero switches it off.
type Breaker struct {
	Window int
	Share  float64
}

// Destinations is what the milter wants of the TLS policy for recipients.
type Destinations interface {
	// Warm sees to it that the policy for a domain is known soon. It does not wait.
	Warm(domain string)
	// Standing says what mail to a domain is held to: a TLS level ("dane-only",
	// "secure"), "floor" where nothing of its own applies, "unknown" until known.
	Standing(domain string) string
}

// Seen remembers From domains of which a passing aligned signature was seen. Only
// their unsigned mail is acted on: a wrong order of milters, in which no signature
// is ever seen, must not refuse anything.
type Seen interface {
	Signed(domain string) bool
	// NoteSigned keeps the domain, on disk within a second. It does not wait.
	NoteSigned(domain string)
}

// state is what the settings in force are made into.
type state struct {
	Settings
	breaker breaker
}

// New makes an Inspector. Close ends it.
func New(c Config) (*Inspector, error) {
	if c.DNS == nil {
		return nil, errors.New("milter: no DNS to ask")
	}
	w := newWork()
	i := &Inspector{
		lookups:      &lookups{dns: c.DNS, work: w},
		destinations: c.Destinations, seen: c.Seen, log: c.Logger,
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	i.Configure(c.Settings)
	i.metrics = newMetrics(c.Registerer, i)
	return i, nil
}

// Configure puts other settings in force, for the messages that begin from then
// on. It closes the breaker.
func (i *Inspector) Configure(s Settings) {
	if s.Senders == nil {
		s.Senders = &sender.Policy{}
	}
	if old := i.state.Load(); old != nil {
		if n := old.breaker.openCircuits(); n > 0 {
			i.log.Info("milter breaker reset", "pairs", n)
		}
	}
	i.state.Store(&state{Settings: s, breaker: breaker{window: s.Breaker.Window, share: s.Breaker.Share}})
}

// Close ends look-ups under way and waits for them.
func (i *Inspector) Close() { i.lookups.work.close() }

// NullMX says whether a domain, in A-labels, declares that it takes no mail
// (RFC 7505). It asks the memory that messages are judged with: an answer is kept for
// its TTL and at most an hour, an absence for a minute, a failure for 10 s, which is
// until when it may be believed. An error means that nobody answered within 6 s; or
// that ctx ended first, and then there is no until.
func (i *Inspector) NullMX(ctx context.Context, domain string) (null bool, until time.Time, err error) {
	mx, err := i.lookups.mx.wait(ctx, domain, question(i.lookups.work, domain, i.lookups.dns.MX))
	if err != nil {
		return false, time.Time{}, err
	}
	return mx.err == nil && isNullMX(mx.value), mx.until, mx.err
}

// actions is what is negotiated: nothing that is not used (MLT-02).
func (i *Inspector) actions() wire.OptAction {
	a := wire.OptQuarantine | wire.OptSetSymList
	if i.state.Load().AddHeader {
		a |= wire.OptAddHeader
	}
	return a
}

// configured is what the operator wants done about a finding.
func (s *state) configured(f align.Finding) Action {
	if f.Name == align.DNSTrouble {
		return Monitor // whatever is configured: trouble of ours refuses no mail
	}
	if a, named := s.Actions[f.Name]; named {
		return a
	}
	if f.Class == align.Fail {
		return s.Action
	}
	return Monitor
}

// Actionable are the names of the findings that an action can be configured for.
func Actionable() []string {
	return slices.DeleteFunc(slices.Clone(findingNames), func(name string) bool { return name == align.DNSTrouble })
}

// findingNames are those of package align, in the order of their bits.
var findingNames = align.Names()

// neverTrips are the findings that the breaker leaves alone.
var neverTrips = findingBit(align.FromForeign) | findingBit(align.SenderNotAllowed) | findingBit(align.Unsigned)

// findingBit is the bit of a finding in the breaker's sets; there are fewer than 64.
func findingBit(name string) uint64 {
	for i, n := range findingNames {
		if n == name {
			return 1 << i
		}
	}
	return 0
}
