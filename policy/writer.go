package policy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/postseal/postseal/cache"
)

// writer writes book-keeping to the store in batches, off the path of questions,
// and tells once when the store fails and once when it works again.
type writer struct {
	e       *Engine
	mu      sync.Mutex
	waiting map[*domain]struct{}
	writing map[string]chan struct{}    // names whose records are being written; closed when they are
	loose   map[recordName]cache.Record // records of no domain's policy, which wait too
	some    chan struct{}               // has a value when something waits
	failing atomic.Bool
	order   order
}

type recordName struct {
	kind cache.Kind
	key  string
}

// order is shared from looking at memory until the store has what was seen, and
// taken alone by who forgets or replaces records: otherwise a write under way
// would bring back what the operator had just deleted.
type order struct{ *semaphore.Weighted }

const orderAll = 1 << 30

func newOrder() order { return order{semaphore.NewWeighted(orderAll)} }

// share cannot fail: who holds the order waits for the store storeTimeout at most.
func (o order) share() (release func()) {
	_ = o.Acquire(context.Background(), 1)
	return func() { o.Release(1) }
}

func (o order) alone(ctx context.Context) (release func(), err error) {
	if err := o.Acquire(ctx, orderAll); err != nil {
		return nil, err
	}
	return func() { o.Release(orderAll) }, nil
}

// Batches of book-keeping.
const (
	writeEvery   = 2 * time.Second
	writeBatch   = 1000
	storeTimeout = 5 * time.Second // how long a write waits for the disk

	promptTimeout = 250 * time.Millisecond // how long an answer waits for it
)

func (w *writer) init(e *Engine) {
	w.some = make(chan struct{}, 1)
	w.e, w.waiting, w.writing, w.loose, w.order = e, map[*domain]struct{}{}, map[string]chan struct{}{}, map[recordName]cache.Record{}, newOrder()
}

// run writes what waits until ctx ends. A disk that hangs stops nothing else.
func (w *writer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.some:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(writeEvery): // what comes meanwhile goes along
			w.flush()
		}
	}
}

// wake tells run that something waits. The lock of w is held.
func (w *writer) wake() {
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// dirty marks the book-keeping of a domain for the next batch.
func (w *writer) dirty(d *domain) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[d] = struct{}{}
	w.wake()
}

// turn waits until nobody writes the records of a name, and keeps others from it
// until done; the order is shared before. From looking at memory until the store
// has what was seen it is one writer's: a batch that looked before a new policy
// came must not put the old one over it, for a kill -9 would bring that back.
func (w *writer) turn(name string) (done func()) {
	for {
		w.mu.Lock()
		other, busy := w.writing[name]
		if !busy {
			w.writing[name] = make(chan struct{})
			w.mu.Unlock()
			return func() { w.end(name) }
		}
		w.mu.Unlock()
		<-other // at most storeTimeout: every write has that limit
	}
}

func (w *writer) end(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		close(w.writing[name])
		delete(w.writing, name)
	}
}

// promptly writes the book-keeping of a domain, and first-run safety, and waits a
// moment for the disk: what is answered now should survive a kill -9 that follows
// it. A slow disk keeps nobody waiting.
func (w *writer) promptly(d *domain) {
	done := make(chan struct{})
	if !w.e.spawn(func() {
		defer close(done)
		defer w.order.share()()
		defer w.turn(d.key)()
		w.put(w.takeOne(d))
	}) {
		return
	}
	timer := time.NewTimer(promptTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// add takes a record for the next batch, in place of one that waits.
func (w *writer) add(r cache.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loose[recordName{r.Kind, r.Key}] = r
	w.wake()
}

// drop forgets a record that waits.
func (w *writer) drop(kind cache.Kind, key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.loose, recordName{kind, key})
}

// result raises and ends the alarm about the store.
func (w *writer) result(err error) {
	if failing := err != nil; w.failing.Swap(failing) != failing {
		if failing {
			w.e.log.Error("the store cannot be written; answers go on from memory, but would not survive a restart", "error", err)
		} else {
			w.e.log.Info("the store can be written again")
		}
	}
}

// flush writes what waits. What could not be written, or is being written by
// somebody else, waits on.
func (w *writer) flush() {
	for w.flushBatch() {
	}
}

// flushBatch writes one batch, and reports whether there was one and it was written.
func (w *writer) flushBatch() bool {
	defer w.order.share()()
	batch, loose := w.take()
	defer w.end(names(batch)...)
	return len(batch)+len(loose) > 0 && w.put(batch, loose)
}

// put writes a batch; the order is shared and the names' turns are the caller's.
// It reports whether that succeeded; what failed waits again.
func (w *writer) put(batch []*domain, loose []cache.Record) bool {
	records := slices.Clone(loose)
	for _, d := range batch {
		// What was evicted and is another now has nothing to say about its name.
		if w.e.held.holds(d) {
			records = append(records, d.records()...)
		}
	}
	if len(records) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	err := w.e.store.Put(ctx, records...)
	if w.result(err); err == nil {
		return true
	}
	for _, d := range batch {
		w.dirty(d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range loose {
		if name := (recordName{r.Kind, r.Key}); w.loose[name].Kind == "" { // else there is a newer one
			w.loose[name] = r
			w.wake()
		}
	}
	return false
}

// take takes a batch of what waits, with the turn of each name.
func (w *writer) take() (batch []*domain, loose []cache.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for d := range w.waiting {
		if _, busy := w.writing[d.key]; busy {
			w.wake() // it waits on
			continue
		}
		delete(w.waiting, d)
		w.writing[d.key] = make(chan struct{})
		if batch = append(batch, d); len(batch) == writeBatch {
			break
		}
	}
	return batch, w.takeLoose("")
}

func names(batch []*domain) []string {
	names := make([]string, len(batch))
	for i, d := range batch {
		names[i] = d.key
	}
	return names
}

// takeOne takes a domain, if it waits, and first-run safety; the domain's turn is
// the caller's.
func (w *writer) takeOne(d *domain) (batch []*domain, loose []cache.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, waits := w.waiting[d]; waits {
		delete(w.waiting, d)
		batch = []*domain{d}
	}
	return batch, w.takeLoose(kindState)
}

// takeLoose takes a batch of records of no domain's policy, all or of one kind. The
// lock of w is held.
func (w *writer) takeLoose(only cache.Kind) (loose []cache.Record) {
	for name, r := range w.loose {
		if only != "" && name.kind != only {
			continue
		}
		delete(w.loose, name)
		if loose = append(loose, r); len(loose) == writeBatch {
			break
		}
	}
	return loose
}

// records are the store's records about a domain that is kept.
func (d *domain) records() []cache.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.policy
	if p == nil || !p.have || !p.kept {
		return nil
	}
	var records []cache.Record
	if r, err := p.record(d.key, asked(d)); err == nil {
		records = append(records, r)
	}
	if p.last != nil {
		if r, err := p.last.record(d.key); err == nil {
			records = append(records, r)
		}
	}
	return records
}

// States of first-run safety in the store.
const (
	stateSecure   = "answered secure"
	stateDaneOnly = "answered dane-only"
)

// armed says which demands have been answered once (first-run safety: docs/operations.md, First run).
type armed struct{ secure, daneOnly atomic.Bool }

// set notes a demand. It is on disk with the next batch, and before the engine ends.
func (a *armed) set(e *Engine, which *atomic.Bool, name string) {
	if !which.Load() && !which.Swap(true) {
		e.writer.add(cache.Record{Kind: kindState, Key: name, Value: []byte(`{"v":1}`)})
	}
}

func (e *Engine) loadState() {
	ctx, cancel := context.WithTimeout(e.life, storeTimeout)
	defer cancel()
	for name, which := range map[string]*atomic.Bool{stateSecure: &e.armed.secure, stateDaneOnly: &e.armed.daneOnly} {
		if _, err := e.store.Get(ctx, kindState, name); err == nil {
			which.Store(true)
		} else if !errors.Is(err, cache.ErrNotFound) {
			// Whether a demand was ever answered is not known: do not relax.
			which.Store(true)
			e.log.Warn("first-run safety is off: the store cannot be read", "error", err)
		}
	}
}
