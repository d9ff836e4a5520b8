package milter

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ask begins some work whose outcome is told to done, together with how long it
// may be remembered. It does not wait.
type ask[T any] func(done func(T, time.Duration, error))

// memory keeps outcomes by key until their time is up, and begins no work twice.
// The zero value is ready. It is bounded: when it is full, what has expired goes,
// and else anything.
type memory[T any] struct {
	mu      sync.Mutex
	entries map[string]*entry[T]
}

// entry is one outcome, or the work towards it.
type entry[T any] struct {
	done  chan struct{} // closed when the rest is set
	value T
	err   error
	until time.Time
}

// over says that the outcome is known and may no longer be believed.
func (e *entry[T]) over(now time.Time) bool {
	select {
	case <-e.done:
		return !now.Before(e.until)
	default:
		return false
	}
}

// get gives the outcome for a key; it waits for it as long as ctx lasts. Whoever
// has waited gets it, however short its lifetime is.
func (m *memory[T]) get(ctx context.Context, key string, a ask[T]) (T, error) {
	e, err := m.wait(ctx, key, a)
	if err != nil {
		var none T
		return none, err
	}
	return e.value, e.err
}

// wait is get for the whole entry. An error means that ctx ended first.
func (m *memory[T]) wait(ctx context.Context, key string, a ask[T]) (*entry[T], error) {
	e := m.start(key, a)
	select {
	case <-e.done:
		return e, nil
	default:
	}
	select {
	case <-e.done:
		return e, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// known gives an outcome that is there, without waiting.
func (m *memory[T]) known(key string, a ask[T]) (T, bool) {
	e := m.start(key, a)
	select {
	case <-e.done:
		return e.value, e.err == nil
	default:
		var none T
		return none, false
	}
}

// start begins the work for a key unless its outcome is known or on its way.
func (m *memory[T]) start(key string, a ask[T]) *entry[T] {
	now := time.Now()
	m.mu.Lock()
	if e := m.entries[key]; e != nil && !e.over(now) {
		m.mu.Unlock()
		return e
	}
	e := &entry[T]{done: make(chan struct{})}
	m.keep(key, e, now)
	m.mu.Unlock()
	a(func(v T, lasts time.Duration, err error) {
		e.value, e.err, e.until = v, err, time.Now().Add(lasts)
		close(e.done)
	})
	return e
}

// keep makes room and keeps an entry. The lock is held.
func (m *memory[T]) keep(key string, e *entry[T], now time.Time) {
	if m.entries == nil {
		m.entries = map[string]*entry[T]{}
	}
	if _, replaces := m.entries[key]; !replaces && len(m.entries) >= maxRemembered {
		for k, old := range m.entries {
			if old.over(now) {
				delete(m.entries, k)
			}
		}
		for k := range m.entries {
			if len(m.entries) < maxRemembered*9/10 {
				break
			}
			delete(m.entries, k)
		}
	}
	m.entries[key] = e
}

// work owns what goes on besides the messages: look-ups that outlive who asked.
type work struct {
	life    context.Context
	end     context.CancelCauseFunc
	slots   chan struct{}
	running sync.WaitGroup
}

var errClosed = errors.New("postseal is shutting down")

func newWork() *work {
	w := &work{slots: make(chan struct{}, maxAsking)}
	w.life, w.end = context.WithCancelCause(context.Background())
	return w
}

// spawn runs f as soon as a slot is free; its context ends with the work.
func (w *work) spawn(f func(context.Context)) {
	w.running.Go(func() {
		select {
		case w.slots <- struct{}{}:
			defer func() { <-w.slots }()
		case <-w.life.Done():
		}
		f(w.life)
	})
}

// close ends everything and waits.
func (w *work) close() {
	w.end(errClosed)
	w.running.Wait()
}
