package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
)

// journal is a log that tests can read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func TestCCH02_DamagedFileIsKeptAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	garbage := []byte(strings.Repeat("garbage ", 1000))
	for i := range 5 {
		fileSet{"": garbage, "-wal": garbage, "-shm": garbage}.write(t, path)
		var j journal
		s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: j.logger()})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(j.String(), "level=ERROR") || !strings.Contains(j.String(), "moved aside") {
			t.Errorf("log: %s", j.String())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		aside, _ := filepath.Glob(path + ".damaged-*Z*")
		var plain []string
		for _, name := range aside {
			if content, _ := os.ReadFile(name); bytes.Equal(content, garbage) && !strings.HasSuffix(name, "-wal") && !strings.HasSuffix(name, "-shm") {
				plain = append(plain, name)
			}
		}
		if want := min(i+1, 3); len(plain) != want { // the newest three are kept
			t.Errorf("damage %d: %d files aside, want %d: %q", i, len(plain), want, aside)
		}
	}
	if left, _ := filepath.Glob(path + ".salvage*"); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

// The file is damaged behind the back of a store that has it open.
func TestCCH02_DamageWhileRunning(t *testing.T) {
	t.Parallel()
	const records = 2000
	whole := stored(t, records, false)
	for _, reading := range []string{"All", "Get", "Put"} {
		t.Run(reading, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "postseal.db")
			whole.write(t, path)
			var j journal
			s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: j.logger()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			// Not os.WriteFile: opening and closing the file would drop the
			// locks of this process on it.
			if err := os.Truncate(path, info.Size()/2); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() { read(t, s, reading, g) })
			}
			wg.Wait()
			found := 0
			for _, err := range s.All(t.Context(), "policy") {
				if err != nil {
					t.Fatal(err)
				}
				found++
			}
			if found < records/3 || !strings.Contains(j.String(), "moved aside") {
				t.Errorf("%d of %d records; log: %s", found, records, j.String())
			}
			if err := s.Put(t.Context(), record(1)); err != nil || s.Err() != nil {
				t.Errorf("Put = %v, Err() = %v", err, s.Err())
			}
		})
	}
}

// Something in the way of the new file stands for all that can hinder a repair.
func TestCCH02_RepairFailsAndSucceedsLater(t *testing.T) {
	const records = 500
	path := filepath.Join(t.TempDir(), "postseal.db")
	stored(t, records, false).write(t, path)
	obstacle := filepath.Join(path+".salvage", "x")
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path)
		defer s.Close()
		if err := errors.Join(os.MkdirAll(obstacle, 0o700), os.Truncate(path, 30*4096)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := s.Get(t.Context(), "policy", record(records-1).Key); !errors.Is(err, cache.ErrDamaged) || !strings.Contains(err.Error(), path) {
				t.Errorf("Get = %v, want ErrDamaged and the path", err)
			}
		}
		if err := s.Put(t.Context(), record(1)); !errors.Is(err, cache.ErrDamaged) || !errors.Is(s.Err(), cache.ErrDamaged) {
			t.Errorf("Put = %v, Err() = %v, want ErrDamaged", err, s.Err())
		}
		if second, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path}); err == nil {
			second.Close()
		}
		if err := os.RemoveAll(path + ".salvage"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := s.Put(t.Context(), record(1)); err != nil || s.Err() != nil {
			t.Errorf("Put = %v, Err() = %v", err, s.Err())
		}
		if n := count(t, s); n < 50 {
			t.Errorf("%d of %d records", n, records)
		}
	})
}

func TestCCH02_NothingIsTouchedWhenNoNewFileCanBeMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	garbage := bytes.Repeat([]byte("garbage "), 1024)
	fileSet{"": garbage}.write(t, path)
	if err := os.MkdirAll(filepath.Join(path+".salvage", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); !errors.Is(err, cache.ErrDamaged) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open = %v, want ErrDamaged and the path", err)
	}
	if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, garbage) {
		t.Errorf("the file was touched: %v", err)
	}
}

func read(t *testing.T, s *sqlite.Store, how string, g int) {
	for i := range 500 {
		var err error
		switch how {
		case "All":
			if i > 3 {
				return
			}
			seen := map[string]bool{}
			for r, e := range s.All(context.Background(), "policy") {
				if seen[r.Key] {
					t.Errorf("%q is yielded twice", r.Key)
				}
				seen[r.Key], err = true, e
			}
		case "Get":
			_, err = s.Get(context.Background(), "policy", record(i*4+g).Key)
		case "Put":
			err = s.Put(context.Background(), record(10_000+i*4+g))
		}
		if err != nil && !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("%s: %v", how, err)
		}
	}
}
