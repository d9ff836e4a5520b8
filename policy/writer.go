package policy

import (
	"context"
	"errors"
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
	states  map[string]struct{} // of first-run safety
	failing atomic.Bool
	order   order
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
	w.e, w.waiting, w.states, w.order = e, map[*domain]struct{}{}, map[string]struct{}{}, newOrder()
}

// run writes what waits until ctx ends. A disk that hangs stops nothing else.
func (w *writer) run(ctx context.Context) {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.flush()
		}
	}
}

// dirty marks the book-keeping of a domain for the next batch.
func (w *writer) dirty(d *domain) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[d] = struct{}{}
}

// promptly writes what waits, and waits a moment for the disk: what is answered
// now should survive a kill -9 that follows it. A slow disk keeps nobody waiting.
func (w *writer) promptly() {
	done := make(chan struct{})
	if !w.e.spawn(func() { defer close(done); w.flush() }) {
		return
	}
	timer := time.NewTimer(promptTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// dirtyState marks a state of first-run safety for the next batch.
func (w *writer) dirtyState(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[name] = struct{}{}
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

// flush writes what waits. What could not be written waits on.
func (w *writer) flush() {
	for {
		batch, states := w.take()
		if len(batch)+len(states) == 0 {
			return
		}
		err := w.write(batch, states)
		w.result(err)
		if err != nil {
			for _, d := range batch {
				w.dirty(d)
			}
			for _, name := range states {
				w.dirtyState(name)
			}
			return
		}
	}
}

func (w *writer) write(batch []*domain, states []string) error {
	defer w.order.share()()
	var records []cache.Record
	for _, name := range states {
		records = append(records, cache.Record{Kind: kindState, Key: name, Value: []byte(`{"v":1}`)})
	}
	for _, d := range batch {
		records = append(records, d.records()...)
	}
	if len(records) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	return w.e.store.Put(ctx, records...)
}

func (w *writer) take() (batch []*domain, states []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.states {
		states = append(states, name)
	}
	clear(w.states)
	for d := range w.waiting {
		delete(w.waiting, d)
		if batch = append(batch, d); len(batch) == writeBatch {
			break
		}
	}
	return batch, states
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
		e.writer.dirtyState(name)
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
