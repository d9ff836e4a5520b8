package sqlite

import (
	"context"
	"time"
)

// purge removes what has expired, and gives pages that became free back to the
// file system.
func (s *Store) purge(ctx context.Context, now time.Time) (removed int, err error) {
	for last := int64(0); ; {
		ids, err := s.expired(ctx, last, now)
		if err != nil || len(ids) == 0 {
			return removed, err
		}
		err = s.submit(ctx, 0, func(ctx context.Context, d *database) error {
			for _, id := range ids {
				// A record that was replaced meanwhile stays.
				if _, err := d.remove.ExecContext(ctx, id, now.Unix()); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			err = s.submit(ctx, 0, func(ctx context.Context, d *database) error {
				_, err := d.conn.ExecContext(ctx, sqlVacuum)
				return err
			})
		}
		if err != nil {
			return removed, err
		}
		removed, last = removed+len(ids), ids[len(ids)-1]
	}
}

func (s *Store) expired(ctx context.Context, after int64, now time.Time) (ids []int64, err error) {
	err = s.read(ctx, func(ctx context.Context, d *database) error {
		ids = ids[:0]
		rows, err := d.expired.QueryContext(ctx, after, now.Unix(), purgeRows)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return rows.Err()
	})
	return ids, err
}

// purgeHourly removes what has expired until the life of the store ends. An hour
// in which the clock was set is left out: a clock that is years ahead for a
// while must not cost any policies (STS-097). The first removal is an hour after
// the start, when a machine without a battery has learned the time.
func (s *Store) purgeHourly(life context.Context) {
	ticker := time.NewTicker(purgeEvery)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-life.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		// Round takes the monotonic clock away, and Sub compares wall clocks.
		if wall, passed := now.Round(0).Sub(last.Round(0)), now.Sub(last); !plausible(wall, passed) {
			s.log.Warn("the clock was set, expired records of the "+s.name+" are kept for now", "by", wall-passed)
		} else if removed, err := s.purge(life, now); err != nil && life.Err() == nil {
			s.log.Warn("expired records could not be removed from the "+s.name, "removed", removed, "error", err)
		} else if removed > 0 {
			s.log.Debug("expired records were removed from the "+s.name, "removed", removed)
		}
		last = now
	}
}

// plausible tells whether a wall clock may have advanced by wall while that time
// passed.
func plausible(wall, passed time.Duration) bool {
	return (wall - passed).Abs() <= clockSlack
}
