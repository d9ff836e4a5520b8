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
		return d.get.QueryRowContext(ctx, w.kind, w.key).Scan(&w.expires, &w.sum, &w.value)
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
	s.log.Error("a record of the cache is damaged and ignored", "kind", string(w.kind), "key", string(w.key))
}

// All implements cache.Store. It reads in chunks, in the order of keys, and holds
// nothing while the caller has a record: neither a connection nor an old state of
// the file, which would make the write-ahead log grow.
func (s *Store) All(ctx context.Context, kind cache.Kind) iter.Seq2[cache.Record, error] {
	return func(yield func(cache.Record, error) bool) {
		from := newRow(cache.Record{Kind: kind})
		for {
			rows, more, err := s.chunk(ctx, from)
			if err != nil {
				yield(cache.Record{}, err)
				return
			}
			for _, w := range rows {
				if !w.intact() {
					s.logMismatch(w)
					continue
				}
				if w.expired(time.Now()) {
					continue
				}
				// Between two records much may happen, with a slow caller.
				if err := s.goesOn(ctx); err != nil {
					yield(cache.Record{}, err)
					return
				}
				if !yield(w.record(), nil) {
					return
				}
			}
			if !more {
				return
			}
			// The next key in the order of bytes.
			from.key = append(rows[len(rows)-1].key, 0)
		}
	}
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

// chunk reads some rows of from's kind from its key on, and tells whether there
// may be more.
func (s *Store) chunk(ctx context.Context, from row) (found []row, more bool, err error) {
	err = s.read(ctx, func(ctx context.Context, d *database) error {
		found, more = found[:0], false
		rows, err := d.all.QueryContext(ctx, from.kind, from.key, chunkRows)
		if err != nil {
			return err
		}
		defer rows.Close()
		bytes := 0
		for rows.Next() {
			w := row{kind: from.kind}
			if err := rows.Scan(&w.key, &w.expires, &w.sum, &w.value); err != nil {
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

// read runs a query, and once more when the file turned out to be damaged and was
// replaced.
func (s *Store) read(ctx context.Context, query func(context.Context, *database) error) error {
	err := s.readOnce(ctx, query)
	if err != nil && damaged(err) && s.refusal == nil {
		err = s.readOnce(ctx, query)
	}
	return err
}

func (s *Store) readOnce(ctx context.Context, query func(context.Context, *database) error) error {
	d, err := s.use(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, queryTimeout)
	err = query(limited, d)
	cancel()
	d.users.Done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if damaged(err) && s.refusal == nil && s.withdraw(d) {
		s.damage <- d // has room: only one can withdraw
	}
	err = explain(s.path, err)
	if !damaged(err) {
		s.note(err)
	}
	return err
}
