package sender

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Client is who hands a message over.
type Client struct {
	// Login is the name that SMTP AUTH has proved (Postfix's {auth_authen} or
	// sasl_username), empty without one.
	Login string
	// Addr is its address; the zero Addr lies in no network.
	Addr netip.Addr
	// Local: sendmail(1), which reaches milters through non_smtpd_milters.
	Local bool
}

// Config is what a Policy is made from. Elements come from the Parse functions.
type Config struct {
	// Outgoing is whose mail is outgoing. Nil: DefaultOutgoing. Empty: nobody's.
	Outgoing []Origin
	// Domains are ours. Empty: every domain is.
	Domains []Domain
	// Forwarders are those whose mail may be foreign.
	Forwarders []Forwarder
	// Allow reserves addresses and domains.
	Allow []Allow
}

// Allow lets the clients that match it use what From names, and with that
// reserves it: nobody may whom no entry that names it matches.
type Allow struct {
	Logins  []Login        // one of these, empty: any login and none
	Clients []netip.Prefix // in one of these, empty: any address
	From    []From
	Source  string // where the entry is written, for people: "postseal.toml:31"
}

// ConfigError is one thing that is wrong with a Config.
type ConfigError struct {
	Field string // "outgoing", "allow", "allow[3]", "allow[3].from"
	What  string // what is wrong, and what to write
}

func (e *ConfigError) Error() string { return e.Field + ": " + e.What }

// Policy answers who may send as whom. The zero Policy is that of the zero
// Config: mail of logins and of sendmail(1) is outgoing, every domain is ours
// and no address reserved. A Policy never changes.
type Policy struct {
	// Inverted, so that the zero value is the default.
	noLogin, noLocal bool
	outgoing         []netip.Prefix

	ours       names[struct{}] // nothing: every domain
	forwarders clients

	addresses map[mailbox]*reservation
	domains   names[*reservation]
}

// clients are logins and networks.
type clients struct {
	logins   map[string]bool // folded
	networks []netip.Prefix
}

// reservation is an element of From with the entries that hold it.
type reservation struct {
	named   string
	entries []*entry
}

// entry is an Allow, made ready to be matched.
type entry struct {
	clients
	source string
}

// New makes a Policy. The error joins a *ConfigError for each entry that nobody
// could match or that names nothing, and for each list above MaxElements or
// MaxAllow.
func New(c Config) (*Policy, error) {
	var errs []error
	fail := func(field, format string, args ...any) {
		errs = append(errs, &ConfigError{field, fmt.Sprintf(format, args...)})
	}
	c.check(fail)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	p := &Policy{
		ours:       makeNames[struct{}](),
		addresses:  map[mailbox]*reservation{},
		domains:    makeNames[*reservation](),
		forwarders: clients{logins: map[string]bool{}},
	}
	if c.Outgoing != nil {
		p.setOutgoing(c.Outgoing)
	}
	for _, d := range c.Domains {
		p.ours.of(d)[d.name] = struct{}{}
	}
	for _, f := range c.Forwarders {
		p.forwarders.add(f)
	}
	for _, a := range c.Allow {
		p.reserve(a)
	}
	return p, nil
}

func (c Config) check(fail func(field, format string, args ...any)) {
	bound := func(field string, n, most int) {
		if n > most {
			fail(field, "%d elements, at most %d", n, most)
		}
	}
	bound("outgoing", len(c.Outgoing), MaxElements)
	bound("domains", len(c.Domains), MaxElements)
	bound("forwarders", len(c.Forwarders), MaxElements)
	bound("allow", len(c.Allow), MaxAllow)
	for i, a := range c.Allow {
		field := fmt.Sprintf("allow[%d]", i)
		bound(field+".login", len(a.Logins), MaxElements)
		bound(field+".client", len(a.Clients), MaxElements)
		bound(field+".from", len(a.From), MaxElements)
		if len(a.Logins) == 0 && len(a.Clients) == 0 {
			fail(field, "nobody is named who may use it; write login, client or both")
		}
		if len(a.From) == 0 {
			fail(field+".from", "missing; write for example from = [\"example.com\", \"news@example.org\"]")
		}
	}
}

func (p *Policy) setOutgoing(list []Origin) {
	p.noLogin, p.noLocal = true, true
	for _, o := range list {
		switch o.word {
		case authenticated:
			p.noLogin = false
		case local:
			p.noLocal = false
		default:
			p.outgoing = append(p.outgoing, o.network)
		}
	}
}

func (c *clients) add(f Forwarder) {
	if f.login.name != "" {
		c.logins[f.login.name] = true
	} else {
		c.networks = append(c.networks, f.network)
	}
}

func (p *Policy) reserve(a Allow) {
	e := &entry{clients: clients{logins: map[string]bool{}, networks: slices.Clone(a.Clients)}, source: a.Source}
	for _, l := range a.Logins {
		e.logins[l.name] = true
	}
	for _, f := range a.From {
		if f.local != "" {
			reserve(p.addresses, mailbox{f.local, f.name}, f, e)
		} else {
			reserve(p.domains.of(f.Domain), f.name, f, e)
		}
	}
}

func reserve[K comparable](into map[K]*reservation, key K, f From, e *entry) {
	r := into[key]
	if r == nil {
		r = &reservation{named: f.String()}
		into[key] = r
	}
	r.entries = append(r.entries, e)
}

// Outgoing tells whether mail of this client is outgoing. Other mail passes
// unseen.
func (p *Policy) Outgoing(c Client) bool {
	return c.Login != "" && !p.noLogin || c.Local && !p.noLocal || contain(p.outgoing, c.Addr)
}

// Forwarder tells whether mail of this client may be foreign: a list server or
// one that forwards. It excuses foreign addresses only, no use of reserved ones.
func (p *Policy) Forwarder(c Client) bool {
	return p.forwarders.login(c.Login) || contain(p.forwarders.networks, c.Addr)
}

// Ours tells whether a domain is ours. Without Domains every one is, else none
// that the DNS could not hold.
func (p *Policy) Ours(domain string) bool {
	name, err := canonical(domain)
	if err != nil {
		name = "" // which no element is
	}
	return p.oursCanonical(name)
}

func (p *Policy) oursCanonical(name string) bool {
	_, ok := p.ours.find(name)
	return ok || p.anyDomain()
}

// Restricted tells whether Domains were given, so that some domain is not ours.
func (p *Policy) Restricted() bool { return !p.anyDomain() }

func (p *Policy) anyDomain() bool { return len(p.ours.exact)+len(p.ours.below) == 0 }

// Covers tells whether every address that an element names has a domain of ours.
func (p *Policy) Covers(f From) bool {
	if !f.below {
		return p.oursCanonical(f.name)
	}
	_, same := p.ours.below[f.name]
	_, above := p.ours.above(f.name)
	return same || above || p.anyDomain()
}

// Use says how a client may use an address.
type Use int

// The uses.
const (
	Allowed  Use = iota // an entry lets it, or nothing speaks against it
	Foreign             // no entry names the address, and its domain is not ours
	Reserved            // for clients that this one is not
)

var uses = [...]string{Allowed: "allowed", Foreign: "foreign", Reserved: "reserved"}

func (u Use) String() string {
	if u < 0 || int(u) >= len(uses) {
		return fmt.Sprintf("Use(%d)", int(u))
	}
	return uses[u]
}

// Verdict is the answer of MayUse. Verdicts can be compared.
type Verdict struct {
	Use Use
	// Named is the element that decided, as Config has it: "news@example.org",
	// ".example.com". Empty where no entry names the address.
	Named string
	// Source is that of the entry that matched or, for Reserved, of the first
	// one that holds Named.
	Source string
}

// MayUse tells whether a client may use an address, of a From field or an
// envelope: an addr-spec without comments, blanks and angle brackets. The null
// sender, "", is Allowed. An address without a domain that the DNS could hold
// is Foreign where Domains are given. Forwarders get the same answers: what
// follows from Foreign is for the caller to say, see Forwarder.
func (p *Policy) MayUse(c Client, address string) Verdict {
	if address == "" {
		return Verdict{}
	}
	m := parseMailbox(address)
	r, named := p.addresses[m]
	if !named {
		r, named = p.domains.find(m.domain)
	}
	switch {
	case named:
		return r.judge(c)
	case p.oursCanonical(m.domain):
		return Verdict{}
	}
	return Verdict{Use: Foreign}
}

func (r *reservation) judge(c Client) Verdict {
	v := Verdict{Use: Reserved, Named: r.named, Source: r.entries[0].source}
	for _, e := range r.entries {
		if e.match(c) {
			v.Use, v.Source = Allowed, e.source
			break
		}
	}
	return v
}

// match tells whether login and address are both among those of an entry, where
// it has both.
func (e *entry) match(c Client) bool {
	return (len(e.logins) == 0 || e.login(c.Login)) && (len(e.networks) == 0 || contain(e.networks, c.Addr))
}

// login tells whether a login is among them; no login never is.
func (c *clients) login(name string) bool {
	return name != "" && len(c.logins) > 0 && c.logins[fold(name)]
}

func contain(networks []netip.Prefix, a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
