package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"time"
)

// CountSalvageable returns how many records can be read in the pages of a file.
func CountSalvageable(ctx context.Context, path string) (n int, err error) {
	err = readPages(ctx, path, func(row) error { n++; return nil })
	return n, err
}

// Migrate brings the file at path up to date with steps of the test's own.
func Migrate(ctx context.Context, path string, steps ...string) error {
	db, err := sql.Open("sqlite", dsn(path, url.Values{}))
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	return errors.Join(migrate(ctx, conn, path, steps), conn.Close(), db.Close())
}

// Migrations returns the steps that are released.
func Migrations() []string { return migrations }

// CountRows returns how many rows the table has, expired ones counted.
func CountRows(ctx context.Context, s *Store) (n int, err error) {
	err = s.read(ctx, func(ctx context.Context, d *database) error {
		return d.reader.QueryRowContext(ctx, "SELECT count(*) FROM records").Scan(&n)
	})
	return n, err
}

// Purge removes what has expired, as the store does every hour.
func Purge(ctx context.Context, s *Store) error {
	_, err := s.purge(ctx, time.Now())
	return err
}
