package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/postseal/postseal/cache"
)

// Get implements cache.Store.
func (s *Store) Get(ctx context.Context, kind cache.Kind, key string) (cache.Record, error) {
	w := newRow(cache.Record{Kind: kind, Key: key})
	err := s.read(ctx, func(ctx context.Context, d *database) error {
		return w.scan(d.get.QueryRowContext(ctx, w.kind, w.key).Scan)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && w.intact() && w.expired(time.Now()):
		return cache.Record{}, fmt.Errorf("%w: %s %q", cache.ErrNotFound, kind, key)
	case err != nil:
		return cache.Record{}, err
	case !w.intact():
		s.logMismatch(w)
		return cache.Record{}, fmt.Errorf("%w: %s: %s %q: checksum does not match", cache.ErrDamaged, s.path, kind, key)
	}
	return w.record(), nil
}

func (s *Store) logMismatch(w row) {
	s.log.Error("a record of the "+s.name+" is damaged and ignored", "kind", string(w.kind), "key", string(w.key))
}

// All implements cache.Store. It reads in chunks and holds nothing while the
// caller has a record: neither a connection nor an old state of the file, which
// would make the write-ahead log grow.
//
// A record keeps its id as long as it is there, and ids are never used again. So
// what is there all the while is seen once; what is put after the beginning, also
// again after a Delete, has an id beyond the last and is not seen.
func (s *Store) All(ctx context.Context, kind cache.Kind) iter.Seq2[cache.Record, error] {
	return func(yield func(cache.Record, error) bool) {
		w := newRow(cache.Record{Kind: kind})
		last, err := s.last(ctx)
		for more := err == nil; more; {
			var rows []row
			if rows, more, err = s.chunk(ctx, w, last); err != nil {
				break
			}
			for _, w = range rows {
				// Between two records much may happen, with a slow caller.
				if err = s.goesOn(ctx); err != nil {
					more = false
					break
				}
				if w.readable(s, time.Now()) && !yield(w.record(), nil) {
					return
				}
			}
		}
		if err != nil {
			yield(cache.Record{}, err)
		}
	}
}

// last returns the largest id, after a look whether the table and its index
// agree, lest an iteration leaves out many records unnoticed.
func (s *Store) last(ctx context.Context) (last int64, err error) {
	err = s.read(ctx, func(ctx context.Context, d *database) error {
		var table, index int64
		if err := d.count.QueryRowContext(ctx).Scan(&last, &table, &index); err != nil {
			return err
		}
		if table == index {
			return nil
		}
		err := fmt.Errorf("%w: %s: %d records in the table, %d in its index", cache.ErrDamaged, s.path, table, index)
		if s.refusal != nil { // nothing will be repaired: some records are better than none
			s.log.Error("the "+s.name+" file is damaged, records may be missing", "error", err)
			return nil
		}
		return err
	})
	return last, err
}

// readable tells whether All yields w, and the log if it should have.
func (w row) readable(s *Store, now time.Time) bool {
	if !w.intact() {
		s.logMismatch(w)
		return false
	}
	return !w.expired(now)
}

// goesOn tells an iteration why it must end.
func (s *Store) goesOn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return cache.ErrClosed
	}
	return nil
}

// chunk reads some rows of from's kind behind from up to the id last, and tells
// whether there may be more.
func (s *Store) chunk(ctx context.Context, from row, last int64) (found []row, more bool, err error) {
	err = s.read(ctx, func(ctx context.Context, d *database) error {
		found, more = found[:0], false
		rows, err := d.all.QueryContext(ctx, from.id, last, from.kind, chunkRows)
		if err != nil {
			return err
		}
		defer rows.Close()
		bytes := 0
		for rows.Next() {
			w := row{kind: from.kind}
			if err := w.scan(rows.Scan); err != nil {
				return err
			}
			found, bytes = append(found, w), bytes+len(w.value)
			if bytes >= chunkBytes {
				more = true
				return nil
			}
		}
		more = len(found) == chunkRows
		return rows.Err()
	})
	return found, more, err
}

// read runs a query, and once more when the file turned out to be damaged, or was
// found to be by another, and was replaced.
func (s *Store) read(ctx context.Context, query func(context.Context, *database) error) error {
	return s.readWithin(ctx, queryTimeout, query)
}

func (s *Store) readWithin(ctx context.Context, timeout time.Duration, query func(context.Context, *database) error) error {
	err, replaced := s.readOnce(ctx, timeout, query)
	if replaced {
		err, _ = s.readOnce(ctx, timeout, query)
	}
	return err
}

func (s *Store) readOnce(ctx context.Context, timeout time.Duration, query func(context.Context, *database) error) (err error, replaced bool) {
	d, err := s.use(ctx)
	if err != nil {
		return err, false
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	forget := context.AfterFunc(d.life, cancel)
	err = patiently(limited, func() error { return query(limited, d) })
	forget()
	cancel()
	retired := d.life.Err() != nil
	d.users.Done()
	switch {
	case ctx.Err() != nil:
		return ctx.Err(), false
	case err == nil || errors.Is(err, sql.ErrNoRows):
		return err, false
	case retired: // whatever the error, it is about files that are gone
		return explain(s.path, err), true
	case damaged(err):
		if s.refusal == nil && s.withdraw(d) {
			s.damage <- found{d, err} // has room: only one can withdraw
		}
		return explain(s.path, err), s.refusal == nil
	}
	err = explain(s.path, err)
	s.note(err)
	return err, false
}
