package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

var expires = time.Now().Add(24 * time.Hour).Truncate(time.Second)

// value is what belongs to key; a few records are long enough to go over pages.
func value(i int) []byte {
	n := 300 + 40*(i%20)
	if i%17 == 0 {
		n = 9000
	}
	return bytes.Repeat(fmt.Appendf(nil, "value %d. ", i), n/10)
}

func record(i int) cache.Record {
	return cache.Record{Kind: "policy", Key: fmt.Sprintf("d%d.test", i), Value: value(i), Expires: expires}
}

// fileSet is the content of a store's files, by ending.
type fileSet map[string][]byte

func (f fileSet) write(t testing.TB, path string) {
	t.Helper()
	for ending, content := range f {
		if err := os.WriteFile(path+ending, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (f fileSet) with(ending string, content []byte) fileSet {
	copied := fileSet{}
	for e, c := range f {
		copied[e] = c
	}
	if content == nil {
		delete(copied, ending)
	} else {
		copied[ending] = content
	}
	return copied
}

func readFiles(t testing.TB, path string) fileSet {
	t.Helper()
	f := fileSet{}
	for _, ending := range []string{"", "-wal", "-shm"} {
		if content, err := os.ReadFile(path + ending); err == nil {
			f[ending] = content
		}
	}
	return f
}

// stored returns the files of a store with n records: closed, or as kill -9
// leaves them, with all in the write-ahead log.
func stored(t testing.TB, n int, killed bool) fileSet {
	t.Helper()
	path := filepath.Join(t.TempDir(), "made.db")
	s := open(t, path)
	for from := 0; from < n; from += 50 {
		var records []cache.Record
		for i := from; i < min(n, from+50); i++ {
			records = append(records, record(i))
		}
		if err := s.Put(t.Context(), records...); err != nil {
			t.Fatal(err)
		}
	}
	if killed {
		defer s.Close()
	} else if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return readFiles(t, path)
}

// survivors opens files, holds whatever is served to be right, by All and by Get,
// sees that writing goes on, and returns how many of n records are there.
func survivors(t testing.TB, files fileSet, n int) int {
	t.Helper()
	dir := t.TempDir()
	defer os.RemoveAll(dir) // now: there are thousands
	path := filepath.Join(dir, "postseal.db")
	files.write(t, path)
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer s.Close()
	want := map[string][]byte{}
	for i := range n {
		want[record(i).Key] = value(i)
	}
	found := 0
	for r, err := range s.All(t.Context(), "policy") {
		if err != nil {
			t.Fatalf("All: %v", err)
		}
		if !bytes.Equal(r.Value, want[r.Key]) || r.Value == nil || !r.Expires.Equal(expires) {
			t.Fatalf("All yields %q with %d bytes until %v", r.Key, len(r.Value), r.Expires)
		}
		delete(want, r.Key)
		found++
	}
	for _, i := range []int{0, n / 2, n - 1} {
		r, err := s.Get(t.Context(), "policy", record(i).Key)
		if err == nil && !bytes.Equal(r.Value, value(i)) {
			t.Fatalf("Get yields a wrong value for %q", r.Key)
		} else if err != nil && !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, cache.ErrDamaged) {
			t.Fatalf("Get: %v", err)
		}
	}
	later := cache.Record{Kind: "policy", Key: "later.test", Value: []byte("x"), Expires: expires}
	if err := s.Put(t.Context(), later); err != nil {
		t.Fatalf("Put: %v", err)
	}
	if _, err := s.Get(t.Context(), "policy", "later.test"); err != nil {
		t.Fatalf("Get after Put: %v", err)
	}
	if err := s.Err(); err != nil {
		t.Fatalf("Err() = %v", err)
	}
	return found
}

// Every offset is tried in what reads the pages of a damaged file; a start takes
// some milliseconds, so that is tried where it can matter: all over the header,
// around the borders of pages, and now and then between them.
func TestCCH02_TruncatedAtEveryOffset(t *testing.T) {
	t.Parallel() // it waits for the disk
	const records = 12
	whole := stored(t, records, false)[""]
	path := filepath.Join(t.TempDir(), "truncated.db")
	fileSet{"": whole}.write(t, path)
	readable := make([]int, len(whole)+1)
	for size := len(whole); size >= 0; size-- {
		if err := os.Truncate(path, int64(size)); err != nil {
			t.Fatal(err)
		}
		n, err := sqlite.CountSalvageable(t.Context(), path)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if readable[size] = n; size < len(whole) && n > readable[size+1] {
			t.Errorf("%d bytes: %d records, with one more byte %d", size, n, readable[size+1])
		}
	}
	if readable[len(whole)] != records {
		t.Errorf("whole file: %d records, want %d", readable[len(whole)], records)
	}
	for size := range readable {
		if size > 0 && size < 100 && size%10 != 0 || size > 100 && (size+1)%4096 > 2 && size%997 != 0 {
			continue
		}
		if found := survivors(t, fileSet{"": whole[:size]}, records); found != readable[size] {
			t.Errorf("%d of %d bytes: %d records are served, %d can be read", size, len(whole), found, readable[size])
		}
	}
}

func TestCCH02_TruncatedWhenBig(t *testing.T) {
	t.Parallel() // it waits for the disk
	const records = 2000
	whole := stored(t, records, false)[""]
	for i := 1; i < 12; i++ {
		size := len(whole)*i/12 + i*i*37
		found := survivors(t, fileSet{"": whole[:size]}, records)
		if least := records*(i-1)/12 - 50; found < least {
			t.Errorf("%d of %d bytes: %d of %d records, want at least %d", size, len(whole), found, records, least)
		}
	}
}

func TestCCH02_LogTruncatedOrDamaged(t *testing.T) {
	t.Parallel()        // it waits for the disk
	const records = 300 // 6 commits
	files := stored(t, records, true)
	log := files["-wal"]
	if len(log) == 0 {
		t.Fatal("no write-ahead log")
	}
	for _, shm := range []bool{true, false} {
		files := files
		if !shm {
			files = files.with("-shm", nil)
		}
		if found := survivors(t, files, records); found != records {
			t.Errorf("log whole: %d records, want %d", found, records)
		}
		previous := 0
		for i := 1; i <= 40; i++ {
			found := survivors(t, files.with("-wal", log[:len(log)*i/40]), records)
			if found < previous || found%50 != 0 {
				t.Errorf("log cut at %d/40: %d records, want whole commits and no fewer than %d", i, found, previous)
			}
			previous = found
		}
		survivors(t, files.with("-wal", nil), records)
		survivors(t, files.with("-wal", []byte{}), records)
		survivors(t, files.with("-wal", bytes.Repeat([]byte("garbage "), 5000)), records)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		flipped := bytes.Clone(log)
		flipped[r.IntN(len(flipped))] ^= 1 << r.IntN(8)
		survivors(t, files.with("-wal", flipped), records)
	}
	survivors(t, files.with("-shm", bytes.Repeat([]byte{0xa5}, 32768)), records)
}

func TestCCH02_BitsFlipped(t *testing.T) {
	t.Parallel() // it waits for the disk
	const records = 200
	whole := stored(t, records, false)[""]
	rounds := 100
	if testing.Short() {
		rounds = 40
	}
	r := rand.New(rand.NewPCG(3, 4))
	lost := 0
	for range rounds {
		flipped := bytes.Clone(whole)
		at := r.IntN(len(flipped))
		if at >= 60 && at < 64 {
			continue // the version of the schema: a newer one is refused, see below
		}
		flipped[at] ^= 1 << r.IntN(8)
		found := survivors(t, fileSet{"": flipped}, records)
		if found < records-15 { // one page of rows
			t.Errorf("a bit at %d: %d of %d records", at, found, records)
		}
		lost += records - found
	}
	t.Logf("%d records lost in %d rounds", lost, rounds)
}

func TestCCH02_EveryByteOfTheHeaderFlipped(t *testing.T) {
	t.Parallel() // it waits for the disk
	const records = 20
	whole := stored(t, records, false)[""]
	for at := range 100 {
		if at >= 60 && at < 64 {
			continue
		}
		flipped := bytes.Clone(whole)
		flipped[at] ^= 0xff
		if found := survivors(t, fileSet{"": flipped}, records); found != records {
			t.Errorf("byte %d: %d of %d records", at, found, records)
		}
	}
}

func TestCCH02_ManyBytesOverwritten(t *testing.T) {
	t.Parallel() // it waits for the disk
	const records = 200
	whole := stored(t, records, false)[""]
	r := rand.New(rand.NewPCG(5, 6))
	for range 40 {
		damaged := bytes.Clone(whole)
		for range 1 + r.IntN(30) {
			at := r.IntN(len(damaged))
			for i := range damaged[at:min(len(damaged), at+1+r.IntN(3000))] {
				damaged[at+i] = byte(r.Uint32())
			}
		}
		copy(damaged[60:64], whole[60:64])
		survivors(t, fileSet{"": damaged}, records)
	}
}

func TestCCH02_PageDestroyed(t *testing.T) {
	t.Parallel() // it waits for the disk
	const records = 200
	whole := stored(t, records, false)[""]
	for page := 0; page < len(whole)/4096; page++ {
		damaged := bytes.Clone(whole)
		clear(damaged[page*4096 : (page+1)*4096])
		found := survivors(t, fileSet{"": damaged}, records)
		if least := records - 15; found < least {
			t.Errorf("page %d zeroed: %d of %d records", page+1, found, records)
		}
	}
}

func TestCCH02_NoDatabaseAtAll(t *testing.T) {
	for name, content := range map[string]string{
		"empty":       "",
		"one byte":    "x",
		"text":        "this is not a database\n",
		"garbage":     strings.Repeat("garbage ", 10_000),
		"zeros":       strings.Repeat("\x00", 20_000),
		"magic alone": "SQLite format 3\x00",
		"magic":       "SQLite format 3\x00" + strings.Repeat("\xff", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			if found := survivors(t, fileSet{"": []byte(content)}, 1); found != 0 {
				t.Errorf("%d records", found)
			}
		})
	}
}

func TestCCH02_DirectoryAtThePath(t *testing.T) {
	dir := t.TempDir()
	_, err := sqlite.Open(t.Context(), sqlite.Config{Path: dir})
	if err == nil || !strings.Contains(err.Error(), dir+" is a directory") || !strings.Contains(err.Error(), "postseal.db") {
		t.Errorf("Open of a directory = %v", err)
	}
	if _, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: dir}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("OpenReadOnly of a directory = %v", err)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: "/dev/null"}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Open of a device = %v", err)
	}
}

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
	for _, reading := range []string{"All", "Get", "Put"} {
		t.Run(reading, func(t *testing.T) {
			const records = 2000
			path := filepath.Join(t.TempDir(), "postseal.db")
			stored(t, records, false).write(t, path)
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
