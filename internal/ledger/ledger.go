package ledger

import (
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/cache"
)

// Config is what a Ledger is made of. Store is required, and stays its owner's.
type Config struct {
	Store      cache.Store
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: the metrics are kept nowhere
}

// Ledger takes evidence from many goroutines. Run writes it.
type Ledger struct {
	store cache.Store
	log   *slog.Logger
	seed  maphash.Seed

	shards  [shards]shard
	waiting atomic.Int64  // entries in all shards that wait to be written
	some    chan struct{} // has a value when something waits
	dropped prometheus.Counter

	writing sync.Mutex // held by the one write
	failure atomic.Pointer[error]
}

// shards keep askers of different destinations out of each other's way.
const shards = 32

type shard struct {
	mu     sync.Mutex
	known  map[name]known
	events map[name]event
	counts map[countName]Count
}

// known is what was told last about a destination, so that it is not told again.
type known struct {
	rule  *Rule
	level string
	told  time.Time
}

// New makes a Ledger.
func New(c Config) *Ledger {
	l := &Ledger{store: c.Store, log: c.Logger, seed: maphash.MakeSeed(), some: make(chan struct{}, 1)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.known = map[name]known{}
		s.reset()
	}
	l.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "postseal_ledger_dropped_total", Help: "Evidence that was not kept because too much waited to be written.",
	})
	if c.Registerer != nil {
		c.Registerer.MustRegister(l.dropped, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "postseal_ledger_failing", Help: "1 while the ledger cannot be written.",
		}, func() float64 {
			if l.Err() != nil {
				return 1
			}
			return 0
		}))
	}
	return l
}

func (s *shard) reset() {
	s.events, s.counts = map[name]event{}, map[countName]Count{}
}

func (l *Ledger) shard(s string) *shard { return &l.shards[maphash.String(l.seed, s)%shards] }

// Answered: Postfix was told a level for a destination under a rule. It costs a look
// into a map while nothing is new.
func (l *Ledger) Answered(destination string, r *Rule, level string) {
	now, n := time.Now(), name{destination, len(r.Sender) > 0}
	s := l.shard(destination)
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[n]
	if k.rule == r && k.level == level && now.Sub(k.told) < askedEvery {
		return
	}
	if l.add(s, n, event{rule: r, level: level, asked: now, first: now, at: now}) {
		s.forget()
		s.known[n] = known{r, level, now}
	}
}

// Reached: the mail hosts of a destination were asked for the sake of a rule. secured
// is when one of them was last seen to offer what it demands; zero: never.
func (l *Ledger) Reached(destination string, r *Rule, hosts []Host, secured time.Time) {
	s := l.shard(destination)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.add(s, name{destination, len(r.Sender) > 0}, event{rule: r, probed: true, hosts: hosts, secured: secured, at: time.Now()})
}

// Inert says why no rule binds for a destination; empty: they bind.
func (l *Ledger) Inert(destination string, sender bool, why string) {
	s := l.shard(destination)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.add(s, name{destination, sender}, event{inert: &why, at: time.Now()})
}

// Refused counts a recipient that was refused because of a rule.
func (l *Ledger) Refused(destination string) { l.count(destination, Count{Refused: 1}) }

// Deferred counts a recipient that was deferred because of a rule.
func (l *Ledger) Deferred(destination string) { l.count(destination, Count{Deferred: 1}) }

func (l *Ledger) count(destination string, c Count) {
	now := time.Now()
	c.Destination, c.Day, c.First, c.Last = destination, dayOf(now), second(now), second(now)
	s := l.shard(destination)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := countName{destination, c.Day}
	before, waits := s.counts[n]
	if waits || l.room() {
		s.counts[n] = before.plus(c)
	}
}

// add lets an event wait, unless too much does.
func (l *Ledger) add(s *shard, n name, e event) bool {
	before, waits := s.events[n]
	if !waits && !l.room() {
		return false
	}
	s.events[n] = e.over(before)
	return true
}

// room takes one of the places of what waits, and tells Run.
func (l *Ledger) room() bool {
	if l.waiting.Add(1) > maxWaiting {
		l.waiting.Add(-1)
		l.dropped.Inc()
		return false
	}
	l.wake()
	return true
}

func (l *Ledger) wake() {
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// forget makes room among what is known: it is told again when it is next seen.
func (s *shard) forget() {
	most := maxKnown / shards
	if len(s.known) < most {
		return
	}
	for n := range s.known { // in random order
		if delete(s.known, n); len(s.known) <= most/2 {
			return
		}
	}
}
