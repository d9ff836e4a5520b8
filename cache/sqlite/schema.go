package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/postseal/postseal/cache"
)

// applicationID marks the file as ours, for file(1) too: "psea".
const applicationID = 0x70736561

// migrations lead from each version of the schema to the next: the first from an
// empty file to version 1. PRAGMA user_version counts those that were done. A
// step that was ever released is never changed.
var migrations = []string{
	// BLOB: keys are bytes, compared as bytes. expires stands before value, so
	// that looking for expired records does not read values. AUTOINCREMENT: an
	// id is never used again, which All relies on.
	`CREATE TABLE records (
		id      INTEGER PRIMARY KEY AUTOINCREMENT,
		kind    BLOB NOT NULL,
		key     BLOB NOT NULL,
		expires INTEGER NOT NULL,
		sum     INTEGER NOT NULL,
		value   BLOB NOT NULL
	);
	CREATE UNIQUE INDEX records_key ON records (kind, key)`,
}

// errMigration: a step failed, which is no damage of the file.
var errMigration = errors.New("schema")

// migrate brings the file to the newest of steps, all or nothing. It also writes,
// always, so that a disk that cannot be written is found now.
func migrate(ctx context.Context, conn *sql.Conn, path string, steps []string) error {
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := migrateInside(ctx, conn, path, steps)
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = conn.ExecContext(ctx, "ROLLBACK")
	}
	return err
}

func migrateInside(ctx context.Context, conn *sql.Conn, path string, steps []string) error {
	version, err := checkHeader(ctx, conn, path, len(steps))
	if err != nil {
		return err
	}
	for n, step := range steps[version:] {
		if _, err := conn.ExecContext(ctx, step); err != nil {
			if version == 0 && code(err) == sqlite3.SQLITE_ERROR {
				// Tables without the version that they came with.
				return fmt.Errorf("%w: %s: schema of version %d: %w", cache.ErrDamaged, path, version, err)
			}
			return fmt.Errorf("%w from version %d to %d: %w", errMigration, version+n, version+n+1, err)
		}
	}
	_, err = conn.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(steps)))
	return err
}

// checkHeader returns the version of the file's schema, and refuses files of
// others and of later versions.
func checkHeader(ctx context.Context, conn *sql.Conn, path string, newest int) (version int, err error) {
	var id, tables, ours int
	err = errors.Join(
		conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version),
		conn.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id),
		conn.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(name = 'records'), 0) FROM sqlite_schema WHERE type = 'table'").Scan(&tables, &ours),
	)
	switch {
	case err != nil:
		return 0, err
	case id != applicationID && tables > 0 && ours == 0:
		return 0, fmt.Errorf("%w: %s: a database with %d tables and application id %#x: correct the path", ErrForeign, path, tables, id)
	case version > newest:
		return 0, fmt.Errorf("%w: %s has version %d, this postseal knows up to %d: run the newer one, or move the file away",
			ErrVersion, path, version, newest)
	case version < 0 || version > 0 && ours == 0:
		return 0, fmt.Errorf("%w: %s: version %d without its table", cache.ErrDamaged, path, version)
	}
	return version, nil
}
