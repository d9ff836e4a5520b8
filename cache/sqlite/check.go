package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/postseal/postseal/cache"
)

// Check reads the whole file and compares its table with its index, in the
// background: calls go on meanwhile. Damage is repaired as damage found by a query
// is, and then Check checks again. A Store does so itself every day.
func (s *Store) Check(ctx context.Context) error {
	return s.readWithin(ctx, checkTimeout, func(ctx context.Context, d *database) error {
		var complaint string
		if err := d.reader.QueryRowContext(ctx, sqlCheck).Scan(&complaint); err != nil {
			return err
		}
		if complaint != "ok" {
			return fmt.Errorf("%w: %s: %s", cache.ErrDamaged, s.path, complaint)
		}
		return nil
	})
}

// checkDaily checks until the life of the store ends.
func (s *Store) checkDaily(life context.Context) {
	timer := time.NewTimer(checkFirst)
	defer timer.Stop()
	for {
		select {
		case <-life.Done():
			return
		case <-timer.C:
		}
		if err := s.Check(life); err != nil && life.Err() == nil {
			s.log.Warn("the "+s.name+" file could not be checked", "error", err)
		}
		timer.Reset(checkEvery)
	}
}
