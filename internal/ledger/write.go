package ledger

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/postseal/postseal/cache"
)

// Run writes what waits until ctx ends, and then once more.
func (l *Ledger) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return l.Flush(context.WithoutCancel(ctx))
		case <-l.some:
		}
		pause := writeEvery
		if l.failure.Load() != nil {
			pause = retryEvery
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause): // what comes meanwhile goes along
			_ = l.Flush(ctx)
		}
	}
}

// Flush returns when all that was told before is written, or why it cannot be.
func (l *Ledger) Flush(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	err := l.write(ctx)
	before := l.failure.Load()
	switch {
	case err == nil && before != nil:
		l.failure.Store(nil)
		l.log.Info("the ledger is written again")
	case err != nil && ctx.Err() == nil:
		l.failure.Store(&err)
		if before == nil {
			l.log.Error("the ledger cannot be written: answers go on, evidence waits in memory", "error", err)
		}
	}
	return err
}

// Err says why evidence is not kept on disk now, nil when it is.
func (l *Ledger) Err() error {
	if err := l.failure.Load(); err != nil {
		return *err
	}
	return l.store.Err()
}

// entry is one thing that waited: an event or a count.
type entry struct {
	name  name
	event *event
	count *Count
}

// write writes what waits, in batches. What could not be written waits on.
func (l *Ledger) write(ctx context.Context) error {
	all := l.take()
	for len(all) > 0 {
		n := min(len(all), writeBatch)
		if err := l.put(ctx, all[:n]); err != nil {
			l.giveBack(all)
			return err
		}
		all = all[n:]
	}
	return nil
}

// take empties the shards.
func (l *Ledger) take() []entry {
	var all []entry
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for n, e := range s.events {
			all = append(all, entry{name: n, event: &e})
		}
		for _, c := range s.counts {
			all = append(all, entry{count: &c})
		}
		s.reset()
		s.mu.Unlock()
	}
	l.waiting.Add(-int64(len(all)))
	return all
}

// giveBack lets entries wait again, below what was told meanwhile.
func (l *Ledger) giveBack(all []entry) {
	for _, e := range all {
		if e.event != nil {
			l.giveBackEvent(e.name, *e.event)
		} else {
			l.giveBackCount(*e.count)
		}
	}
}

func (l *Ledger) giveBackEvent(n name, older event) {
	s := l.shard(n.destination)
	s.mu.Lock()
	defer s.mu.Unlock()
	if newer, waits := s.events[n]; waits {
		s.events[n] = newer.over(older)
	} else if l.room() {
		s.events[n] = older
	}
}

func (l *Ledger) giveBackCount(older Count) {
	n := countName{older.Destination, older.Day}
	s := l.shard(n.destination)
	s.mu.Lock()
	defer s.mu.Unlock()
	if newer, waits := s.counts[n]; waits || l.room() {
		s.counts[n] = newer.plus(older)
	}
}

// put merges entries into the store, all or none.
func (l *Ledger) put(ctx context.Context, all []entry) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	records := make([]cache.Record, 0, len(all))
	for _, e := range all {
		more, err := l.merged(ctx, e)
		switch {
		case errors.Is(err, cache.ErrTooLarge):
			l.log.Warn("evidence is too large to be kept", "error", err)
		case err != nil:
			return err
		default:
			records = append(records, more...)
		}
	}
	return l.store.Put(ctx, records...)
}

// merged are the records that an entry makes of what is in the store.
func (l *Ledger) merged(ctx context.Context, e entry) ([]cache.Record, error) {
	if e.event != nil {
		return l.mergedDestination(ctx, e.name, *e.event)
	}
	key := countName{e.count.Destination, e.count.Day}.key()
	before, err := present[Count](ctx, l, kindCount, key)
	if err != nil {
		return nil, err
	}
	r, err := record(kindCount, key, before.plus(*e.count), e.count.Last)
	return []cache.Record{r}, err
}

func (l *Ledger) mergedDestination(ctx context.Context, n name, e event) ([]cache.Record, error) {
	before, err := present[Destination](ctx, l, kindDestination, n.key())
	if err != nil {
		return nil, err
	}
	if e.rule == nil && before.Rule.ID == "" {
		return nil, nil // of no destination under a rule
	}
	before.Name = n.destination
	now, change := before.with(e)
	used := latest(now.LastAsked, now.Changed)
	for _, h := range now.Hosts {
		used = latest(used, h.At)
	}
	r, err := record(kindDestination, n.key(), now, used)
	if err != nil || change == nil {
		return []cache.Record{r}, err
	}
	c, err := record(kindChange, n.key()+" "+strconv.FormatInt(e.at.UnixMilli(), 10), change, e.at)
	return []cache.Record{r, c}, err
}

// present reads a record that is about to be replaced. One that is not there, or that
// cannot be read, begins anew.
func present[T any](ctx context.Context, l *Ledger, kind cache.Kind, key string) (v T, err error) {
	r, err := l.store.Get(ctx, kind, key)
	if err == nil {
		v, err = read[T](r)
	}
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return v, nil
	case errors.Is(err, cache.ErrDamaged) && l.store.Err() == nil:
		l.log.Warn("a record of the ledger cannot be read and begins anew", "error", err)
		var none T
		return none, nil
	}
	return v, err
}
