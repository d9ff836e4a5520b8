package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
)

// execute runs SQL on a file that no store has open.
func execute(t *testing.T, path, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustPut(t testing.TB, s *sqlite.Store, records ...cache.Record) {
	t.Helper()
	if err := s.Put(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
}

func count(t testing.TB, s *sqlite.Store) (n int) {
	t.Helper()
	for _, err := range s.All(t.Context(), "policy") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestOpenCreatesPrivateFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "var", "lib", "odd ?#%&name=1", "postseal.db")
	s := open(t, path)
	defer s.Close()
	mustPut(t, s, record(1))
	for name, want := range map[string]fs.FileMode{
		filepath.Dir(path): 0o700, filepath.Dir(filepath.Dir(path)): 0o700,
		path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600, path + ".lock": 0o600,
	} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want mode %v", name, info.Mode(), err, want)
		}
	}
}

func TestOpenRefusesBadPaths(t *testing.T) {
	for _, path := range []string{"", "a\x00b"} {
		if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); err == nil {
			t.Errorf("Open(%q) succeeds", path)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(file, "postseal.db")}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open below a file = %v", err)
	}
}

func TestCCH09_SecondInstanceIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "postseal.db")
	first := open(t, path)
	mustPut(t, first, record(1))
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		_, err := sqlite.Open(t.Context(), sqlite.Config{Path: name})
		if !errors.Is(err, sqlite.ErrHeld) || !errors.Is(err, cache.ErrReadOnly) || err.Error() != fmt.Sprintf("another postseal (process %d) has %s: stop it, or give this one a [cache] path of its own", os.Getpid(), path) {
			t.Errorf("second Open = %v", err)
		}
	}
	mustPut(t, first, record(2))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, path)
	defer again.Close()
	if n := count(t, again); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
}

func TestCCH09_ReadOnlyBesideTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	daemon := open(t, path)
	defer daemon.Close()
	mustPut(t, daemon, record(1))
	s, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := count(t, s); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
	mustPut(t, daemon, record(2), record(3))
	if n := count(t, s); n != 3 {
		t.Errorf("%d records after a Put of the daemon, want 3", n)
	}
	if err := s.Put(t.Context(), record(4)); !errors.Is(err, cache.ErrReadOnly) {
		t.Errorf("Put = %v, want ErrReadOnly", err)
	}
	if err := s.Delete(t.Context(), "policy", record(1).Key); !errors.Is(err, cache.ErrReadOnly) {
		t.Errorf("Delete = %v, want ErrReadOnly", err)
	}
	if s.Err() != nil || daemon.Err() != nil {
		t.Errorf("Err() = %v and %v", s.Err(), daemon.Err())
	}
}

// Whatever a daemon left behind can be read, and nothing is created or changed.
func TestCCH09_ReadOnlyLeavesNoTrace(t *testing.T) {
	const records = 120
	killed, closed := stored(t, records, true), stored(t, records, false)
	for name, files := range map[string]fileSet{
		"closed": closed, "killed": killed, "log without index": killed.with("-shm", nil), "log empty": closed.with("-wal", []byte{}),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "postseal.db")
			files.write(t, path)
			s, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if n := count(t, s); n != records {
				t.Errorf("%d records, want %d", n, records)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != len(files) {
				t.Errorf("%v (%v), want %d files", entries, err, len(files))
			}
			for ending, content := range files {
				if got, err := os.ReadFile(path + ending); ending != "-shm" && (err != nil || string(got) != string(content)) {
					t.Errorf("%q was changed: %v", ending, err)
				}
			}
		})
	}
}

func TestCCH09_ReadOnlyWithoutAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "postseal.db")
	_, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("OpenReadOnly = %v, want fs.ErrNotExist and the path", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("created %v", entries)
	}
}

func TestCCH02_ReadOnlyLeavesDamageAlone(t *testing.T) {
	whole := stored(t, 500, false)[""]
	path := filepath.Join(t.TempDir(), "postseal.db")
	fileSet{"": whole[:len(whole)/2/4096*4096]}.write(t, path)
	s, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path})
	if err == nil {
		for _, e := range s.All(t.Context(), "policy") {
			err = e
		}
		s.Close()
	}
	if !errors.Is(err, cache.ErrDamaged) || !strings.Contains(err.Error(), path) {
		t.Errorf("error of a damaged file = %v, want ErrDamaged and the path", err)
	}
	if found, _ := filepath.Glob(path + "*"); len(found) != 1 {
		t.Errorf("files: %q", found)
	}
}

func TestCCH09_NewerVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	s := open(t, path)
	mustPut(t, s, record(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, path, "PRAGMA user_version = 99")
	before := readFiles(t, path)
	for name, open := range map[string]func() (*sqlite.Store, error){
		"Open":         func() (*sqlite.Store, error) { return sqlite.Open(t.Context(), sqlite.Config{Path: path}) },
		"OpenReadOnly": func() (*sqlite.Store, error) { return sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path}) },
	} {
		_, err := open()
		if !errors.Is(err, sqlite.ErrVersion) || !strings.Contains(err.Error(), "version 99") || !strings.Contains(err.Error(), "up to 1") {
			t.Errorf("%s = %v, want ErrVersion and both versions", name, err)
		}
	}
	if after := readFiles(t, path); string(after[""]) != string(before[""]) {
		t.Error("the file was changed")
	}
	execute(t, path, "PRAGMA user_version = 1") // the newer version goes back
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := count(t, s); n != 1 {
		t.Errorf("%d records", n)
	}
}

func TestForeignDatabaseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	execute(t, path, "CREATE TABLE mail (body TEXT)")
	before := readFiles(t, path)
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); !errors.Is(err, sqlite.ErrForeign) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open = %v, want ErrForeign", err)
	}
	if after := readFiles(t, path); len(after[""]) != len(before[""]) {
		t.Error("the file was changed")
	}
	if aside, _ := filepath.Glob(path + ".damaged*"); len(aside) != 0 {
		t.Errorf("moved aside: %q", aside)
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	s := open(t, path) // version 1
	mustPut(t, s, record(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	steps := append(sqlite.Migrations(), "CREATE TABLE second (x)", "INSERT INTO second VALUES (3)")
	for range 2 { // the second time there is nothing to do
		if err := sqlite.Migrate(t.Context(), path, steps...); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, path, "UPDATE second SET x = 1 / (SELECT count(*) = 1 FROM second)")
	broken := append(steps, "CREATE TABLE fourth (x)", "CREATE TABLE second (x)")
	if err := sqlite.Migrate(t.Context(), path, broken...); err == nil || !strings.Contains(err.Error(), "version 4 to 5") {
		t.Errorf("a step that fails: %v", err)
	}
	// All or nothing: the good step is undone.
	if err := sqlite.Migrate(t.Context(), path, append(steps, "CREATE TABLE fourth (x)")...); err != nil {
		t.Error(err)
	}
	if err := sqlite.Migrate(t.Context(), path, steps...); !errors.Is(err, sqlite.ErrVersion) {
		t.Errorf("back to an older version: %v, want ErrVersion", err)
	}
	fresh := filepath.Join(t.TempDir(), "fresh.db") // version 0: an empty file
	if err := sqlite.Migrate(t.Context(), fresh, steps...); err != nil {
		t.Error(err)
	}
}

func TestCCH02_OneRecordDamaged(t *testing.T) {
	for name, query := range map[string]string{
		"value":   "UPDATE records SET value = x'00' WHERE id = 2",
		"expires": "UPDATE records SET expires = expires + 86400 WHERE id = 2",
		"never":   "UPDATE records SET expires = 0 WHERE id = 2",
		"sum":     "UPDATE records SET sum = sum + 1 WHERE id = 2",
		"type":    "UPDATE records SET expires = 'soon' WHERE id = 2",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "postseal.db")
			s := open(t, path)
			mustPut(t, s, record(1), record(2), record(3))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			execute(t, path, query)
			var j journal
			s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: j.logger()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if n := count(t, s); n != 2 || !strings.Contains(j.String(), "key=d2.test") {
				t.Errorf("All yields %d records, want 2; log: %s", n, j.String())
			}
			if _, err := s.Get(t.Context(), "policy", "d2.test"); !errors.Is(err, cache.ErrDamaged) || !strings.Contains(err.Error(), "d2.test") {
				t.Errorf("Get = %v, want ErrDamaged", err)
			}
			if _, err := s.Get(t.Context(), "policy", "d3.test"); err != nil {
				t.Errorf("the next record: %v", err)
			}
			if s.Err() != nil {
				t.Errorf("Err() = %v", s.Err())
			}
			mustPut(t, s, record(2))
			if n := count(t, s); n != 3 {
				t.Errorf("%d records after it was fetched again", n)
			}
		})
	}
}

// An index that lost an entry is something that SQLite does not notice by itself.
func TestCCH02_CheckFindsWhatNobodyAskedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	s := open(t, path)
	mustPut(t, s, record(1), record(2), record(3))
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check of a good file: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, path, "DROP INDEX records_key; CREATE UNIQUE INDEX records_key ON records (kind, key) WHERE id <> 2")
	execute(t, path, `PRAGMA writable_schema = ON;
		UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX records_key ON records (kind, key)' WHERE name = 'records_key'`)
	for _, find := range []string{"Check", "All"} {
		copied := filepath.Join(t.TempDir(), "copied.db")
		readFiles(t, path).write(t, copied)
		var j journal
		s, err := sqlite.Open(t.Context(), sqlite.Config{Path: copied, Logger: j.logger()})
		if err != nil {
			t.Fatal(err)
		}
		if find == "Check" {
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("Check does not repair: %v", err)
			}
		} else if n := count(t, s); n != 3 {
			t.Errorf("All yields %d records", n)
		}
		if _, err := s.Get(t.Context(), "policy", "d2.test"); err != nil || !strings.Contains(j.String(), "moved aside") {
			t.Errorf("%s: Get = %v; log: %s", find, err, j.String())
		}
		s.Close()
	}
}

// A directory in place of the lock file makes writing impossible, for root too.
func TestReadOnlyUntilTheCauseIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	s := open(t, path)
	mustPut(t, s, record(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path+".lock"), os.Mkdir(path+".lock", 0o700)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var j journal
		s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: j.logger()})
		if err != nil {
			t.Fatalf("a file that can be read: %v", err)
		}
		defer s.Close()
		if n := count(t, s); n != 1 {
			t.Errorf("%d records, want 1", n)
		}
		if s.Err() == nil || !strings.Contains(j.String(), "level=ERROR") {
			t.Errorf("Err() = %v; log: %s", s.Err(), j.String())
		}
		if err := s.Put(t.Context(), record(2)); !errors.Is(err, cache.ErrReadOnly) || !strings.Contains(err.Error(), path) {
			t.Errorf("Put = %v, want ErrReadOnly", err)
		}
		first := s.Err().Error()
		for range 5 {
			time.Sleep(time.Minute)
			_ = s.Put(t.Context(), record(2))
		}
		if s.Err().Error() != first || strings.Count(j.String(), "level=ERROR") != 1 {
			t.Errorf("Err() = %v, at first %s; log: %s", s.Err(), first, j.String())
		}
		if err := os.Remove(path + ".lock"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := s.Put(t.Context(), record(2)); err != nil || s.Err() != nil {
			t.Errorf("Put after the cause is gone = %v, Err() = %v", err, s.Err())
		}
		if n := count(t, s); n != 2 {
			t.Errorf("%d records, want 2", n)
		}
	})
}

func TestPurgeRemovesTheExpired(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	s := open(t, path)
	defer s.Close()
	var old []cache.Record
	for i := range 1300 {
		r := record(i)
		r.Expires = time.Now().Add(-time.Minute)
		old = append(old, r)
	}
	mustPut(t, s, old...)
	mustPut(t, s, record(5000), cache.Record{Kind: "policy", Key: "never.test", Value: []byte("x")})
	if err := sqlite.Purge(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 100_000 {
		t.Errorf("%d bytes are left of %d records: %v", info.Size(), len(old), err)
	}
	if n, err := sqlite.CountSalvageable(t.Context(), path); n != 2 || err != nil {
		t.Errorf("%d records, %v: what was deleted would come back after damage", n, err)
	}
}

func TestPurgeHourly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path)
		defer s.Close()
		mustPut(t, s, cache.Record{Kind: "policy", Key: "soon.test", Value: []byte("x"), Expires: time.Now().Add(time.Minute)})
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if n, err := sqlite.CountRows(t.Context(), s); n != 0 || err != nil {
			t.Errorf("%d rows are left, %v", n, err)
		}
	})
}
