package policy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// Limits of the engine.
const (
	// DefaultDeadline is how long an asker waits at most. Postfix waits 100 s
	// (util/dict_sockmap.c) and asks once for every MX host.
	DefaultDeadline = 5 * time.Second
	// reserve of the deadline goes to writing the answer.
	reserve = 100 * time.Millisecond
	// MaxNames bounds the names remembered without a policy.
	MaxNames = 1_000_000
	// MaxHosts bounds the mail hosts remembered.
	MaxHosts = 250_000
	// maxFetches bounds policy fetches under way (STS-096).
	maxFetches = 32
	// maxRefreshes of them may be of policies that are held already, so that
	// slow policy hosts do not keep a first contact waiting.
	maxRefreshes = 8
	// maxPerOrganization bounds the policies kept below one organizational domain.
	maxPerOrganization = 1000
	// unknownEvery is how often a map name that does not exist is told, and a key
	// that is no destination.
	unknownEvery = time.Minute
	// ahead of its end, evidence that somebody asks for is gathered anew.
	ahead = 5 * time.Second
)

// Resolver is the DNS as the engine needs it; *resolver.Resolver is one.
type Resolver interface {
	dane.Resolver
	mtasts.TXTResolver
	// Suspended says that no server that may be believed validates, and why.
	Suspended() (bool, string)
	// Ready waits until Suspended can be relied on.
	Ready(context.Context)
}

// Config is what an Engine is made of. Resolver, Fetch and Store are required.
type Config struct {
	Resolver Resolver
	// Fetch gets the policy of a domain; (*mtasts.Fetcher).Fetch is one. Its own
	// timeout ends it, in 5 min at most.
	Fetch    func(ctx context.Context, domain string) (mtasts.Fetched, error)
	Store    cache.Store
	Settings Settings
	Postfix  Postfix
	Logger   *slog.Logger
	// Registerer takes the metrics; nil: none are kept anywhere.
	Registerer prometheus.Registerer

	// Reach probes mail hosts for rules whose recipients may be refused; nil: none is.
	Reach Reach
	// Route says why rules for a recipient domain do not bind, because Postfix hands
	// its mail to another host than its mail exchangers: "relayhost = [smart.example]";
	// empty: it does not. In doubt, which says why, nobody is refused. It may take
	// seconds. Nil: all mail goes by the MX records.
	Route func(ctx context.Context, domain string) (unbound, doubt string)
	// Secured returns when the mail hosts of a destination were last seen to offer
	// what a rule demands, before this process began; zero: never. Nil: not known.
	Secured func(destination string) time.Time
	// Witnesses names destinations whose mail hosts were seen with TLS in the last day,
	// before this process began, the latest first. Nil: none is known.
	Witnesses func() []string
	// Observer is told about destinations under rules; nil: nobody.
	Observer Observer
}

// Engine answers what Postfix shall be told about a destination. It gathers
// evidence, one flight per piece of it, on a context that outlives the asker;
// keeps it; and decides anew whenever evidence or settings change.
//
// # Limits
//
// Names without a policy are bounded by MaxNames and may be forgotten in a flood;
// enforce policies never are, up to 1,000 below one organizational domain.
type Engine struct {
	resolver Resolver
	fetch    func(context.Context, string) (mtasts.Fetched, error)
	store    cache.Store
	log      *slog.Logger
	metrics  *metrics

	plan     atomic.Pointer[plan]
	planMu   sync.Mutex // one change of plan at a time
	domains  *cache.Memory[domain]
	others   *cache.Memory[destination]
	enforced *cache.Memory[destination] // by EnforcedMap
	hosts    *cache.Memory[host]
	common   sync.Map // interned answers, by text and plan
	warming  sync.Map // keys that Warm gathers for

	reading   sync.Mutex    // one reads the whole store at a time
	unread    atomic.Bool   // the store may hold policies that memory does not
	loaded    chan struct{} // closed when the store was read, as far as it could be
	fetches   *semaphore.Weighted
	refreshes *semaphore.Weighted // of fetches, those that nobody waits for
	held      held
	sets      knownSets
	outbound  outbound
	writer    writer
	alarms    alarms
	reach     Reach
	route     func(context.Context, string) (unbound, doubt string)
	secured   func(string) time.Time
	recalled  func() []string // Config.Witnesses
	observer  Observer
	watch     watch
	armed     armed
	clock     clockWatch
	born      time.Time      // looked counts from it
	looked    atomic.Int64   // when lookAround was last called, in nanoseconds
	looking   sync.Mutex     // one calls it at a time
	invalid   rate.Sometimes // so may a key that is no destination
	unknown   rate.Sometimes // a map name that does not exist is asked for with every mail

	flights sync.WaitGroup
	life    context.Context // of flights: ends when Run does
	end     context.CancelFunc
	endMu   sync.RWMutex // held by who starts a flight, and alone by who ends them
}

// New makes an Engine that answers from now on; Run keeps it fresh.
func New(c Config) (*Engine, error) {
	if c.Resolver == nil || c.Fetch == nil || c.Store == nil {
		return nil, errors.New("policy: an engine needs a resolver, a fetcher and a store")
	}
	e := &Engine{
		resolver: c.Resolver, fetch: c.Fetch, store: c.Store, log: c.Logger,
		reach: c.Reach, route: c.Route, secured: c.Secured, recalled: c.Witnesses, observer: c.Observer,
		fetches: semaphore.NewWeighted(maxFetches), refreshes: semaphore.NewWeighted(maxRefreshes),
		loaded: make(chan struct{}), born: time.Now(), unknown: rate.Sometimes{Interval: unknownEvery}, invalid: rate.Sometimes{Interval: unknownEvery},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.clock.last = e.born
	e.domains = cache.NewMemory(cache.Options[domain]{Limit: MaxNames, Protected: (*domain).protected, Used: (*domain).lastAsked})
	e.others = cache.NewMemory(cache.Options[destination]{Limit: MaxNames / 4, Used: (*destination).lastAsked})
	e.enforced = cache.NewMemory(cache.Options[destination]{Limit: MaxNames / 4, Used: (*destination).lastAsked})
	e.hosts = cache.NewMemory(cache.Options[host]{Limit: MaxHosts, Protected: (*host).inFlight, Used: (*host).lastUsed})
	e.held.init(e)
	e.watch.init()
	e.life, e.end = context.WithCancel(context.Background())
	e.metrics = newMetrics(c.Registerer, e)
	e.alarms.log, e.alarms.gauge = e.log, e.metrics.alarms
	e.writer.init(e)
	e.unread.Store(true)
	e.loadState()
	e.Configure(c.Settings, c.Postfix)
	return e, nil
}

// Configure replaces settings and what is known of Postfix. Evidence stays, all
// answers are decided anew.
func (e *Engine) Configure(s Settings, p Postfix) {
	e.planMu.Lock()
	defer e.planMu.Unlock()
	if s.Deadline <= 0 {
		s.Deadline = DefaultDeadline
	}
	if s.Rules == nil {
		s.Rules = noRules
	}
	before := e.plan.Load()
	if e.replan(s, p); before != nil && before.Rules != s.Rules {
		e.reviewAlarms()
	}
}

// SetPostfix replaces what is known of Postfix. Without a change it costs nothing.
func (e *Engine) SetPostfix(p Postfix) {
	e.planMu.Lock()
	defer e.planMu.Unlock()
	if old := e.plan.Load(); old.Postfix != p {
		e.replan(old.Settings, p)
	}
}

var noRules, _ = NewRules(nil)

// replan makes a new plan; every remembered answer is void from then on. planMu is held.
func (e *Engine) replan(s Settings, p Postfix) {
	next := &plan{Settings: s, Postfix: p, watching: watchingOf(s.Rules)}
	next.suspended, _ = e.resolver.Suspended()
	next.relaxSTS = p.NoRoots && !e.armed.secure.Load()
	next.relaxDANE = p.NoDANE && !e.armed.daneOnly.Load()
	e.plan.Store(next)
	e.common.Clear()
}

// look makes a new plan when the resolver's standing has changed.
func (e *Engine) look() {
	if suspended, _ := e.resolver.Suspended(); suspended == e.plan.Load().suspended {
		return
	}
	e.planMu.Lock()
	defer e.planMu.Unlock()
	p := e.plan.Load()
	e.replan(p.Settings, p.Postfix)
	e.log.Debug("answers are decided anew", "dnssec_suspended", e.plan.Load().suspended)
}

// ServeSocketmap answers one question of Postfix: it appends the payload of the
// reply to dst. It is a socketmap.Handler.
func (e *Engine) ServeSocketmap(ctx context.Context, dst, mapName, key []byte) []byte {
	start := time.Now()
	if age, looked := int64(start.Sub(e.born)), e.looked.Load(); age-looked >= int64(lookEvery) && e.looked.CompareAndSwap(looked, age) {
		e.lookAround(start)
	}
	kind, ok := kindOf(mapName)
	if !ok {
		e.metrics.unknownMap.Inc()
		// PFX-02: PERM would defer all mail.
		e.unknown.Do(func() {
			e.log.Warn("unknown map name asked for; NOTFOUND", "map", printable(mapName), "known", append(MapNames[:], SenderMap))
		})
		return append(dst, notFound...)
	}
	if kind == mapSender {
		return e.serveSender(dst, key, start)
	}
	p := e.plan.Load()
	if d := e.rememberedBy(kind, key); d != nil {
		now := start.UnixNano()
		if m := d.current(now, p); m != nil {
			d.touch(start)
			if now >= m.renew.Load() {
				e.renew(d, m, start)
			}
			return e.give(dst, m.answer, kind.column(), start)
		}
	}
	return e.ask(ctx, dst, kind, key, start)
}

const notFound = "NOTFOUND "

func (e *Engine) give(dst []byte, a *answer, kind mapKind, start time.Time) []byte {
	a.counted[kind].Inc()
	if a.would[kind] != nil {
		a.would[kind].Inc()
	}
	e.metrics.latency.Observe(time.Since(start).Seconds())
	return append(dst, a.replies[kind]...)
}

// remembered finds a key that is already canonical, which is what Postfix sends
// as a rule; anything else takes the long way.
func (e *Engine) remembered(key []byte) *destination {
	if d := e.domains.Get(key); d != nil {
		return &d.destination
	}
	return e.others.Get(key)
}

func (e *Engine) rememberedBy(kind mapKind, key []byte) *destination {
	if kind == mapEnforced {
		return e.enforced.Get(key)
	}
	return e.remembered(key)
}

// ask is the long way: the key is new, or its answer no longer holds.
func (e *Engine) ask(ctx context.Context, dst []byte, kind mapKind, key []byte, start time.Time) []byte {
	k, err := ParseKey(string(key))
	if err != nil {
		if len(key) > 0 && key[0] != '.' { // a leading dot is Postfix's own walk to the parents
			e.invalid.Do(func() {
				e.log.Info("answered NOTFOUND without a look-up", "key", printable(key), "reason", err)
			})
			if kind == mapEnforced && !e.plan.Load().Monitor {
				// What cannot be a destination cannot be told to go in clear either.
				e.metrics.answers.WithLabelValues(tlspolicy.Encrypt.String(), string(SourceFloor)).Inc()
				return append(append(dst, "OK "...), tlspolicy.Encrypt.String()...)
			}
		}
		e.metrics.answers.WithLabelValues("NOTFOUND", string(SourceFloor)).Inc()
		return append(dst, notFound...)
	}
	d := e.destination(k)
	if kind == mapEnforced {
		d = e.mandatory(k)
	}
	d.touch(start)
	q := e.newQuery(k, d)
	q.wait(ctx, start.Add(q.plan.patience()))
	return e.give(dst, q.answer(), kind.column(), start)
}

// destination finds or makes the memory of a key.
func (e *Engine) destination(k Key) *destination {
	dom := e.domain(k.Name)
	text := k.String()
	if text == dom.key {
		return &dom.destination
	}
	return destinationIn(e.others, text, dom, false)
}

// mandatory finds or makes the memory of a key that EnforcedMap is asked for. Its
// evidence is that of every other question about the domain.
func (e *Engine) mandatory(k Key) *destination {
	return destinationIn(e.enforced, k.String(), e.domain(k.Name), true)
}

func destinationIn(memory *cache.Memory[destination], text string, dom *domain, mandatory bool) *destination {
	fresh := func() *destination {
		d := &destination{key: text, domain: dom, mandatory: mandatory}
		d.asked.Store(minutes(time.Now()))
		return d
	}
	d, _ := memory.LoadOrStore(text, fresh)
	if d.domain != dom {
		// The domain that this key looked at was evicted, and is another now.
		memory.Delete(text)
		d, _ = memory.LoadOrStore(text, fresh)
	}
	return d
}

func (e *Engine) domain(name string) *domain {
	d, _ := e.domains.LoadOrStore(name, func() *domain {
		now := minutes(time.Now())
		if d := e.held.get(name); d != nil { // evicted, but its policy is held
			d.asked.Store(now)
			return d
		}
		return newDomain(name, now)
	})
	return d
}

// host finds or makes the memory of a mail host at a port.
func (e *Engine) host(name string, port uint16) *host {
	now := minutes(time.Now())
	h, _ := e.hosts.LoadOrStore(hostKey(name, port), func() *host {
		h := &host{name: name, port: port}
		h.used.Store(now)
		return h
	})
	if h.used.Load() != now {
		h.used.Store(now)
	}
	return h
}

// printable keeps foreign bytes out of the log.
func printable(b []byte) string {
	const most = 100
	s := make([]byte, 0, min(len(b), most))
	for _, c := range b[:min(len(b), most)] {
		if c < ' ' || c > '~' {
			c = '?'
		}
		s = append(s, c)
	}
	return string(s)
}
