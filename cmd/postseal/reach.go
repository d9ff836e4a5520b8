package main

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/reach"
	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/dane"
)

// The pace of probes: one costs a few milliseconds of a core, nearly all of it for
// the handshake, and together they are to stay below a twentieth of one.
const (
	probesPerSecond = 15
	probeBurst      = 15
)

// mailReach probes mail hosts as the Postfix beside us would reach them. It is a
// policy.Reach.
type mailReach struct {
	memory *reach.Memory
	client atomic.Pointer[client]
	turns  *reach.Turns
	pace   *rate.Limiter
	log    *slog.Logger
	// dial connects in place of the system, where there is no network; else nil.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// client is how smtp(8) appears to mail hosts.
type client struct {
	prober     *reach.Prober
	ipv4, ipv6 bool // inet_protocols
	// doubtRoots says why certificates cannot be judged as Postfix does.
	doubtRoots string
	// versions are smtp_tls_mandatory_protocols.
	versions string
	// match and serverName count where the policy has neither match= nor servername=:
	// smtp_tls_…_cert_match by level, and smtp_tls_servername.
	match      map[tlspolicy.Level][]string
	serverName string
}

func newMailReach(c ReachConfig, logger *slog.Logger) *mailReach {
	r := &mailReach{turns: reach.NewTurns(c.Connections), pace: rate.NewLimiter(probesPerSecond, probeBurst), log: logger}
	r.memory = &reach.Memory{Prober: r.paced(), Size: 4 * policy.MaxWatched} // several addresses each
	r.configure(c, nil)
	return r
}

// paced is what asks mail hosts on behalf of the memory, one address at a time.
func (r *mailReach) paced() probeFunc {
	return func(ctx context.Context, t reach.Target) reach.Result {
		_ = r.pace.Wait(ctx) // its error is that of ctx, which the prober reports
		return r.client.Load().prober.Probe(ctx, t)
	}
}

type probeFunc func(context.Context, reach.Target) reach.Result

func (f probeFunc) Probe(ctx context.Context, t reach.Target) reach.Result { return f(ctx, t) }

// Probe is that of policy.Reach. The hosts are asked side by side.
func (r *mailReach) Probe(ctx context.Context, hosts []policy.Demand, anew bool) policy.Standing {
	goals := r.goals(hosts)
	var all sync.WaitGroup
	for i := range goals {
		all.Go(func() {
			if anew {
				r.memory.Renew(ctx, goals[i].Target)
			} else {
				r.memory.Probe(ctx, goals[i].Target)
			}
		})
	}
	all.Wait()
	return r.standing(goals)
}

// Standing is that of policy.Reach.
func (r *mailReach) Standing(hosts []policy.Demand) policy.Standing {
	return r.standing(r.goals(hosts))
}

// goal is what a host is probed for.
type goal struct {
	reach.Target
	level string
	// doubt says why more cannot be judged than whether there is TLS: then the host may
	// be negative, and never positive.
	doubt string
}

func (r *mailReach) goals(hosts []policy.Demand) []goal {
	c := r.client.Load()
	goals := make([]goal, len(hosts))
	for i := range hosts {
		goals[i] = c.goal(&hosts[i])
	}
	return goals
}

func (c *client) goal(d *policy.Demand) goal {
	g := goal{level: d.Line.Level.String(), Target: reach.Target{
		Host: d.Host, Port: d.Port, Nexthop: d.Nexthop, Level: reach.Level(d.Line.Level.String()),
	}}
	for _, a := range d.Addresses {
		// Postfix does not try the addresses of a family that it is told to leave out.
		if a.Unmap().Is4() && c.ipv4 || a.Unmap().Is6() && c.ipv6 {
			g.Addresses = append(g.Addresses, a)
		}
	}
	versions := c.versions
	for _, a := range d.Line.Attrs {
		switch a.Name {
		case "match":
			g.Match = append(g.Match, matches(d.Line.Level, a.Value)...)
		case "servername":
			g.ServerName = a.Value
		case "protocols":
			versions = a.Value
		case "tafile":
			g.doubt = "certificates are trusted by tafile=, which is not read here"
		}
	}
	if len(g.Match) == 0 {
		g.Match = c.match[d.Line.Level]
	}
	if g.ServerName == "" {
		g.ServerName = c.serverName
	}
	some := true
	if g.MinVersion, g.MaxVersion, some = tlsVersions(versions); !some {
		g.doubt = "protocols= leaves no version of TLS that could be tried"
	}
	switch d.Line.Level {
	case tlspolicy.None:
		g.Level = reach.May
	case tlspolicy.Verify, tlspolicy.Secure:
		if g.doubt == "" {
			g.doubt = c.doubtRoots
		}
	case tlspolicy.Dane, tlspolicy.DaneOnly:
		g.dane(d)
	}
	if g.doubt != "" {
		g.Level, g.Match, g.MinVersion, g.MaxVersion = reach.Encrypt, nil, 0, 0
	}
	return g
}

// dane sets what DANE's levels hold a certificate against.
func (g *goal) dane(d *policy.Demand) {
	if d.DANE == nil {
		g.doubt = "its TLSA records are not known"
		return
	}
	if !d.SecureMX && len(g.Match) == 0 {
		g.Match = []string{"hostname"} // RFC 7672 §2.2.1: an insecure MX record vouches for no next hop
	}
	if d.DANE.Status != dane.Usable && d.DANE.Status != dane.Unusable {
		return
	}
	g.TLSABase = d.DANE.Base
	for _, r := range d.DANE.Records {
		g.TLSA = append(g.TLSA, reach.TLSA{Usage: r.Usage, Selector: r.Selector, MatchingType: r.MatchingType, Data: r.Data})
	}
}

// standing sums up what is known of the goals.
func (r *mailReach) standing(goals []goal) policy.Standing {
	targets := make([]reach.Target, len(goals))
	for i := range goals {
		targets[i] = goals[i].Target
	}
	found := r.memory.Standing(targets...)
	s := policy.Standing{
		Verdict: verdictOf(found.Verdict), LastSecured: found.LastSecured, FirstNegative: found.FirstNegative,
		LastNegative: found.LastNegative, OtherPositive: found.OtherPositive,
	}
	positive := false
	for i := range goals {
		h := goals[i].reached(&found.Hosts[i])
		positive = positive || h.Verdict == policy.ReachPositive
		s.Hosts = append(s.Hosts, h)
	}
	if s.Verdict == policy.ReachPositive && !positive {
		s.Verdict = policy.ReachUnknown
	}
	return s
}

func verdictOf(v reach.Verdict) policy.ReachVerdict {
	switch v {
	case reach.Positive:
		return policy.ReachPositive
	case reach.Negative:
		return policy.ReachNegative
	}
	return policy.ReachUnknown
}

// reached tells of the attempt that decided about a host.
func (g *goal) reached(r *reach.Result) policy.HostReach {
	h := policy.HostReach{Host: r.Host, Port: r.Port, Level: g.level, Verdict: verdictOf(r.Verdict), Text: r.Text, Stripped: r.Stripped, Names: []string{}}
	if len(r.Attempts) > 0 {
		i := max(0, slices.IndexFunc(r.Attempts, func(a reach.Attempt) bool { return a.Verdict == r.Verdict && !a.NoRoute }))
		a := &r.Attempts[i]
		h.Address, h.At, h.Offered, h.Version, h.Cipher, h.Trust = a.Address.Addr().String(), a.When, a.Offered, a.Version, a.Cipher, a.Trust
		h.Text, h.Cause, h.Expires = a.Text, a.Cause, a.Expires()
		if len(a.Chain) > 0 {
			h.Names = append(h.Names, a.Chain[0].Names...)
		}
	}
	if g.doubt != "" && h.Verdict == policy.ReachPositive {
		h.Verdict, h.Cause = policy.ReachUnknown, g.doubt
	}
	return h
}

// newProber makes a prober that appears as a client does, and shares its limits with
// those before it.
func (r *mailReach) newProber(helo string, source []netip.Addr, roots *x509.CertPool) *reach.Prober {
	p := &reach.Prober{HeloName: helo, Roots: roots, Turns: r.turns, Dial: r.dial, Logger: r.log}
	for _, a := range source {
		if a.Is4() {
			p.LocalAddr4 = a
		} else {
			p.LocalAddr6 = a
		}
	}
	return p
}
