package sqlite

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postseal/postseal/cache"
)

// Rows of all sizes, around every border of SQLite's format, are read from the
// pages as they were written.
func TestCCH02_PagesAreReadAsWritten(t *testing.T) {
	sizes := []int{0, 1, 10, 127, 128, 400, 3900, 4000, 4040, 4060, 4061, 4062, 4100, 8000, 12_290, 100_000, cache.MaxValue}
	for i := 3960; i < 4070; i++ {
		sizes = append(sizes, i)
	}
	path := filepath.Join(t.TempDir(), "rows.db")
	d, err := openDatabase(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]row{}
	for i, size := range sizes {
		w := newRow(cache.Record{Kind: "k", Key: string(rune('a' + i)), Value: bytes.Repeat([]byte{byte(i)}, size), Expires: time.Unix(int64(i)<<(i%40), 0)})
		if i == 3 {
			w = newRow(cache.Record{Key: ""})
		}
		want[string(w.key)] = w
		if _, err := d.put.ExecContext(t.Context(), w.kind, w.key, w.expires, w.sum, w.value); err != nil {
			t.Fatal(err)
		}
	}
	for _, state := range []string{"in the log", "in the file"} {
		found := 0
		err := readPages(t.Context(), path, func(w row) error {
			if r := want[string(w.key)]; !bytes.Equal(r.value, w.value) || r.expires != w.expires || !bytes.Equal(r.kind, w.kind) || w.id == 0 {
				t.Errorf("%s: %q with %d bytes until %d", state, w.key, len(w.value), w.expires)
			}
			found++
			return nil
		})
		if err != nil || found != len(want) {
			t.Errorf("%s: %d rows of %d: %v", state, found, len(want), err)
		}
		if state == "in the log" {
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Of two rows for one key the later is kept; of two keys for one id, both.
func TestCCH02_SalvageOfDuplicates(t *testing.T) {
	d, err := openDatabase(t.Context(), filepath.Join(t.TempDir(), "salvage.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	insert, err := d.conn.PrepareContext(t.Context(), sqlSalvage)
	if err != nil {
		t.Fatal(err)
	}
	defer insert.Close()
	make := func(id int64, key string, expires int64) row {
		r := cache.Record{Kind: "k", Key: key}
		if expires != 0 {
			r.Expires = time.Unix(expires, 0)
		}
		w := newRow(r)
		w.id = id
		return w
	}
	rows := []row{
		make(1, "a", 100), make(2, "a", 200), make(3, "a", 150), make(4, "b", 0), make(5, "b", 100), make(6, "c", 100), make(7, "c", 0),
		make(1, "other key, id taken", 1), make(-5, "negative id", 1), make(1<<62, "id too large", 1),
	}
	if err := insertSalvaged(t.Context(), insert, rows); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"a": 200, "b": 0, "c": 0, "other key, id taken": 1, "negative id": 1, "id too large": 1}
	for key, expires := range want {
		w := row{}
		if err := w.scan(d.get.QueryRowContext(t.Context(), []byte("k"), []byte(key)).Scan); err != nil || w.expires != expires || w.id <= 0 || w.id > 100 {
			t.Errorf("%q: id %d, expires %d, %v, want %d", key, w.id, w.expires, err, expires)
		}
	}
}

// No content of a file does harm to its reader, and no row comes out of it whose
// checksum does not match.
func FuzzCCH02_Pages(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "seed.db")
	d, err := openDatabase(f.Context(), path)
	if err != nil {
		f.Fatal(err)
	}
	for _, size := range []int{10, 5000, 9000} {
		w := newRow(cache.Record{Kind: "k", Key: string(rune(size)), Value: make([]byte, size)})
		if _, err := d.put.ExecContext(f.Context(), w.kind, w.key, w.expires, w.sum, w.value); err != nil {
			f.Fatal(err)
		}
	}
	read := func(name string) []byte {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		return content
	}
	f.Add(read(path), read(path+"-wal"))
	if err := d.close(); err != nil {
		f.Fatal(err)
	}
	f.Add(read(path), []byte{})
	f.Add([]byte("garbage"), []byte("garbage"))
	f.Fuzz(func(t *testing.T, file, log []byte) {
		path := filepath.Join(t.TempDir(), "fuzzed.db")
		if os.WriteFile(path, file, 0o600) != nil || os.WriteFile(path+"-wal", log, 0o600) != nil {
			t.Fatal("cannot write")
		}
		if err := readPages(t.Context(), path, func(w row) error {
			if !w.intact() || len(w.key) > cache.MaxKey || len(w.value) > cache.MaxValue {
				t.Errorf("row %q", w.key)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

// The checksum covers every column and the borders between them.
func TestChecksumCoversEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := cache.Record{
			Kind:  cache.Kind(rapid.StringN(0, 8, 20).Draw(t, "kind")),
			Key:   rapid.StringN(0, 8, 20).Draw(t, "key"),
			Value: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value"),
		}
		if rapid.Bool().Draw(t, "expires") {
			r.Expires = time.Unix(rapid.Int64Range(1, 1<<40).Draw(t, "at"), 0)
		}
		w := newRow(r)
		if got := w.record(); got.Kind != r.Kind || got.Key != r.Key || !bytes.Equal(got.Value, r.Value) || !got.Expires.Equal(r.Expires) {
			t.Fatalf("%v becomes %v", r, got)
		}
		other := w
		switch rapid.SampledFrom([]string{"kind", "key", "value", "expires", "border"}).Draw(t, "change") {
		case "kind":
			other.kind = append(bytes.Clone(w.kind), 'x')
		case "key":
			other.key = append(bytes.Clone(w.key), 0)
		case "value":
			other.value = append(bytes.Clone(w.value), 0)
		case "expires":
			other.expires ^= 1 << rapid.IntRange(0, 62).Draw(t, "bit")
		case "border":
			if len(w.key) == 0 {
				return
			}
			other.kind, other.key = append(bytes.Clone(w.kind), w.key[0]), w.key[1:]
		}
		if other.intact() {
			t.Fatalf("%+v passes with the checksum of %+v", other, w)
		}
	})
}

func FuzzVarint(f *testing.F) {
	f.Add([]byte{0x81, 0x00})
	f.Add(bytes.Repeat([]byte{0xff}, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, n := varint(b)
		if n > 9 || n > len(b) || n == 0 && v != 0 || n == 1 && v > 127 {
			t.Errorf("varint(%x) = %d, %d", b, v, n)
		}
	})
}
