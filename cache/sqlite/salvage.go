package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/postseal/postseal/cache"
)

// salvaged is what came out of a damaged file.
type salvaged struct {
	records  int
	complete bool // all pages were read, in time and without an error of the disk
}

// salvageBatch is how many rows share a commit. Few: a crash starts over anyway.
const salvageBatch = 5000

// sqlSalvage keeps, of two rows for one key, the one that expires later: pages of
// different moments can be left side by side, and a refresh extends a policy.
// Ids stay, so that an iteration under way goes on where it was.
const sqlSalvage = `INSERT INTO records (id, kind, key, expires, sum, value) VALUES (?, ?, ?, ?, ?, ?)
	ON CONFLICT (kind, key) DO UPDATE SET expires = excluded.expires, sum = excluded.sum, value = excluded.value
	WHERE records.expires <> 0 AND (excluded.expires = 0 OR excluded.expires > records.expires)`

// maxID is the largest id taken over. Behind a larger one, which only damage can
// have made, there might be no room for new ones.
const maxID = 1 << 53

// salvageInto makes a database at fresh with all records of the damaged one at
// path that can be found within salvageTime. An error is one of fresh.
func salvageInto(ctx context.Context, fresh, path string) (result salvaged, err error) {
	d, err := openDatabase(ctx, fresh)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	insert, err := d.conn.PrepareContext(ctx, sqlSalvage)
	if err != nil {
		return result, err
	}
	defer insert.Close()

	limited, cancel := context.WithTimeout(ctx, salvageTime)
	defer cancel()
	batch := make([]row, 0, salvageBatch)
	write := func() error {
		err := d.transact([]*op{{apply: func(ctx context.Context, _ *database) error {
			return insertSalvaged(ctx, insert, batch)
		}}})
		result.records, batch = result.records+len(batch), batch[:0]
		return err
	}
	bytes := 0
	readErr := readPages(limited, path, func(w row) error {
		batch, bytes = append(batch, w), bytes+len(w.value)
		if len(batch) < salvageBatch && bytes < batchBytes {
			return nil
		}
		bytes = 0
		err = write()
		return err
	})
	if err == nil {
		err = write()
	}
	result.complete = readErr == nil
	return result, err
}

func insertSalvaged(ctx context.Context, insert *sql.Stmt, rows []row) error {
	for _, w := range rows {
		id := sql.NullInt64{Int64: w.id, Valid: w.id > 0 && w.id < maxID}
		_, err := insert.ExecContext(ctx, id, w.kind, w.key, w.expires, w.sum, w.value)
		if code(err) == sqlite3.SQLITE_CONSTRAINT {
			// Two keys with one id: the page of one is of another time.
			_, err = insert.ExecContext(ctx, nil, w.kind, w.key, w.expires, w.sum, w.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readPages yields every intact record in any page of the file that has the form
// of a leaf of our table, as of the last commit in the write-ahead log. The rest
// of the file's structure is not believed.
func readPages(ctx context.Context, path string, yield func(row) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	img, err := newImage(file, path+"-wal")
	if err != nil {
		return err
	}
	defer img.close()
	var failed error
	for n := uint32(1); n <= img.pages; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		page, err := img.page(n)
		if err != nil {
			failed = err // one sector; there are others
			continue
		}
		for _, cell := range leafCells(page, n) {
			w, ok := img.row(page, cell)
			if !ok || len(w.key) > cache.MaxKey || len(w.value) > cache.MaxValue || !w.intact() {
				continue
			}
			if err := yield(w); err != nil {
				return err
			}
		}
	}
	return failed
}
