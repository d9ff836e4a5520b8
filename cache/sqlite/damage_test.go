package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
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

// rounds of n that are tried: under the race detector a quarter.
func rounds(n int) int {
	if raceEnabled {
		return n / 4
	}
	return n
}

// restarts tells the lengths at which a start is tried, which takes some
// milliseconds: all over the file's header, around the borders of pages, and now
// and then between them.
func restarts(size int) bool {
	if raceEnabled {
		return size%50 == 0 && size <= 100 || size > 100 && (size+1)%4096 == size/4096%3 || size%4999 == 0
	}
	return size <= 100 && size%10 == 0 || size > 100 && (size+1)%4096 <= 2 || size%997 == 0
}

// counts tells the lengths at which what reads damaged pages is tried: all, and
// under the race detector those in each page's header, at its edges, and some
// between.
func counts(size int) bool {
	at := size % 4096
	return !raceEnabled || restarts(size) || size <= 110 || at < 16 || at > 4096-8 || size%61 == 0
}

func TestCCH02_TruncatedAtEveryOffset(t *testing.T) {
	t.Parallel() // it waits for the disk
	const records = 12
	whole := stored(t, records, false)[""]
	path := filepath.Join(t.TempDir(), "truncated.db")
	fileSet{"": whole}.write(t, path)
	readable := map[int]int{}
	more := records
	for size := len(whole); size >= 0; size-- {
		if !counts(size) {
			continue
		}
		if err := os.Truncate(path, int64(size)); err != nil {
			t.Fatal(err)
		}
		n, err := sqlite.CountSalvageable(t.Context(), path)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if n > more {
			t.Errorf("%d bytes: %d records, with more bytes %d", size, n, more)
		}
		readable[size], more = n, n
	}
	if n := readable[len(whole)]; n != records {
		t.Errorf("whole file: %d records, want %d", n, records)
	}
	for size := range len(whole) + 1 {
		if !restarts(size) {
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
		parts := rounds(40)
		for i := 1; i <= parts; i++ {
			found := survivors(t, files.with("-wal", log[:len(log)*i/parts]), records)
			if found < previous || found%50 != 0 {
				t.Errorf("log cut at %d/%d: %d records, want whole commits and no fewer than %d", i, parts, found, previous)
			}
			previous = found
		}
		survivors(t, files.with("-wal", nil), records)
		survivors(t, files.with("-wal", []byte{}), records)
		survivors(t, files.with("-wal", bytes.Repeat([]byte("garbage "), 5000)), records)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range rounds(40) {
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
	r := rand.New(rand.NewPCG(3, 4))
	lost := 0
	tries := rounds(100)
	for range tries {
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
	t.Logf("%d records lost in %d rounds", lost, tries)
}

func TestCCH02_EveryByteOfTheHeaderFlipped(t *testing.T) {
	t.Parallel() // it waits for the disk
	const records = 20
	whole := stored(t, records, false)[""]
	for at := range 100 {
		if at >= 60 && at < 64 || raceEnabled && at%4 != 0 {
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
	for range rounds(40) {
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
	pages := len(whole) / 4096
	for page := range pages {
		if raceEnabled && page > 2 && page < pages-2 && page%5 != 0 {
			continue
		}
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
