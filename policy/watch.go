package policy

import (
	"container/heap"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// The watch over the mail hosts of destinations under rules.
const (
	// MaxWatched bounds the destinations watched; the one that was not asked for
	// longest goes.
	MaxWatched = 10_000
	maxTurns   = 2 * MaxWatched // in the queue, those of destinations that went among them
	// watchLasts is how long a destination is watched after its last recipient.
	watchLasts = 24 * time.Hour
	// maxRounds bounds the destinations that are being looked at; connections are the
	// Reach's to bound, these wait for their turn.
	maxRounds    = 256
	roundTimeout = 10 * time.Minute
	// routeLasts is how long it is believed where Postfix takes the mail.
	routeLasts = 10 * time.Minute
	routeDoubt = time.Minute // the same, in doubt

	// How long results are fresh, with what a Reach adds as jitter: probed earlier,
	// nothing would be asked.
	freshPositive = 6*time.Hour + 36*time.Minute
	freshNegative = 11 * time.Minute
	freshUnknown  = 2*time.Minute + 12*time.Second // doubled each time, up to freshNegative
	// probeAgain is the least time between two probes of a host on our own account.
	probeAgain = time.Second
)

// watch is the set of destinations that are watched, and when each is due.
type watch struct {
	all *cache.Memory[watched]
	// changes counts what may move a Standing: every summary rests on one count.
	changes atomic.Uint64
	// routes counts what may change where Postfix takes mail.
	routes atomic.Uint64

	mu    sync.Mutex
	queue turns
	woken chan struct{}
	slots *semaphore.Weighted
	path  ownPath
}

func (w *watch) init() {
	w.all = cache.NewMemory(cache.Options[watched]{Limit: MaxWatched, Used: (*watched).lastAsked})
	w.woken = make(chan struct{}, 1)
	w.slots = semaphore.NewWeighted(maxRounds)
}

// watched is a destination under watch.
type watched struct {
	key   string
	asked atomic.Uint32 // Unix minutes of the last recipient
	// sender is the last rule for a sender that met this destination, and when.
	sender      atomic.Pointer[Rule]
	senderAsked atomic.Uint32

	hosts   atomic.Pointer[mailHosts] // nil: not gathered yet
	summary atomic.Pointer[summary]
	again   atomic.Int64 // Unix nanoseconds; a recipient after it makes for a round
	// proved is when our own path was last looked into for its sake: nanoseconds since
	// the engine was born, because the wall clock may be set.
	proved atomic.Int64

	// The following belong to watch.mu.
	gone bool      // no longer watched; whoever asks begins anew
	busy bool      // a round is under way
	at   time.Time // when the next one is due; zero: not in the queue
	then time.Time // wanted while busy

	// The following belong to the round.
	unknown  int       // without an outcome, in a row
	secured  time.Time // what Config.Secured said
	recalled bool      // it was asked
	unproven time.Time // when nobody was found who would clear our own path; zero: somebody was
	hopes    uint64    // of the path, then
	lenient  bool      // nobody who was asked then had lost TLS as well
}

func (w *watched) lastAsked() int64 { return int64(w.asked.Load()) }

// claim is what one rule comes to.
type claim struct {
	rule     *Rule
	demands  []Demand
	standing Standing
	seen     string
	proved   bool // our own path was looked into since all are negative
}

// summary is what verdicts about a destination rest on, until the plan or a result
// changes. It is immutable.
type summary struct {
	plan    *plan
	changes uint64
	until   time.Time
	unbound string // why rules do not bind
	doubt   string // why nobody is to be refused
	claims  []claim
	// sender is for the rules of senders, which all demand the same; its rule is nil.
	sender claim
}

// attend begins to watch a destination.
func (e *Engine) attend(key string, now time.Time) *watched {
	w, loaded := e.watch.all.LoadOrStore(key, func() *watched {
		w := &watched{key: key}
		w.asked.Store(minutes(now))
		w.proved.Store(-1)
		return w
	})
	if !loaded {
		e.watch.schedule(w, now)
		for _, evicted := range e.watch.tidy() {
			e.unwatch(evicted)
		}
	}
	return w
}

// recipient is the verdict from what is known.
func (w *watched) recipient(e *Engine, p *plan, byDomain bool, bySender *Rule, now time.Time) RecipientVerdict {
	if m := minutes(now); w.asked.Load() != m {
		w.asked.Store(m)
	}
	if bySender != nil {
		w.senderCalls(e, bySender, now)
	}
	if at := w.again.Load(); at != 0 && now.UnixNano() >= at && w.again.CompareAndSwap(at, 0) {
		e.wake(w, now)
	}
	s := w.current(e, p, now)
	var v RecipientVerdict
	if byDomain {
		for i := range s.claims {
			v = stronger(v, s.verdict(&s.claims[i], s.claims[i].rule, now))
		}
	}
	if bySender != nil {
		v = stronger(v, s.verdict(&s.sender, bySender, now))
	}
	return v
}

// current is the summary of what is known now.
func (w *watched) current(e *Engine, p *plan, now time.Time) *summary {
	s := w.summary.Load()
	switch {
	case s == nil:
	case s.plan != p || !now.Before(s.until):
		e.wake(w, now) // other rules may demand what nobody has looked for
	case s.changes == e.watch.changes.Load():
		return s
	}
	if s = w.sum(e, p, now); s.unbound == doubtRoutes {
		e.wake(w, now) // by whomever it is asked for: no recipient may come for long
	}
	return s
}

// senderCalls notes that a sender's rule met the destination. The first time is a
// reason to probe.
func (w *watched) senderCalls(e *Engine, r *Rule, now time.Time) {
	m := minutes(now)
	if w.sender.Load() == r && w.senderAsked.Load() == m {
		return
	}
	first := !w.senderCounts(now)
	w.sender.Store(r)
	w.senderAsked.Store(m)
	if first {
		e.wake(w, now)
	}
}

func (w *watched) senderCounts(now time.Time) bool {
	return w.sender.Load() != nil && now.Sub(time.Unix(int64(w.senderAsked.Load())*60, 0)) < watchLasts
}

// senderRule is the rule for senders that a destination is watched for, as it stands in a
// plan; nil: there is none, or not any more.
func (w *watched) senderRule(p *plan, now time.Time) *Rule {
	if !w.senderCounts(now) {
		return nil
	}
	if r := p.Rules.sameSenders(w.sender.Load()); r.watched() && !r.Expired(now) {
		return r
	}
	return nil
}

func (s *summary) verdict(c *claim, r *Rule, now time.Time) RecipientVerdict {
	if s.unbound != "" {
		return RecipientVerdict{Rule: r, Doubt: s.unbound}
	}
	v := judge(r, &c.standing, now)
	if v.Action|v.Withheld != RecipientPass {
		switch {
		case s.doubt != "":
			v = RecipientVerdict{Rule: r, Doubt: s.doubt}
		case !c.proved:
			v = RecipientVerdict{Rule: r, Doubt: doubtPath}
		}
	}
	v.Seen = c.seen
	return v
}

// stronger is the verdict that counts of two; of equals the first that has a rule.
func stronger(a, b RecipientVerdict) RecipientVerdict {
	switch {
	case b.Action > a.Action, a.Rule == nil, b.Action == a.Action && a.Doubt == "" && b.Doubt != "":
		return b
	}
	return a
}

// sum sums up anew what is known. It asks nobody.
func (w *watched) sum(e *Engine, p *plan, now time.Time) *summary {
	s := &summary{plan: p, changes: e.watch.changes.Load(), until: now.Add(watchLasts)}
	if next := p.Rules.NextChange(now); !next.IsZero() {
		s.until = next
	}
	if h := w.hosts.Load(); h != nil {
		s.doubt = h.doubt
		if s.unbound = h.unbound; e.route != nil && h.routes != e.watch.routes.Load() {
			s.unbound = doubtRoutes
		}
		f := p.Rules.Find(h.subject(Key{Name: w.key, Port: 25}), now)
		for _, r := range []*Rule{f.Rule, f.Monitored} {
			if r.watched() {
				s.claims = append(s.claims, e.claim(w, r, r.Line, h))
			}
		}
		if p.watching&watchingSenders != 0 {
			s.sender = e.claim(w, nil, tlspolicy.Line{Level: tlspolicy.Encrypt}, h)
		}
	}
	w.summary.Store(s)
	return s
}

func (e *Engine) claim(w *watched, r *Rule, line tlspolicy.Line, h *mailHosts) claim {
	c := claim{rule: r, demands: h.demands(line)}
	if len(c.demands) > 0 && h.unbound == "" {
		c.standing = h.complete(e.reach.Standing(c.demands))
		c.seen = seen(&c.standing)
		c.proved = w.proved.Load() >= int64(c.standing.FirstNegative.Sub(e.born))
	}
	return c
}

// active lists what is to be probed, each claim with the rule that it is for.
func (w *watched) active(s *summary, now time.Time) []claim {
	list := append([]claim(nil), s.claims...)
	if r := w.senderRule(s.plan, now); r != nil {
		c := s.sender
		c.rule = r
		list = append(list, c)
	}
	return list
}

// turns is a heap of what is due, first in time first. An entry whose time is no
// longer its destination's is void.
type turns []turn

type turn struct {
	at time.Time
	w  *watched
}

func (t turns) Len() int           { return len(t) }
func (t turns) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t turns) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *turns) Push(x any)        { *t = append(*t, x.(turn)) }
func (t *turns) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = turn{}
	*t = old[:len(old)-1]
	return last
}

// wake makes a destination due now, also when it was let go this moment.
func (e *Engine) wake(w *watched, now time.Time) {
	if !e.watch.schedule(w, now) {
		e.attend(w.key, now)
	}
}

// schedule makes a destination due at a time, unless it is earlier anyway. False: it
// is no longer watched.
func (w *watch) schedule(d *watched, at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case d.busy:
		if d.then.IsZero() || at.Before(d.then) {
			d.then = at
		}
		return true
	case d.gone:
		return false
	case !d.at.IsZero() && !at.Before(d.at):
		return true
	}
	d.at = at
	heap.Push(&w.queue, turn{at, d})
	select {
	case w.woken <- struct{}{}:
	default:
	}
	return true
}

// tidy takes out of a queue that has become too long what is no longer watched: in a
// flood of new destinations they come faster than they have their turn.
func (w *watch) tidy() (evicted []*watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) <= maxTurns {
		return nil
	}
	w.queue = slices.DeleteFunc(w.queue, func(t turn) bool {
		switch {
		case t.w.busy || !t.w.at.Equal(t.at):
			return true // void
		case w.all.GetString(t.w.key) == t.w:
			return false
		}
		t.w.gone, t.w.at = true, time.Time{}
		evicted = append(evicted, t.w)
		return true
	})
	heap.Init(&w.queue)
	return evicted
}

// take returns a destination that is due, or how long it is until the next one is;
// negative: none is.
func (w *watch) take(now time.Time) (*watched, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		next := w.queue[0]
		if !next.w.at.Equal(next.at) || next.w.busy {
			heap.Pop(&w.queue)
			continue
		}
		if wait := next.at.Sub(now); wait > 0 {
			return nil, wait
		}
		heap.Pop(&w.queue)
		next.w.busy, next.w.at = true, time.Time{}
		return next.w, 0
	}
	return nil, -1
}

// done ends a round; next is zero when the destination is let go.
func (e *Engine) done(d *watched, next time.Time) {
	w, gone := &e.watch, next.IsZero()
	w.mu.Lock()
	d.busy, d.gone = false, gone
	then := d.then
	d.then = time.Time{}
	w.mu.Unlock() // from here on another round may begin
	switch {
	case !gone && (then.IsZero() || next.Before(then)):
		w.schedule(d, next)
	case !then.IsZero():
		e.wake(d, then)
	}
}

// watchAll looks at every destination when it is due, until ctx ends.
func (e *Engine) watchAll(ctx context.Context) {
	timer := time.NewTimer(watchLasts)
	defer timer.Stop()
	for {
		d, wait := e.watch.take(time.Now())
		if d == nil {
			if wait < 0 {
				wait = watchLasts
			}
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-e.watch.woken:
			case <-timer.C:
			}
			continue
		}
		if e.watch.slots.Acquire(ctx, 1) != nil {
			return
		}
		if !e.spawn(func() {
			defer e.watch.slots.Release(1)
			e.done(d, e.round(d))
		}) {
			return
		}
	}
}

// The kinds of rules for whose sake mail hosts are probed.
type watching uint8

const (
	watchingDomains watching = 1 << iota
	watchingMX
	watchingSenders
	watchingTLSA
)

// watchingOf tells which kinds there are among rules.
func watchingOf(rs *Rules) (kinds watching) {
	for i := range rs.All() {
		r := &rs.rules[i]
		switch {
		case !r.watched():
		case len(r.Sender) > 0:
			kinds |= watchingSenders
		default:
			kinds |= watchingDomains
		}
		if r.watched() && wantsTLSA(r.Line.Level) {
			kinds |= watchingTLSA
		}
	}
	for _, list := range [][]int32{rs.mxRaising, rs.mxMonitored} {
		for _, n := range list {
			if rs.rules[n].watched() {
				kinds |= watchingMX
			}
		}
	}
	return kinds
}

// mayWatch tells whether a rule for whose sake hosts are probed could apply to a
// domain of which the answer is not known.
func (p *plan) mayWatch(domain string, now time.Time) bool {
	if p.watching&watchingDomains == 0 {
		return false
	}
	f := p.Rules.Find(Subject{Key: Key{Name: domain, Port: 25}}, now)
	return f.Rule.watched() || f.Monitored.watched() || f.NeedsMX && p.watching&watchingMX != 0
}

// shares tells whether a demand is about a host of others, by name or address.
func (d *Demand) shares(others []Demand) bool {
	for i := range others {
		if others[i].Host == d.Host {
			return true
		}
		for _, a := range others[i].Addresses {
			if containsAddr(d.Addresses, a) {
				return true
			}
		}
	}
	return false
}

func containsAddr(list []netip.Addr, a netip.Addr) bool {
	for _, b := range list {
		if a.Unmap() == b.Unmap() {
			return true
		}
	}
	return false
}
