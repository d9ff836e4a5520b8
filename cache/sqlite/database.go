package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/postseal/postseal/cache"
)

// database is one opening of the file: connections and prepared statements. A
// Store replaces it when the file turns out to be damaged.
type database struct {
	users  sync.WaitGroup  // calls that read
	life   context.Context // ends when the database is closed: they are not waited for
	retire context.CancelFunc

	reader   *sql.DB
	get, all *sql.Stmt
	count    *sql.Stmt
	expired  *sql.Stmt

	writer           *sql.DB // nil: read-only
	conn             *sql.Conn
	put, del, remove *sql.Stmt

	private string // a folder of copies to remove in the end
}

const (
	sqlGet = "SELECT id, key, expires, sum, value FROM records WHERE kind = ? AND key = ?"
	// In the order in which the table is stored, and without an index: what an
	// index has lost is found all the same.
	sqlAll = "SELECT id, key, expires, sum, value FROM records NOT INDEXED WHERE id > ? AND id <= ? AND kind = ? ORDER BY id LIMIT ?"
	// Counting looks at the form of pages only, and takes 1 µs per page. Damage
	// that SQLite does not notice by itself mostly makes the counts differ.
	sqlCount = `SELECT (SELECT coalesce(max(id), 0) FROM records),
		(SELECT count(*) FROM records NOT INDEXED), (SELECT count(*) FROM records INDEXED BY records_key)`
	// An update keeps the row where it is: the index is not touched.
	sqlPut = `INSERT INTO records (kind, key, expires, sum, value) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET expires = excluded.expires, sum = excluded.sum, value = excluded.value`
	sqlDelete  = "DELETE FROM records WHERE kind = ? AND key = ?"
	sqlExpired = "SELECT id FROM records WHERE id > ? AND expires <> 0 AND expires <= ? ORDER BY id LIMIT ?"
	sqlRemove  = "DELETE FROM records WHERE id = ? AND expires <> 0 AND expires <= ?"
	sqlVacuum  = "PRAGMA incremental_vacuum(2000)" // at most this many pages, 8 MB
	sqlCheck   = "PRAGMA integrity_check(1)"       // everything, and no more than one complaint
	// Looks at the schema, the table and the end of the file, whatever its size.
	sqlProbe = "SELECT count(*) FROM (SELECT length(key) FROM records ORDER BY id DESC LIMIT 1)"
)

func newDatabase() *database {
	d := &database{}
	d.life, d.retire = context.WithCancel(context.Background())
	return d
}

// dsn names the file to the driver. SQLite's own parameters work in a URI only,
// and there a path may have any characters.
func dsn(path string, query url.Values) string {
	query.Set("_busy_timeout", strconv.FormatInt(busyTimeout.Milliseconds(), 10))
	query.Set("_defensive", "1")
	query.Set("_dqs", "0")
	query.Set("_error_rc", "1")
	u := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	return u.String()
}

// openDatabase opens the file for reading and writing, creates it when it is not
// there, and brings its schema up to date.
func openDatabase(ctx context.Context, path string) (*database, error) {
	if err := create(path); err != nil {
		return nil, err
	}
	if n := size(path); n%defaultPage != 0 && size(path+"-wal") <= 0 {
		// SQLite writes whole pages, and takes a part of one for a page. With a
		// log it was interrupted on the way, and repairs that.
		return nil, fmt.Errorf("%w: %s: %d bytes are no whole number of pages", cache.ErrDamaged, path, n)
	}
	writer, err := sql.Open("sqlite", dsn(path, url.Values{
		"mode": {"rw"},
		"_pragma": {
			"synchronous(full)", // durable at every commit
			"secure_delete(on)", // or salvage brings back what was deleted
			"cell_size_check(on)", "trusted_schema(off)",
			fmt.Sprintf("journal_size_limit(%d)", walLimit),
		},
	}))
	if err != nil {
		return nil, err
	}
	d := newDatabase()
	d.writer = writer
	if err := d.openWriter(ctx, path); err != nil {
		if c := code(err); c == sqlite3.SQLITE_READONLY && writable(path) || c == sqlite3.SQLITE_ERROR && !errors.Is(err, errMigration) {
			// The file itself says so: its header asks for another SQLite.
			err = fmt.Errorf("%w: %s: header: %w", cache.ErrDamaged, path, err)
		}
		return nil, errors.Join(err, d.close())
	}
	if err := d.openReaders(ctx, path, url.Values{"mode": {"ro"}}); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// create makes an empty file that only its owner can read, before SQLite would
// make one for all. SQLite gives the files beside it the same mode.
func create(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return errors.Join(file.Close(), syncDir(path))
}

func (d *database) openWriter(ctx context.Context, path string) (err error) {
	d.writer.SetMaxOpenConns(1)
	if d.conn, err = d.writer.Conn(ctx); err != nil {
		return err
	}
	// First of all: a file that is refused is left as it is.
	version, err := checkHeader(ctx, d.conn, path, len(migrations))
	if err != nil {
		return err
	}
	if version == 0 {
		// Or a file never shrinks. Only a file without tables takes it.
		if _, err := d.conn.ExecContext(ctx, "PRAGMA auto_vacuum = incremental"); err != nil {
			return err
		}
	}
	if _, err := d.conn.ExecContext(ctx, "PRAGMA journal_mode = wal"); err != nil {
		return err
	}
	if err := migrate(ctx, d.conn, path, migrations); err != nil {
		return err
	}
	var n int
	if err := d.conn.QueryRowContext(ctx, sqlProbe).Scan(&n); err != nil {
		return schemaError(path, err)
	}
	d.put, err = d.conn.PrepareContext(ctx, sqlPut)
	if err == nil {
		d.del, err = d.conn.PrepareContext(ctx, sqlDelete)
	}
	if err == nil {
		d.remove, err = d.conn.PrepareContext(ctx, sqlRemove)
	}
	return schemaError(path, err)
}

func (d *database) openReaders(ctx context.Context, path string, query url.Values) (err error) {
	if d.reader, err = sql.Open("sqlite", dsn(path, query)); err != nil {
		return err
	}
	d.reader.SetMaxOpenConns(readers)
	d.reader.SetMaxIdleConns(readers)
	d.get, err = d.reader.PrepareContext(ctx, sqlGet)
	if err == nil {
		d.all, err = d.reader.PrepareContext(ctx, sqlAll)
	}
	if err == nil {
		d.count, err = d.reader.PrepareContext(ctx, sqlCount)
	}
	if err == nil {
		d.expired, err = d.reader.PrepareContext(ctx, sqlExpired)
	}
	return schemaError(path, err)
}

// schemaError tells damage from other trouble: our own statements fail in no
// other way than on tables that are not ours any more.
func schemaError(path string, err error) error {
	if code(err) == sqlite3.SQLITE_ERROR {
		return fmt.Errorf("%w: %s: schema: %w", cache.ErrDamaged, path, err)
	}
	return err
}

// close closes the readers first: the last connection, the writer's, copies the
// write-ahead log into the file and removes it.
func (d *database) close() error {
	d.retire()
	d.users.Wait()
	var errs []error
	for _, s := range []*sql.Stmt{d.get, d.all, d.count, d.expired, d.put, d.del, d.remove} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if d.reader != nil {
		errs = append(errs, d.reader.Close())
	}
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
	}
	if d.writer != nil {
		errs = append(errs, d.writer.Close())
	}
	if d.private != "" {
		errs = append(errs, os.RemoveAll(d.private))
	}
	return errors.Join(errs...)
}

// syncDir makes a change of names in path's directory durable.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
