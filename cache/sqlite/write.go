package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postseal/postseal/cache"
)

// op is what one call wants written, all or nothing.
type op struct {
	ctx   context.Context
	apply func(context.Context, *database) error // inside a transaction
	bytes int
	done  chan error // has room for the answer: the asker may be gone
}

// Put implements cache.Store. When ctx ends first, the records may be written yet.
func (s *Store) Put(ctx context.Context, records ...cache.Record) error {
	rows := make([]row, len(records))
	bytes := 0
	for i, r := range records {
		if err := r.Check(); err != nil {
			return err
		}
		rows[i] = newRow(r)
		bytes += len(r.Key) + len(r.Value)
	}
	return s.submit(ctx, bytes, func(ctx context.Context, d *database) error {
		for _, w := range rows {
			if _, err := d.put.ExecContext(ctx, w.kind, w.key, w.expires, w.sum, w.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// Delete implements cache.Store. When ctx ends first, the records may be deleted yet.
func (s *Store) Delete(ctx context.Context, kind cache.Kind, keys ...string) error {
	w := newRow(cache.Record{Kind: kind})
	return s.submit(ctx, 0, func(ctx context.Context, d *database) error {
		for _, key := range keys {
			if _, err := d.del.ExecContext(ctx, w.kind, append([]byte{}, key...)); err != nil {
				return err
			}
		}
		return nil
	})
}

// submit hands work to the goroutine that writes, and waits for its commit.
func (s *Store) submit(ctx context.Context, bytes int, apply func(context.Context, *database) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return cache.ErrClosed
	}
	s.calls.Add(1)
	s.mu.Unlock()
	defer s.calls.Done()

	if err := ctx.Err(); err != nil {
		return err
	}
	if s.refusal != nil {
		return s.refusal
	}
	o := &op{ctx: ctx, apply: apply, bytes: bytes, done: make(chan error, 1)}
	select {
	case s.ops <- o:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the goroutine that writes, and that replaces a damaged database. It
// ends when Close has closed the queue and all that was in it is done.
func (s *Store) write() {
	for {
		select {
		case f := <-s.damage:
			s.repair(f.database, f.cause)
		case o, ok := <-s.ops:
			if !ok {
				s.leave()
				return
			}
			s.commit(s.batch(o))
		}
	}
}

// leave closes a database that a reader withdrew and nobody replaced.
func (s *Store) leave() {
	if s.withdrawn() {
		_ = (<-s.damage).database.close()
	}
}

// withdrawn tells whether a reader has withdrawn the database, and hands it over
// any moment now.
func (s *Store) withdrawn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db == nil && s.broken == nil
}

// batch takes along what has queued up meanwhile: one commit for all.
func (s *Store) batch(first *op) []*op {
	ops, bytes := []*op{first}, first.bytes
	for len(ops) < batchCalls && bytes < batchBytes {
		select {
		case o, ok := <-s.ops:
			if !ok {
				return ops
			}
			ops, bytes = append(ops, o), bytes+o.bytes
		default:
			return ops
		}
	}
	return ops
}

// commit writes ops and answers their askers.
func (s *Store) commit(ops []*op) {
	waiting := ops[:0]
	for _, o := range ops {
		if err := o.ctx.Err(); err != nil {
			o.done <- err
		} else {
			waiting = append(waiting, o)
		}
	}
	if len(waiting) == 0 {
		return
	}
	err := s.transact(waiting)
	if err != nil && len(waiting) > 1 && !damaged(err) {
		// One may be too much for a full disk and the others not.
		for _, o := range waiting {
			o.done <- s.transact([]*op{o})
		}
		return
	}
	for _, o := range waiting {
		o.done <- err
	}
}

// transact writes ops in one transaction, on a new file when the old one turns
// out to be damaged.
func (s *Store) transact(ops []*op) error {
	d, err := s.writableDatabase()
	if err == nil {
		err = d.transact(ops)
	}
	if err != nil && d != nil && damaged(err) {
		if s.withdraw(d) {
			s.repair(d, err)
		}
		if d, err = s.writableDatabase(); err == nil {
			err = d.transact(ops)
		}
	}
	err = explain(s.path, err)
	s.note(err)
	return err
}

func (d *database) transact(ops []*op) error {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	if _, err := d.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	var err error
	for _, o := range ops {
		if err = o.apply(ctx, d); err != nil {
			break
		}
	}
	if err == nil {
		_, err = d.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		// Some errors have rolled back already, and then this one says so.
		_, _ = d.conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	}
	return err
}

// writableDatabase returns a database to write to. Where the last attempt to open
// one failed, it tries again from time to time.
func (s *Store) writableDatabase() (*database, error) {
	if s.withdrawn() {
		f := <-s.damage
		s.repair(f.database, f.cause)
	}
	s.mu.Lock()
	d := s.db
	s.mu.Unlock()
	if d != nil && d.writer != nil {
		return d, nil
	}
	if time.Since(s.attempt) < retryAfter {
		return nil, s.obstacle
	}
	return s.reopen(d)
}

// obstruct keeps why the file cannot be written for now, and returns the error
// that callers get.
func (s *Store) obstruct(cause error) error {
	if !errors.Is(cause, cache.ErrReadOnly) && !errors.Is(cause, cache.ErrDamaged) {
		cause = fmt.Errorf("%w: %w", cache.ErrReadOnly, cause)
	}
	s.attempt, s.obstacle = time.Now(), cause
	return cause
}

// reopen opens the file for writing after that has failed before. old, if any, was
// opened for reading.
func (s *Store) reopen(old *database) (*database, error) {
	ctx, cancel := context.WithTimeout(context.Background(), salvageTime+queryTimeout)
	defer cancel()
	d, err := s.openForWriting(ctx)
	if err != nil {
		return nil, s.obstruct(explain(s.path, err))
	}
	s.set(d, nil)
	if old != nil {
		_ = old.close()
	}
	return d, nil
}
